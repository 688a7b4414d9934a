"""Fitting the lattice stage at a step: symbols given tables, tables given symbols, a few times over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tersor.lattice import contexts, kernels, tokens
from tersor.lattice.kernels import Scan
from tersor.lattice.planes import MIXES, Planes, mean_level
from tersor.lattice.trellis import TRELLISES

LAMBDA = 0.25
"""Squared error, in steps, worth one bit; on trained weights 0.22 to 0.3 beat 0.15 by 0.1 to 0.2 dB at equal bytes."""


Symbols = NDArray[np.signedinteger]

_MAX_INT16 = 32767
_BATCH = 8


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
        symbols: signed magnitudes in scan order, int16 where they fit, else int32.
        counts: of tokens per context, int64 [2 * CONTEXTS, tokens].
        bits: predicted bits of the streams, tables not counted.
    """

    lattice: Lattice
    symbols: Symbols
    counts: NDArray[np.int64]
    bits: float


def start(planes: Planes, x: NDArray[np.float32], step: float, memory: int) -> Lattice:
    """A first guess: Laplacian tables, and means measured on the values themselves."""
    count = token_count(x, step)
    mean = _per_coefficient(planes, plane_sums(planes, lambda part: np.abs(x[part]))) / step
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
) -> Symbols:
    """The best symbols under a lattice as it is."""
    cost, scan, trellis = contexts.token_bits(lattice.levels), lattice.scan(planes), TRELLISES[lattice.memory]
    symbols = np.empty(planes.symbols, dtype=np.int16)
    for chunks, part in _batches(planes):
        w = None if weight is None else weight[part]
        found = kernels.search(x[part], lattice.step, w, scan.chunks(chunks), cost, lam, trellis)
        if symbols.dtype == np.int16 and max(found.max(), -found.min()) > _MAX_INT16:
            symbols = symbols.astype(np.int32)
        symbols[part] = found
    return symbols


def retable(planes: Planes, symbols: Symbols, lattice: Lattice, *, mixes: bool = False) -> Coded:
    """Means, mixes and tables for symbols already chosen."""
    cost = contexts.token_bits(lattice.levels)
    first = measure(planes, symbols, lattice, None)
    lattice = replace(lattice, means=mean_level(_per_coefficient(planes, first.levels)))
    if mixes:
        owner = planes.table[:, 2]
        bits = np.empty((len(MIXES), len(planes.shapes)))
        for i in range(len(MIXES)):
            trial = replace(lattice, mixes=np.full(len(planes.shapes), i))
            measured = measure(planes, symbols, trial, cost)
            bits[i] = np.bincount(owner, weights=measured.bits, minlength=len(planes.shapes))
        lattice = replace(lattice, mixes=bits.argmin(axis=0))
    counts = measure(planes, symbols, lattice, None).counts
    lattice = replace(lattice, levels=contexts.levels_from(counts))
    bits_total = float((counts * contexts.token_bits(lattice.levels).astype(np.float64)).sum())
    return Coded(lattice, symbols, counts, bits_total)


def measure(planes: Planes, symbols: Symbols, lattice: Lattice, cost: NDArray[np.float32] | None) -> kernels.Measure:
    """`kernels.measure` of all symbols, some chunks at a time."""
    scan, trellis, count = lattice.scan(planes), TRELLISES[lattice.memory], lattice.levels.shape[1]
    parts = [kernels.measure(symbols[p], scan.chunks(c), cost, trellis, count) for c, p in _batches(planes)]
    counts = np.zeros((2 * contexts.CONTEXTS, count), dtype=np.int64)
    for found in parts:
        counts += found.counts
    bits = np.concatenate([np.zeros(0), *(found.bits for found in parts)])
    levels = np.concatenate([np.zeros(0, dtype=np.int64), *(found.levels for found in parts)])
    return kernels.Measure(counts, bits, levels)


def _batches(planes: Planes) -> Iterator[tuple[list[int], slice]]:
    """Chunks, a few at a time, and where their symbols are."""
    count = len(planes.chunk_starts) - 1
    for first in range(0, count, _BATCH):
        chunks = list(range(first, min(first + _BATCH, count)))
        yield chunks, slice(int(planes.chunk_starts[chunks[0]]), int(planes.chunk_starts[chunks[-1] + 1]))


def trimmed(coded: Coded) -> Coded:
    """The same without tokens above the largest used."""
    used = int(np.flatnonzero(coded.counts.sum(axis=0)).max(initial=0)) + 1
    counts = np.ascontiguousarray(coded.counts[:, :used])
    lattice = replace(coded.lattice, levels=contexts.levels_from(counts))
    return replace(coded, lattice=lattice, counts=counts)


def token_count(x: NDArray[np.float32], step: float) -> int:
    """Tokens that the search may need for values x at a step."""
    return tokens_up_to(max(float(x.max(initial=0.0)), -float(x.min(initial=0.0))), step)


def tokens_up_to(peak: float, step: float) -> int:
    """Tokens that the search may need for values of at most this magnitude at a step."""
    top = peak / step / 2 + 2
    return int(tokens.token_of(np.int64(min(top, tokens.MAX_MAGNITUDE)))) + 1


def plane_sums(planes: Planes, part: Callable[[slice], NDArray[np.float32]]) -> NDArray[np.float64]:
    """Sum over each plane of the values that `part` gives for a slice of the scan; chunk by chunk, to save memory."""
    sizes = planes.table[:, 0] * planes.table[:, 1]
    out = np.zeros(len(sizes))
    for c in range(len(planes.chunk_starts) - 1):
        inside = slice(int(planes.chunk_planes[c]), int(planes.chunk_planes[c + 1]))
        starts = np.concatenate([[0], np.cumsum(sizes[inside])[:-1]]).astype(np.int64)
        values = part(slice(int(planes.chunk_starts[c]), int(planes.chunk_starts[c + 1])))
        out[inside] = np.add.reduceat(values.astype(np.float64), starts)
    return out


def _per_coefficient(planes: Planes, plane_sums: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean per tensor and coefficient from sums per plane."""
    offsets = np.concatenate([[0], np.cumsum([s.dim for s in planes.shapes])]).astype(np.int64)
    index = offsets[planes.table[:, 2]] + planes.table[:, 3]
    sizes = np.bincount(index, weights=(planes.table[:, 0] * planes.table[:, 1]).astype(float), minlength=planes.means)
    sums = np.bincount(index, weights=plane_sums.astype(float), minlength=planes.means)
    return sums / np.maximum(sizes, 1)
