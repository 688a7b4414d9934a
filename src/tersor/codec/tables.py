"""Integer frequency tables and the short form they are stored in.

A table is stored as *levels*: quarter octaves below its most frequent symbol, small integers from 0 to 60. Frequencies
follow from the levels in integer arithmetic alone, so every reader builds the same table. Quarter octaves cost the
coded stream about 0.002 bits a symbol against exact counts, far less than exact counts would cost in the file.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tersor.errors import ArchiveError

MAX_LEVEL = 60
_QUARTERS = np.array([32768, 27554, 23170, 19484], dtype=np.int64)  # 2**15 * 2**(-i / 4)


def levels_of(counts: ArrayLike) -> NDArray[np.int64]:
    """Levels [..., K] nearest to counts [..., K] (any non-negative numbers); a symbol never seen gets `MAX_LEVEL`."""
    c = np.asarray(counts, dtype=np.float64)
    top = np.maximum(c.max(axis=-1, keepdims=True), 1e-30)
    with np.errstate(divide="ignore"):
        levels = np.rint(-4 * np.log2(np.maximum(c, 0) / top))
    return np.clip(np.nan_to_num(levels, posinf=MAX_LEVEL), 0, MAX_LEVEL).astype(np.int64)


def frequencies(levels: ArrayLike, precision: int) -> NDArray[np.uint32]:
    """Frequencies [..., K], each at least 1, that sum to 2**precision along the last axis.

    With w = 2**15 * 2**(-level/4), rounded down as written in `docs/format.md`, and W the sum of w:
    f = 1 + w * (2**precision - K) // W, and what is missing to 2**precision goes to the first most frequent symbol.
    """
    v = np.asarray(levels, dtype=np.int64)
    if v.size and (v.min() < 0 or v.max() > MAX_LEVEL):
        raise ArchiveError("a frequency table has a level out of range")
    size = v.shape[-1]
    if size == 0 or size > 1 << precision:
        raise ArchiveError("a frequency table has no symbols or too many")
    weights = _QUARTERS[v % 4] >> (v // 4)
    f = 1 + weights * ((1 << precision) - size) // weights.sum(axis=-1, keepdims=True)
    flat = f.reshape(-1, size)
    flat[np.arange(len(flat)), flat.argmax(axis=1)] += (1 << precision) - flat.sum(axis=1)
    return f.astype(np.uint32)


def bits(table: NDArray[np.uint32], precision: int) -> NDArray[np.float32]:
    """Bits that each symbol costs under a table of frequencies."""
    return (precision - np.log2(table.astype(np.float64))).astype(np.float32)
