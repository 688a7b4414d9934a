"""The calls users start from: `compress` and `open`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tersor.archive import Archive
from tersor.checkpoint import Checkpoint, count_zeros, open_checkpoint
from tersor.errors import TersorError
from tersor.files import atomic_output
from tersor.plan import Plan, countable, make_plan
from tersor.recipe import Recipe, parse_size
from tersor.representations.control import Progress

if TYPE_CHECKING:
    import torch
    from torch import nn


def dry_run(source: nn.Module | Mapping[str, Any] | str | os.PathLike[str] | Checkpoint, recipe: Recipe) -> Plan:
    """What `compress` would do, tensor by tensor, without doing it; counts zeros, unless the recipe ignores them.

    Args:
        source: as for `compress`.
        recipe: the target and how to get there.

    Raises:
        TersorError: the source cannot be read, or the recipe does not fit it.
    """
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    return make_plan(checkpoint, recipe, zeros=count_zeros(checkpoint, countable(checkpoint, recipe)))


def compress(
    source: nn.Module | Mapping[str, Any] | str | os.PathLike[str] | Checkpoint,
    recipe: Recipe,
    *,
    importance: Mapping[str, torch.Tensor] | Checkpoint | None = None,
    progress: Progress | None = None,
    out: str | os.PathLike[str] | None = None,
    force: bool = False,
    memory: int | str | None = None,
    resume: bool = False,
    distributed: bool = False,
    device: str = "cpu",
) -> Archive:
    """Compress a checkpoint to the recipe's target.

    Checkpoints of more than `encode.TRAINED` values to code are trained on a sample and coded chunk by chunk, whatever
    their size, in bounded memory.

    Args:
        source: a module, a state dict, or a path to .safetensors, a sharded folder, or .pt/.pth/.th.
        recipe: the target and how to get there.
        importance: weight of a squared error, element by element, non-negative; by tensor name. Only ratios
            matter; tensors not named weigh as much as the average.
        progress: called with a stage's name, steps done and steps expected.
        out: the file to write; in memory without.
        force: replace `out` if it exists, and what an interrupted run left beside it.
        memory: what this process may take, in bytes or as a text like "2GB".
        resume: go on with what an interrupted run of the same input, recipe and version left beside `out`.
        distributed: work together with the other processes that torchrun started; they make the same call, and `out` is
            in a folder that all of them see.
        device: where codebooks are trained and codes searched, like "cuda"; the lattice's trellis runs on the CPU. On a
            GPU sums have no fixed order: the bytes of two runs may differ.

    Returns:
        The archive: at `out`, or in memory, where `save` writes it.

    Raises:
        TersorError: the source cannot be read or holds NaN or infinity; the target cannot be met; `importance` does not
            fit; `memory` is too little (says how much is needed); what an earlier run left is of another input, recipe
            or version (says what differs); `out` cannot be written; another process ended.
    """
    from tersor.encode import check_device

    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    limit = None if memory is None else parse_size(memory, "memory")
    weights = importance if importance is None or isinstance(importance, Checkpoint) else open_checkpoint(importance)
    if weights is not None:
        unknown = sorted({e.name for e in weights.entries} - {e.name for e in checkpoint.entries})
        if unknown:
            raise TersorError(f"importance names tensors that {checkpoint.source} lacks: {', '.join(unknown[:10])}")
    check_device(device, recipe)
    if (resume or distributed) and out is None:
        raise TersorError("resume and distributed need a file to write: give out")
    from tersor.stream.run import is_large
    from tersor.stream.start import agree, archive_bytes, identity, together, write_archive

    if out is None:
        if is_large(checkpoint, recipe):
            data = archive_bytes(checkpoint, recipe, importance=weights, memory=limit, progress=progress, device=device)
        else:
            data = _at_once(checkpoint, recipe, weights, limit, progress, device)
        return Archive(data)
    with together(distributed) as team:
        large = is_large(checkpoint, recipe)
        depends = identity(checkpoint, recipe, weights, device) if large or distributed else {}
        agree(team, depends)
        if large:
            write_archive(
                checkpoint, recipe, out, team, depends, importance=weights, memory=limit, resume=resume, force=force,
                progress=progress, device=device,
            )  # fmt: skip
        else:
            team.share(
                "at once", lambda: _save(_at_once(checkpoint, recipe, weights, limit, progress, device), out, force)
            )
    return open(out)


def _save(data: bytes, out: str | os.PathLike[str], force: bool) -> None:
    with atomic_output(out, force=force) as file:
        file.write(data)


def _at_once(
    checkpoint: Checkpoint,
    recipe: Recipe,
    importance: Checkpoint | None,
    memory: int | None,
    progress: Progress | None,
    device: str,
) -> bytes:
    """Encode a checkpoint that is held in memory."""
    from tersor.encode import NEARLY, encode, stretched
    from tersor.stream.memory import check_whole

    check_whole(checkpoint, memory)
    zeros = count_zeros(checkpoint, countable(checkpoint, recipe))
    given = None if importance is None else {e.name: importance.read(e.name) for e in importance.entries}

    def attempt(stretch: float) -> bytes:
        return encode(checkpoint, make_plan(checkpoint, recipe, stretch, zeros), recipe, given, progress, device)

    if recipe.scheme != "additive":
        return attempt(1.0)
    return stretched(attempt, len, NEARLY * recipe.budget(checkpoint.nbytes, checkpoint.parameters))


def open(path: str | os.PathLike[str]) -> Archive:
    """Open an archive; reads its index only.

    Raises:
        ArchiveError: missing, damaged, truncated, or of a newer version.
    """
    return Archive(os.fspath(path))
