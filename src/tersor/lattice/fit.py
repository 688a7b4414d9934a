"""Fitting the lattice stage at a step: symbols given tables, tables given symbols, a few times over."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tersor.lattice import contexts, kernels, tokens
from tersor.lattice.kernels import Scan
from tersor.lattice.planes import MIXES, Planes, mean_level
from tersor.lattice.trellis import TRELLISES

LAMBDA = 0.25
"""Squared error, in steps, worth one bit; on trained weights 0.22 to 0.3 beat 0.15 by 0.1 to 0.2 dB at equal bytes."""


@dataclass(frozen=True)
class Lattice:
    """What a decoder needs beside the symbols.

    Attributes:
        step: distance of neighbouring levels, a float32 value.
        memory: bits of the trellis state, a key of `TRELLISES`.
        means: level of the mean energy per tensor and coefficient, int64 [planes.means].
        mixes: index into `MIXES` per tensor, int64 [tensors].
        levels: table levels, int64 [2 * CONTEXTS, tokens].
    """

    step: float
    memory: int
    means: NDArray[np.int64]
    mixes: NDArray[np.int64]
    levels: NDArray[np.int64]

    def scan(self, planes: Planes) -> Scan:
        """The planes with this lattice's energies, for the kernels."""
        return Scan(planes.kernel_table(self.means, self.mixes), planes.chunk_planes, planes.chunk_starts)


@dataclass(frozen=True)
class Coded:
    """Symbols with the lattice they were chosen under, and what that costs.

    Attributes:
        lattice: with tables fitted to `symbols`.
        symbols: signed magnitudes in scan order, int32.
        counts: of tokens per context, int64 [2 * CONTEXTS, tokens].
        bits: predicted bits of the streams, tables not counted.
    """

    lattice: Lattice
    symbols: NDArray[np.int32]
    counts: NDArray[np.int64]
    bits: float


def start(planes: Planes, x: NDArray[np.float32], step: float, memory: int) -> Lattice:
    """A first guess: Laplacian tables, and means measured on the values themselves."""
    count = token_count(x, step)
    mean = _per_coefficient(planes, plane_sums(planes, np.abs(x) / np.float32(step)))
    levels = contexts.levels_from(np.zeros((2 * contexts.CONTEXTS, count), dtype=np.int64))
    return Lattice(step, memory, mean_level(mean), np.zeros(len(planes.shapes), dtype=np.int64), levels)


def refine(
    planes: Planes,
    x: NDArray[np.float32],
    lattice: Lattice,
    *,
    weight: NDArray[np.float32] | None = None,
    lam: float = LAMBDA,
    mixes: bool = False,
) -> Coded:
    """One round: the best symbols under the lattice's tables, then the tables of those symbols.

    Args:
        planes: the scan order.
        x: values in scan order, float32.
        lattice: tables, means and mixes to search under.
        weight: importance per value, mean about 1, or None.
        lam: squared error in steps worth one bit.
        mixes: also choose each tensor's mix of energies again.
    """
    symbols = search(planes, x, lattice, weight=weight, lam=lam)
    return retable(planes, symbols, lattice, mixes=mixes)


def search(
    planes: Planes,
    x: NDArray[np.float32],
    lattice: Lattice,
    *,
    weight: NDArray[np.float32] | None = None,
    lam: float = LAMBDA,
) -> NDArray[np.int32]:
    """The best symbols under a lattice as it is."""
    cost = contexts.token_bits(lattice.levels)
    return kernels.search(x, lattice.step, weight, lattice.scan(planes), cost, lam, TRELLISES[lattice.memory])


def retable(planes: Planes, symbols: NDArray[np.int32], lattice: Lattice, *, mixes: bool = False) -> Coded:
    """Means, mixes and tables for symbols already chosen."""
    trellis, count = TRELLISES[lattice.memory], lattice.levels.shape[1]
    cost = contexts.token_bits(lattice.levels)
    first = kernels.measure(symbols, lattice.scan(planes), None, trellis, count)
    lattice = replace(lattice, means=mean_level(_per_coefficient(planes, first.levels)))
    if mixes:
        owner = planes.table[:, 2]
        bits = np.empty((len(MIXES), len(planes.shapes)))
        for i in range(len(MIXES)):
            trial = replace(lattice, mixes=np.full(len(planes.shapes), i))
            measured = kernels.measure(symbols, trial.scan(planes), cost, trellis, count)
            bits[i] = np.bincount(owner, weights=measured.bits, minlength=len(planes.shapes))
        lattice = replace(lattice, mixes=bits.argmin(axis=0))
    counts = kernels.measure(symbols, lattice.scan(planes), None, trellis, count).counts
    lattice = replace(lattice, levels=contexts.levels_from(counts))
    bits_total = float((counts * contexts.token_bits(lattice.levels).astype(np.float64)).sum())
    return Coded(lattice, symbols, counts, bits_total)


def trimmed(coded: Coded) -> Coded:
    """The same without tokens above the largest used."""
    used = int(np.flatnonzero(coded.counts.sum(axis=0)).max(initial=0)) + 1
    counts = np.ascontiguousarray(coded.counts[:, :used])
    lattice = replace(coded.lattice, levels=contexts.levels_from(counts))
    return replace(coded, lattice=lattice, counts=counts)


def token_count(x: NDArray[np.float32], step: float) -> int:
    """Tokens that the search may need for values x at a step."""
    top = max(float(x.max(initial=0.0)), -float(x.min(initial=0.0))) / step / 2 + 2
    return int(tokens.token_of(np.int64(min(top, tokens.MAX_MAGNITUDE)))) + 1


def centre_shifts(x: NDArray[np.float32], step: float, levels: NDArray[np.int32], unit: int) -> tuple[int, int, int]:
    """How far the values coded as level 1, 2 and 3 or more lie below it on average, in 1/unit steps."""
    magnitude = np.minimum(np.abs(levels), 3)
    inside = x * np.sign(levels).astype(np.float32) / np.float32(step) - np.abs(levels)
    count = np.bincount(magnitude, minlength=4)
    total = np.bincount(magnitude, weights=inside, minlength=4)
    shift = np.clip(np.rint(-unit * total / np.maximum(count, 1)), -unit // 2, unit // 2).astype(int)
    return int(shift[1]), int(shift[2]), int(shift[3])


def plane_sums(planes: Planes, values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sum of values [symbols] over each plane."""
    sizes = planes.table[:, 0] * planes.table[:, 1]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    return np.add.reduceat(values.astype(np.float64), starts) if values.size else np.zeros(0)


def _per_coefficient(planes: Planes, plane_sums: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean per tensor and coefficient from sums per plane."""
    offsets = np.concatenate([[0], np.cumsum([s.dim for s in planes.shapes])]).astype(np.int64)
    index = offsets[planes.table[:, 2]] + planes.table[:, 3]
    sizes = np.bincount(index, weights=(planes.table[:, 0] * planes.table[:, 1]).astype(float), minlength=planes.means)
    sums = np.bincount(index, weights=plane_sums.astype(float), minlength=planes.means)
    return sums / np.maximum(sizes, 1)
