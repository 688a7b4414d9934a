"""What is known of a checkpoint's values before any of them is coded: how many are zero, how large they get."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from tersor.checkpoint.inventory import Checkpoint, Entry

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

_RUN = 512
PART = 1 << 22
"""Elements read at a time."""


class Part(NamedTuple):
    """Elements [start, stop) of a tensor in storage order."""

    name: str
    start: int
    stop: int


def parts(entries: Iterable[Entry], size: int = PART) -> list[Part]:
    """Entries, in order, cut into parts of at most `size` elements."""
    return [Part(e.name, at, min(at + size, e.numel)) for e in entries for at in range(0, e.numel, size)]


class Facts(NamedTuple):
    """What a part holds.

    Attributes:
        zeros: elements that are zero, of either sign.
        peak: the largest magnitude, NaN if a value is; of complex numbers 0, or NaN if not all are finite.
        octaves, living: of its values, see `octaves_of`.
    """

    zeros: int
    peak: float
    octaves: float
    living: int

    def plus(self, other: Facts) -> Facts:
        """The facts of both together."""
        peak = max(self.peak, other.peak, key=lambda p: math.inf if math.isnan(p) else p)
        return Facts(self.zeros + other.zeros, peak, self.octaves + other.octaves, self.living + other.living)


NOTHING = Facts(0, 0.0, 0.0, 0)
"""The facts of no values at all."""


def examine(checkpoint: Checkpoint, part: Part) -> Facts:
    """The facts of a part of a tensor of real or complex numbers."""
    import numpy as np

    tensor = checkpoint.read_part(*part)
    if tensor.is_complex():
        return Facts(0, 0.0 if bool(tensor.isfinite().all()) else float("nan"), 0.0, 0)
    values = tensor.numpy() if str(tensor.dtype) == "torch.float64" else to_float32(tensor)
    peak = float(max(values.max(initial=0), -values.min(initial=0)))
    octaves = octaves_of(values) if np.isfinite(peak) else (0.0, 0)
    return Facts(values.size - int(np.count_nonzero(values)), peak, *octaves)


def octaves_of(values: NDArray[np.floating]) -> tuple[float, int]:
    """log2 of the root mean square about each value, added up, and over how many values.

    By their mean the bits that parts of a tensor take differ. "About" is a run of 512; runs of zeros are left out.
    """
    import numpy as np

    flat = values.reshape(-1)
    ends = np.arange(0, flat.size, _RUN)
    if not flat.size:
        return 0.0, 0
    with np.errstate(over="ignore"):  # of float64 that is kept
        squares = np.add.reduceat(np.square(flat, dtype=np.float64), ends)
    sizes = np.minimum(_RUN, flat.size - ends)
    alive = squares > 0
    squares, sizes = squares[alive], sizes[alive]
    return float((0.5 * np.log2(squares / sizes) * sizes).sum()), int(sizes.sum())


def count_zeros(checkpoint: Checkpoint, names: Iterable[str]) -> dict[str, int]:
    """Number of zeros, of either sign, in each of the named tensors; reads a part at a time."""
    wanted = set(names)
    counts = dict.fromkeys(wanted, 0)
    for part in parts(e for e in checkpoint.entries if e.name in wanted):
        counts[part.name] += examine(checkpoint, part).zeros
    return counts


def to_float32(tensor: torch.Tensor) -> NDArray[np.float32]:
    """Values of a tensor on the CPU as float32, by this thread alone; shares memory where they are that already."""
    import numpy as np
    import torch

    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        halves = tensor.contiguous().view(torch.int16).numpy().view(np.uint16)
        return (halves.astype(np.uint32) << 16).view(np.float32)
    if tensor.dtype in (torch.float32, torch.float16, torch.float64):
        with np.errstate(over="ignore"):
            return tensor.numpy().astype(np.float32, copy=False)
    return tensor.to(torch.float32).numpy()
