"""The calls users start from: `compress` and `open`."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

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

    from tersor.tune.batches import Batch, Data


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
    data: Data | None = None,
    labelled: bool = False,
    loss: Callable[[Any, Any, Batch], torch.Tensor] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Archive:
    """Compress a checkpoint to the recipe's target.

    Passes of the recipe are carried out on a copy of the network first, all of it in memory; ratio and bpp then refer
    to the network as it came. `Archive.apply_` loads the result into a module of the original class.

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
        data: batches of what the network takes, for passes that train or measure: a list, a DataLoader, or a function
            that gives a fresh iterable for each pass.
        labelled: batches end with labels.
        loss: of your own for training in passes, from the network's output, the original's, and the batch.
        tell: takes lines for a person: what each pass did, and bytes before and after it.

    Returns:
        The archive: at `out`, or in memory, where `save` writes it.

    Raises:
        TersorError: the source cannot be read or holds NaN or infinity; the target cannot be met; `importance` does not
            fit; `memory` is too little (says how much is needed); what an earlier run left is of another input, recipe
            or version (says what differs); `out` cannot be written; another process ended.
    """
    from tersor.encode import check_device

    check_device(device, recipe)
    if recipe.passes:
        if memory is not None or resume or distributed:
            raise TersorError("passes hold the whole network: leave memory, resume and distributed out")
        return _through_passes(
            source, recipe, importance, progress, out, force, device, data=data, labelled=labelled, loss=loss, tell=tell
        )
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    limit = None if memory is None else parse_size(memory, "memory")
    weights = importance if importance is None or isinstance(importance, Checkpoint) else open_checkpoint(importance)
    if weights is not None:
        unknown = sorted({e.name for e in weights.entries} - {e.name for e in checkpoint.entries})
        if unknown:
            raise TersorError(f"importance names tensors that {checkpoint.source} lacks: {', '.join(unknown[:10])}")
    if (resume or distributed) and out is None:
        raise TersorError("resume and distributed need a file to write: give out")
    from tersor.stream.run import is_large
    from tersor.stream.start import agree, archive_bytes, identity, together, write_archive

    if out is None:
        if is_large(checkpoint, recipe):
            data = archive_bytes(checkpoint, recipe, importance=weights, memory=limit, progress=progress, device=device)
        else:
            data = _whole(checkpoint, recipe, weights, limit, progress, device)
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
                "at once", lambda: _save(_whole(checkpoint, recipe, weights, limit, progress, device), out, force)
            )
    return open(out)


def _through_passes(
    source: Any,
    recipe: Recipe,
    importance: Any,
    progress: Progress | None,
    out: str | os.PathLike[str] | None,
    force: bool,
    device: str,
    **keywords: Any,
) -> Archive:
    """Passes, coding, tuning; in memory, then at `out`."""
    from torch import nn

    from tersor.passes.chain import Chain

    if not isinstance(source, nn.Module):
        raise TersorError(
            "passes change the network itself, not only its tensors: give the module (module:function on the command "
            "line), or a recipe without passes"
        )
    if out is not None and os.path.lexists(out) and not force:
        raise TersorError(f"{os.fspath(out)} exists; pass force=True to overwrite it")
    given = open_checkpoint(source)
    make_plan(given, recipe)  # patterns that match nothing are told before any work
    chain = Chain(source, recipe, progress=progress, **keywords)
    weights = importance if importance is None or isinstance(importance, Checkpoint) else open_checkpoint(importance)
    if weights is not None:
        chain.weigh(weights)
    checkpoint = chain.prepare()
    names = [entry.name for entry in checkpoint.entries]
    exclude = tuple(p for p in recipe.exclude if fnmatch.filter(names, p))  # factors have other names
    recipe = replace(recipe, given_bytes=given.nbytes, given_parameters=given.parameters, exclude=exclude)
    archive = chain.finish(Archive(chain.code(checkpoint, recipe, weights, progress, device)))
    if out is None:
        return archive
    archive.save(out, force=force)
    return open(out)


def _save(data: bytes, out: str | os.PathLike[str], force: bool) -> None:
    with atomic_output(out, force=force) as file:
        file.write(data)


def _whole(
    checkpoint: Checkpoint,
    recipe: Recipe,
    importance: Checkpoint | None,
    memory: int | None,
    progress: Progress | None,
    device: str,
) -> bytes:
    """Encode a checkpoint that is held in memory, where that is allowed."""
    from tersor.stream.memory import check_whole
    from tersor.whole import encode_whole

    check_whole(checkpoint, memory)
    return encode_whole(checkpoint, recipe, importance, progress, device)


def open(path: str | os.PathLike[str]) -> Archive:
    """Open an archive; reads its index only.

    Raises:
        ArchiveError: missing, damaged, truncated, or of a newer version.
    """
    return Archive(os.fspath(path))
