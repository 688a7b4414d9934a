"""Writing plain safetensors: tensors in memory, or tensors that arrive one by one, in any order, and go at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO

from tersor.checkpoint.inventory import Entry
from tersor.checkpoint.layout import Layout, layout_of, with_ties
from tersor.errors import TersorError
from tersor.files import atomic_output, reserve

if TYPE_CHECKING:
    import torch

Arriving = Iterable[tuple[str, "torch.Tensor"]]
"""Names and tensors, of each that is not tied to another."""


def save_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, torch.Tensor] | Arriving,
    *,
    ties: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
    force: bool = False,
) -> int:
    """Write tensors under their names, in their order, and return the bytes written.

    `ties` maps a name to the name whose tensor it repeats. Each such name is in the file in full (from its owner,
    where `tensors` lacks it), so any loader finds it, and metadata `tersor.ties` lets `open_checkpoint` tie it again.

    Raises:
        TersorError: a name, a dtype or a tie that the format cannot hold, or the file cannot be written
            (see `atomic_output`).
    """
    from tersor.checkpoint.memory import check_plain, dtype_name

    named: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items() if isinstance(tensors, Mapping) else tensors:
        if name in named:
            raise TersorError(f"cannot write {path}: two tensors are named {name!r}; rename one")
        named[name] = check_plain(name, tensor, f"cannot write {path}")
    entries = [Entry(name, dtype_name(tensor), tuple(tensor.shape)) for name, tensor in named.items()]
    layout = layout_of(path, with_ties(path, entries, ties or {}), metadata)
    with atomic_output(path, force=force) as out:
        out.write(layout.header)
        for name, start in layout.starts.items():
            tensor = named.get(name)
            _put(out, start, named[(ties or {})[name]] if tensor is None else tensor)
    return layout.size


def stream_safetensors(
    path: str | os.PathLike[str], entries: Sequence[Entry], arriving: Arriving, *, force: bool = False
) -> int:
    """Write tensors as they arrive, each to its place, and return the bytes written; no two need be in memory at once.

    Args:
        path: of the file.
        entries: of all names, in the order they are to have; those that are tied to another get its values.
        arriving: name and tensor of all others, in any order.
        force: replace what is there.

    Raises:
        TersorError: as `save_safetensors`; the space is taken first, so that a full disk shows at once.
    """
    layout = layout_of(path, entries)
    with atomic_output(path, force=force) as out:
        reserve(out, layout.size)
        out.write(layout.header)
        fill(path, entries, dict.fromkeys(layout.starts, (out, layout)), arriving)
    return layout.size


def fill(
    path: str | os.PathLike[str],
    entries: Sequence[Entry],
    places: Mapping[str, tuple[BinaryIO, Layout]],
    arriving: Arriving,
) -> None:
    """Write each tensor where its name, and those tied to it, have their places.

    Raises:
        TersorError: a tensor is missing, not expected, or of another size than its entry says.
    """
    waiting: dict[str, list[Entry]] = {}
    for entry in entries:
        waiting.setdefault(entry.owner, []).append(entry)
    for name, tensor in arriving:
        wanted = waiting.pop(name, None)
        if wanted is None or wanted[0].nbytes != tensor.numel() * tensor.element_size():
            told = "is not expected" if wanted is None else "has another size than it should"
            raise TersorError(f"cannot write {path}: tensor {name!r} {told}; check where it comes from")
        for entry in wanted:
            out, layout = places[entry.name]
            _put(out, layout.starts[entry.name], tensor)
        del tensor  # before the next one is made
    if waiting:
        raise TersorError(f"cannot write {path}: tensor {next(iter(waiting))!r} never came; check where it comes from")


def _put(out: BinaryIO, start: int, tensor: torch.Tensor) -> None:
    import torch

    from tersor.checkpoint.memory import settle

    out.seek(start)
    out.write(settle(tensor).reshape(-1).view(torch.uint8).numpy().data)
