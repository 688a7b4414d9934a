"""How far one set of numbers is from another: sums that grow part by part."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

PART = 1 << 16
"""Elements measured at a time: as float64 they stay in the processor's cache, which is three times as fast."""

_PACKED = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])  # float4_e2m1fn


class Gap:
    """The difference of B from A, over elements that are finite in both.

    Attributes:
        count: elements measured.
        energy, error: sums of squares of A and of the difference, times the square of `scale`.
        largest, total: the largest absolute difference and their sum.
        broken: elements left out since they are NaN or infinite in one and not the same in the other.
        scale: a power of two that keeps squares within float64.
    """

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self.count = self.broken = 0
        self.energy = self.error = self.largest = self.total = 0.0

    def add(self, a: NDArray[Any], b: NDArray[Any]) -> None:
        """Take in numbers of A and B, integers or float64, of one shape."""
        finite = np.isfinite(a) & np.isfinite(b)
        if not finite.all():
            same = (a == b) | (np.isnan(a) & np.isnan(b))
            self.broken += int(np.count_nonzero(~finite & ~same))
            a, b = a[finite], b[finite]
        if not a.size:
            return
        with np.errstate(over="ignore", under="ignore"):
            far = _distance(a, b)
            self.count += a.size
            self.energy += float(np.square(a * self.scale, dtype=np.float64).sum())
            self.error += float(np.square(far * self.scale).sum())
            self.largest = max(self.largest, float(far.max()))
            self.total += float(far.sum())

    def join(self, other: Gap) -> None:
        """Take in another gap, of any scale."""
        error, energy = other.sums
        self.error += error * self.scale * self.scale
        self.energy += energy * self.scale * self.scale
        self.count, self.broken = self.count + other.count, self.broken + other.broken
        self.largest, self.total = max(self.largest, other.largest), self.total + other.total

    @property
    def error_db(self) -> float | None:
        """Energy of the difference over A's in decibels; None without a difference, infinite where A is all zeros."""
        return decibels(self.error, self.energy)

    @property
    def sums(self) -> tuple[float, float]:
        """`error` and `energy` without the scale; infinite where float64 does not hold them."""
        return self.error / self.scale / self.scale, self.energy / self.scale / self.scale


def decibels(error: float, energy: float) -> float | None:
    """An error's energy over another in decibels; None where there is no error or no number for it."""
    if not 0 < error < math.inf or not energy < math.inf:
        return None
    return math.inf if energy == 0 else 10 * (math.log10(error) - math.log10(energy))


def measured(a: torch.Tensor, b: torch.Tensor) -> Gap:
    """The gap between two tensors of one shape and any dtypes, on the CPU; a part at a time."""
    pair = a.is_complex() or b.is_complex()
    flat = a.detach().reshape(-1), b.detach().reshape(-1)
    spans = [slice(at, at + PART) for at in range(0, a.numel(), PART)]
    wide = any(str(t.dtype) in ("torch.float64", "torch.complex128") for t in flat)
    gap = Gap(_scale(_numbers(t[s], pair) for t in flat for s in spans) if wide and spans else 1.0)
    for s in spans:
        gap.add(_numbers(flat[0][s], pair), _numbers(flat[1][s], pair))
    return gap


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two contiguous tensors on the CPU have one dtype and shape, and the same bytes."""
    import torch

    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    return a.numel() == 0 or torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


def _numbers(flat: torch.Tensor, pair: bool) -> NDArray[Any]:
    """Elements of a flat tensor as integers or float64; as `pair` each a real and an imaginary part."""
    import torch

    if str(flat.dtype) == "torch.float4_e2m1fn_x2":
        packed = flat.view(torch.uint8).numpy()
        return _PACKED[np.stack([packed & 15, packed >> 4], axis=-1)]
    if pair:
        return flat.to(torch.complex128).numpy().view(np.float64)
    if flat.is_floating_point():
        return flat.to(torch.float64).numpy()
    return flat.view(torch.uint8).numpy() if flat.dtype == torch.bool else flat.numpy()


def _distance(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """|a - b|; of integers exact until it is rounded to float64."""
    kinds = a.dtype.kind + b.dtype.kind
    if kinds in ("ii", "uu"):
        wide = np.int64 if kinds == "ii" else np.uint64
        a, b = a.astype(wide), b.astype(wide)
        unsigned = a.view(np.uint64), b.view(np.uint64)  # differences wrap around to what they are
        return np.where(a > b, unsigned[0] - unsigned[1], unsigned[1] - unsigned[0]).astype(np.float64)
    return np.abs(a.astype(np.float64, copy=False) - b.astype(np.float64, copy=False))


def _scale(parts: Iterable[NDArray[Any]]) -> float:
    """A power of two that brings the largest finite magnitude near 1."""
    peak = max(float(np.abs(part[np.isfinite(part)].astype(np.float64)).max(initial=0)) for part in parts)
    exponent = math.frexp(peak)[1]
    return math.ldexp(1.0, min(max(-exponent, -1000), 1000))
