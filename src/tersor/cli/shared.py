"""What the commands share: their parsers, what they print and where, checks before the work, the user's functions."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tersor.errors import TersorError
from tersor.user.loader import load_function

if TYPE_CHECKING:
    import torch
    from torch import nn

    from tersor.checkpoint import Checkpoint

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
    Show = Callable[..., None]

FUNCTION = "pkg.module:function, or file.py:function"


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], None], text: str, about: str
) -> argparse.ArgumentParser:
    """A command with `--json`; `about` ends its help: an example, and what one should know."""
    sub = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    sub.set_defaults(run=run)
    sub.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    return sub


def usage_error(problem: str) -> SystemExit:
    """Wrong usage: tells it and gives what to raise."""
    print(f"tersor {problem}", file=sys.stderr)
    return SystemExit(2)


# ---------------------------------------------------------------------- what is printed
def print_json(value: dict[str, Any]) -> None:
    """One object on one line of stdout; numbers that JSON lacks become null."""
    plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in value.items()}
    print(json.dumps(plain))


def note(line: str) -> None:
    """A line for a person, on stderr, only where there is one."""
    if sys.stderr.isatty():
        print(line, file=sys.stderr)


def duration(seconds: float) -> str:
    """Seconds for a person."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Show]:
    """A progress bar with the time left, on a terminal; silence elsewhere, or where that is asked for.

    Gives a function of a stage's name, steps done and steps expected, and optionally a detail to show beside them.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda stage, done, total, detail="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        tasks: dict[str, tuple[TaskID, int]] = {}

        def show(stage: str, done: int, total: int, detail: str = "") -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total, detail=detail), done
            task, before = tasks[stage]
            if done < before:  # the stage begins again
                bar.reset(task)
            tasks[stage] = task, done
            bar.update(task, completed=done, total=total, detail=detail)

        yield show


# ---------------------------------------------------------------------- files
def check_out(source: str | None, out: str, force: bool) -> None:
    """Fail before the work, not after it; the write checks again."""
    if os.path.lexists(out) and not force:
        raise TersorError(f"{out} exists; pass --force to overwrite it")
    if source is not None and os.path.exists(out) and os.path.exists(source) and os.path.samefile(source, out):
        raise TersorError(f"{out} is the input itself; give another name")
    folder = os.path.dirname(os.path.abspath(out))
    if not os.path.isdir(folder):
        raise TersorError(f"{folder} does not exist; make it or give another path")


def checkpoint_of(source: str) -> Checkpoint:
    """A checkpoint from a path, or from a function of the user's that gives a module or a state dict."""
    from tersor.checkpoint import open_checkpoint

    if ":" in source and not os.path.exists(source):
        return open_checkpoint(made_by(source))
    return open_checkpoint(source)


def read_importance(path: str | None) -> dict[str, torch.Tensor] | None:
    """Tensors of an importance file."""
    if path is None:
        return None
    from tersor.checkpoint import open_checkpoint

    given = open_checkpoint(path)
    return {entry.name: given.read(entry.name) for entry in given.entries}


# ---------------------------------------------------------------------- the user's functions
def made_by(spec: str) -> Any:
    """What a function of the user's returns, called without arguments."""
    function = load_function(spec)
    with faults_of(spec, wholly=True):
        return function()


def model_of(spec: str) -> nn.Module:
    """The network that a function of the user's makes."""
    from torch import nn

    model = made_by(spec)
    if not isinstance(model, nn.Module):
        raise TersorError(f"{spec} returned a {type(model).__name__}; return the network, a torch.nn.Module")
    return model


def seed_everything(seed: int) -> None:
    """Seed torch's global random state, which the user's data may draw from: runs are repeatable."""
    import torch

    torch.manual_seed(seed)


@contextmanager
def faults_of(what: str, *, wholly: bool = False) -> Iterator[None]:
    """Errors in the user's model and functions as one line; a fault of tersor's own keeps its traceback.

    `wholly`: nothing but the user's function is called, so that whatever is raised is its fault.
    """
    try:
        yield
    except (TersorError, MemoryError):
        raise
    except Exception as error:
        from tersor.user.faults import described, is_ours

        if is_ours(error) and not wholly:
            raise
        raise TersorError(f"{what} raised {described(error)}; mend that first") from error
