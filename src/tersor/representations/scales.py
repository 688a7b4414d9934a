"""Scales: one positive number per tensor or per row, stored as sixteenths of an octave.

An error is judged in units of its scale, so scales say where precision goes; plain squared error wants none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tersor.errors import ArchiveError

STEPS = 16
"""Levels per octave."""

MANTISSAS = np.exp2(np.arange(STEPS) / STEPS).astype(np.float32)
"""The scales of one octave, float32 [STEPS]."""

MAX_LEVEL = 16 * 120


def level_of(scale: ArrayLike) -> NDArray[np.int64]:
    """The stored integer nearest to each positive scale."""
    level = np.rint(16 * np.log2(np.maximum(np.asarray(scale, dtype=np.float64), 2.0**-119)))
    return np.clip(level, -MAX_LEVEL, MAX_LEVEL).astype(np.int64)


def scale_of(level: NDArray[np.int64]) -> NDArray[np.float32]:
    """Scales from stored integers: a mantissa from a table of 16 times a power of two.

    Raises:
        ArchiveError: a level is out of range.
    """
    if level.size and np.abs(level).max() > MAX_LEVEL:
        raise ArchiveError("a scale is out of range")
    return np.ldexp(MANTISSAS[level % 16], (level // 16).astype(np.int32)).astype(np.float32)


def broadcast(scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """A scale [1] of a tensor, or scales of its rows, as what its vectors [rows, cols, dim] are multiplied by."""
    return scale.reshape(-1, 1, 1)
