"""From the user's call to a run: who takes part, what it depends on, where its pieces are kept."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import Any

import tersor
from tersor.checkpoint import Checkpoint
from tersor.checkpoint.fingerprint import differences, of_bytes, of_checkpoint
from tersor.errors import TersorError
from tersor.files import check_output
from tersor.recipe import Recipe
from tersor.representations.control import Progress
from tersor.stream.run import Run
from tersor.stream.team import Team, of_environment
from tersor.stream.work import SUFFIX, Work


def write_archive(
    checkpoint: Checkpoint,
    recipe: Recipe,
    out: str | os.PathLike[str],
    team: Team,
    depends: dict[str, Any],
    *,
    importance: Checkpoint | None = None,
    memory: int | None = None,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    device: str = "cpu",
) -> None:
    """Compress a checkpoint of any size to the file `out`; what is finished is kept beside it until all is.

    Args:
        checkpoint: the tensors.
        recipe: the target and how to get there.
        out: where the archive goes; on several machines, in a folder that all see.
        team: the processes that take part.
        depends: the `identity` of the run, on which they agree.
        importance: weights of errors.
        memory: bytes that each process may take.
        resume: go on with what an earlier run left.
        force: replace `out`, and what another run left.
        progress: called with a stage, steps done and steps expected.
        device: where codes are searched.

    Raises:
        TersorError: as `Run.write`; or the earlier run was of another identity (says what differs).
    """
    check_output(out, force=force)
    work = Work(os.path.realpath(out) + SUFFIX)
    run = Run(checkpoint, recipe, work, team, importance, memory, progress, device)
    if team.rank == 0:
        with work.alone():
            work.begin(depends, resume=resume, force=force)
            try:
                team.gather("begun", None)
                run.write(out, force=force)
            except TersorError:
                if work.is_empty():  # refused before anything was done: nothing to resume
                    work.remove()
                raise
            work.remove()
    else:
        team.gather("begun", None)
        run.write(out, force=force)


def archive_bytes(
    checkpoint: Checkpoint,
    recipe: Recipe,
    *,
    importance: Checkpoint | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
    device: str = "cpu",
) -> bytes:
    """The same in memory; its pieces lie in the folder for temporary files meanwhile."""
    with tempfile.TemporaryDirectory(prefix="tersor-") as folder:
        work = Work(os.path.join(folder, "pieces"))
        work.begin({}, resume=False, force=False)
        out = os.path.join(folder, "archive")
        Run(checkpoint, recipe, work, Team(), importance, memory, progress, device).write(out)
        with open(out, "rb") as file:
            return file.read()


def identity(checkpoint: Checkpoint, recipe: Recipe, importance: Checkpoint | None, device: str) -> dict[str, Any]:
    """What a run depends on, as texts that differ where it does."""
    told: dict[str, Any] = {"version": tersor.__version__, "recipe": recipe.as_dict(), "device": device}
    told["tensors"] = of_bytes(repr([(e.name, e.dtype, e.shape, e.tied_to) for e in checkpoint.entries]).encode())
    for what, source in (("input", checkpoint), ("importance", importance)):
        if source is None:
            continue
        if source.identity is None:
            told[what] = of_checkpoint(source)
            continue
        for name, facts in source.identity().items():
            changed = datetime.fromtimestamp(facts["changed"] / 1e9, timezone.utc).isoformat(" ", "microseconds")
            told[f"{what} {name}"] = f"{facts['bytes']:,} B, {facts['digest']}, changed {changed}"
    return told


def agree(team: Team, depends: dict[str, Any]) -> None:
    """Raises TersorError where a process would do something else; copies of the input may have dates of their own."""

    def undated(value: Any) -> Any:
        return value.partition(", changed")[0] if isinstance(value, str) else value

    every = team.gather("identity", {name: undated(value) for name, value in depends.items()})
    for rank, other in enumerate(every):
        if told := differences(every[0], other):
            raise TersorError(f"process {rank} of {team.size} differs from the first ({'; '.join(told)}); mend that")


@contextmanager
def together(distributed: bool) -> Iterator[Team]:
    """The processes that torchrun started, if asked for; the others hear of an error here, and stop."""
    team = of_environment() if distributed else Team()
    try:
        yield team
    except BaseException as error:
        with suppress(TersorError):  # the reason is what counts, not that the others are gone as well
            team.close(str(error) if isinstance(error, TersorError) else type(error).__name__)
        raise
    team.close()
