"""Affine integers: `w = scale * (q - zero)`, q of 2 to 8 bits, one scale per tensor, per row, or per run of a row.

Source: the standard scheme of integer inference (Jacob et al., "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference", 2018, section 2.1); symmetric unless zero points are asked for. Scales are
bfloat16 numbers, so that two bytes each hold them exactly; they are searched for the least squared error.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MIN_BITS, MAX_BITS = 2, 8
PER_TENSOR, PER_ROW = 0, -1
"""Values of `block` that are no length of a run."""

_SHRINK = np.linspace(1.0, 0.4, 25, dtype=np.float32)
"""Scales tried, as shares of the one that reaches the largest magnitude: clipping a few values buys finer steps."""


class Grid(NamedTuple):
    """Steps and zero points, one per unit of a tensor.

    Attributes:
        scales: float32 [units], bfloat16 numbers, above 0.
        zeros: int32 [units], the integers that stand for zero.
    """

    scales: NDArray[np.float32]
    zeros: NDArray[np.int32]


def scheme(bits: int, block: int, with_zero: bool) -> str:
    """How a recipe writes such integers: int8, int4/64, int8/tensor, int4+zero."""
    per = {PER_TENSOR: "/tensor", PER_ROW: ""}.get(block, f"/{block}")
    return f"int{bits}{per}{'+zero' * with_zero}"


def units_of(values: NDArray[np.float32], block: int) -> NDArray[np.float32]:
    """The values as [units, length]: what shares a scale in a row of its own.

    `block` is PER_TENSOR, PER_ROW (the first dimension), or the length of runs of each row; it must divide the row.
    """
    rows = values.shape[0] if values.ndim > 1 else 1
    if block == PER_TENSOR:
        return values.reshape(1, -1)
    return values.reshape(rows, -1) if block == PER_ROW else values.reshape(-1, block)


def fits(shape: tuple[int, ...], block: int) -> bool:
    """Whether a tensor of this shape can be cut into such units."""
    if block in (PER_TENSOR, PER_ROW):
        return True
    length = int(np.prod(shape[1:], dtype=np.int64)) if len(shape) > 1 else int(np.prod(shape, dtype=np.int64))
    return block > 0 and length % block == 0


def limits(bits: int, with_zero: bool) -> tuple[int, int]:
    """Least and greatest integer: symmetric about 0 without zero points, else 0 to 2**bits - 1."""
    return (0, (1 << bits) - 1) if with_zero else (-(1 << bits - 1) + 1, (1 << bits - 1) - 1)


def fit(values: NDArray[np.float32], bits: int, block: int, with_zero: bool = False) -> Grid:
    """The grid of a tensor with the least squared error among `_SHRINK` of the one that clips nothing."""
    x = units_of(values, block)
    low, high = limits(bits, with_zero)
    if with_zero:
        least, most = np.minimum(x.min(axis=1), 0), np.maximum(x.max(axis=1), 0)
    else:
        most = np.abs(x).max(axis=1)
        least = -most
    best = np.full(len(x), np.inf)
    scales, zeros = np.ones(len(x), dtype=np.float32), np.zeros(len(x), dtype=np.int32)
    for share in _SHRINK if bits < MAX_BITS else _SHRINK[:1]:
        step = _bfloat16(np.maximum(share * (most - least) / np.float32(high - low), np.float32(1e-30)))
        zero = np.rint(low - share * least / step).astype(np.int32) if with_zero else np.zeros_like(zeros)
        zero = np.clip(zero, low, high)
        grid = Grid(step, zero)
        error = np.square(_value(_integers(x, grid, low, high), grid) - x).sum(axis=1, dtype=np.float64)
        better = error < best
        best = np.where(better, error, best)
        scales, zeros = np.where(better, step, scales), np.where(better, zero, zeros)
    return Grid(scales.astype(np.float32), zeros.astype(np.int32))


def quantize(
    values: NDArray[np.float32], grid: Grid, bits: int, block: int, with_zero: bool = False
) -> NDArray[np.int32]:
    """Nearest integers of the grid, shaped like the values."""
    low, high = limits(bits, with_zero)
    return _integers(units_of(values, block), grid, low, high).reshape(values.shape)


def dequantize(integers: NDArray[np.int32], grid: Grid, block: int) -> NDArray[np.float32]:
    """Values of integers: one product of float32 numbers each, the same bits everywhere."""
    as_units = units_of(integers.astype(np.float32), block).astype(np.int32)
    return _value(as_units, grid).reshape(integers.shape)


def _integers(x: NDArray[np.float32], grid: Grid, low: int, high: int) -> NDArray[np.int32]:
    q = np.rint(x / grid.scales[:, None]).astype(np.int64) + grid.zeros[:, None]
    return np.clip(q, low, high).astype(np.int32)


def _value(q: NDArray[np.int32], grid: Grid) -> NDArray[np.float32]:
    return (q - grid.zeros[:, None]).astype(np.float32) * grid.scales[:, None]


def _bfloat16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The least bfloat16 numbers that are not below, for positive values: nothing is clipped that need not be."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)).view(np.float32)
