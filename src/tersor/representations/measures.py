"""Measures of a group's tensors: the units that errors are judged in, energies, errors in decibels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tersor.representations import scales


def units(v: NDArray[np.float32], kind: str) -> NDArray[np.float64]:
    """What errors are judged in: one, or the root mean square of the tensor [1] or of each row [rows]."""
    if kind == "none" or v.size == 0:
        return np.ones(1)
    rms = np.sqrt(np.square(v.astype(np.float64)).mean(axis=(1, 2) if kind == "row" else None)).reshape(-1)
    return np.asarray(np.where(rms > 0, rms, 1.0))


def root_mean(weight: NDArray[np.float32], unit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root of the mean importance of the tensor or of each row: scales smaller by it make the mean weight 1."""
    if weight.size == 0:
        return np.ones(unit.shape)
    mean = weight.mean(axis=None if unit.size == 1 else (1, 2), dtype=np.float64)
    return np.asarray(np.sqrt(np.maximum(mean, 1e-12))).reshape(-1)


def scaling(
    v: NDArray[np.float32], weight: NDArray[np.float32] | None, kind: str
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Scale levels of the tensor [1] or of its rows, and what importance is multiplied by once values are divided.

    Errors are judged in `units`; where there is importance, its mean goes into the scale, so that the rest is about 1.
    """
    unit = units(v, kind)
    mean = np.ones(1) if weight is None else root_mean(weight, unit)
    level = scales.level_of(unit / mean)
    return level, np.square(scales.scale_of(level) / unit).astype(np.float32)


def of_vectors(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Importance as the lattice takes it: in a basis a coefficient belongs to a whole vector and gets its mean."""
    return weight if weight.shape[-1] == 1 else np.broadcast_to(weight.mean(axis=-1, keepdims=True), weight.shape)


def energy(v: NDArray[np.float32]) -> float:
    """Sum of squares in double precision, without a copy."""
    flat = v.reshape(-1)
    return float(np.einsum("n,n->", flat, flat, dtype=np.float64))


def spread(energy: list[float], counts: list[int]) -> float:
    """Mean over values of log2 of their tensor's root mean square, zeros left out."""
    sizes, squares = np.array(counts, dtype=float), np.array(energy)
    alive = squares > 0
    octaves = 0.5 * np.log2(squares[alive] / sizes[alive])
    return float((octaves * sizes[alive]).sum() / sizes[alive].sum()) if alive.any() else 0.0


def half_decibels(error: float, energy: float) -> int:
    """Error over energy as a positive number of half decibels; 255 for none at all."""
    if error <= 0 or energy <= 0:
        return 255
    return int(np.clip(np.rint(-20 * np.log10(error / energy)), -254, 254))
