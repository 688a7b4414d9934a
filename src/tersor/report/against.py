"""Errors measured against the dense tensors, and what of them does not fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tersor.archive import Archive
from tersor.checkpoint import Checkpoint, Entry
from tersor.errors import TersorError

if TYPE_CHECKING:
    import torch

_SLICE = 1 << 22  # elements that are compared at once, in double precision


@dataclass
class Measured:
    """What comparing gave.

    Attributes:
        source: the dense checkpoint's name without the folder.
        ratios: squared error over the dense tensor's energy, by name; 0 where every bit is the same, infinite where a
            tensor of zeros came back as something else.
        error, energy: sums over all tensors compared that are not the same bit by bit.
        reshaped: name, shape in the file, shape in the dense checkpoint.
        missing, extra: names that only the file, or only the checkpoint has.
        unlike: names whose values differ and have no error to speak of: integers, or NaN and infinity.
    """

    source: str
    ratios: dict[str, float] = field(default_factory=dict)
    error: float = 0.0
    energy: float = 0.0
    reshaped: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    unlike: list[str] = field(default_factory=list)


def measure(archive: Archive, dense: Checkpoint, progress: Callable[[int, int], None] | None = None) -> Measured:
    """Compare every tensor of an archive with the one of the same name, one at a time.

    Raises:
        ArchiveError: a section is damaged.
        TersorError: the checkpoint cannot be read, or has no tensor of the archive's in the same shape.
    """
    theirs = {entry.name: entry for entry in dense.entries}
    ours = {entry.name: entry for entry in archive.entries}
    found = Measured(str(dense.source).replace("\\", "/").rsplit("/", 1)[-1])
    found.missing = [name for name in ours if name not in theirs]
    found.extra = [name for name in theirs if name not in ours]
    both = [entry for name, entry in ours.items() if name in theirs]
    found.reshaped = [(e.name, e.shape, theirs[e.name].shape) for e in both if e.shape != theirs[e.name].shape]
    alike = {e.name for e in both if e.shape == theirs[e.name].shape and e.tied_to is None}
    if not alike:
        raise TersorError(
            f"{dense.source} does not fit {archive.name}: no tensor has the same name and shape; give the checkpoint "
            "that it was made from"
        )
    done = 0
    for name, tensor in archive.tensors():
        if name in alike:
            _compare(found, theirs[name], dense.read(name), tensor)
            done += 1
            if progress is not None:
                progress(done, len(alike))
        del tensor  # before the next one is decoded
    return found


def _compare(found: Measured, entry: Entry, dense: torch.Tensor, ours: torch.Tensor) -> None:
    """One tensor."""
    if _same(dense, ours):
        found.ratios[entry.name] = 0.0
        return
    error = energy = math.nan
    if dense.is_floating_point() and ours.is_floating_point():
        pairs = [(dense.reshape(-1)[at : at + _SLICE], ours.reshape(-1)[at : at + _SLICE]) for at in _starts(dense)]
        error = sum(float((a.double() - b.double()).square().sum()) for a, b in pairs)
        energy = sum(float(a.double().square().sum()) for a, _ in pairs)
    if not (math.isfinite(error) and math.isfinite(energy)):
        found.unlike.append(entry.name)
        return
    found.ratios[entry.name] = error / energy if energy else (math.inf if error else 0.0)
    found.error += error
    found.energy += energy


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors of a shape have the same type and the same bytes, NaN included."""
    import torch

    if a.dtype != b.dtype:
        return False
    if not a.numel():
        return True
    return torch.equal(a.contiguous().reshape(-1).view(torch.uint8), b.contiguous().reshape(-1).view(torch.uint8))


def _starts(tensor: torch.Tensor) -> range:
    return range(0, tensor.numel(), _SLICE)
