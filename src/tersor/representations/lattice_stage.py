"""The lattice stage of one group while it is being encoded: warm tables, a size for every step, sections at the end."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tersor.codec import integers, tables
from tersor.errors import ArchiveError
from tersor.index import LatticeRecord
from tersor.lattice import basis as bases
from tersor.lattice import contexts, fit, kernels
from tersor.lattice.planes import MIXES, Planes
from tersor.lattice.trellis import TRELLISES

SHIFT_UNIT = 128
_STREAM = 12  # bytes of a chunk beside its bits: coder state, length, checksum


class LatticeStage:
    """Encoder of one group's lattice.

    Args:
        planes: the scan order.
        vectors: per tensor, float32 [rows, cols, dim]; or None where `values` are given to every call (a residual).
        weight: importance per value in scan order, or None.
        memory: bits of the trellis state.
    """

    def __init__(
        self,
        planes: Planes,
        vectors: list[NDArray[np.float32]] | None,
        weight: NDArray[np.float32] | None,
        memory: int,
    ) -> None:
        self.planes = planes
        self.basis = bases.fit(vectors) if vectors is not None else None
        self.weight = weight
        self.memory = memory
        self.values = np.zeros(0, dtype=np.float32)
        if vectors is not None:
            basis = self.basis
            self.values = planes.gather((v if basis is None else bases.analyse(v, basis)) for v in vectors)
        self.coded: fit.Coded | None = None
        self.calls = 0

    def at(self, step: float) -> float:
        """Bytes at a step, after one round of search under the tables of the last call."""
        step = float(np.float32(step))
        lattice = self._lattice(step)
        self.coded = None  # frees the symbols before new ones are made
        rounds = 2 if self.calls == 0 else 1
        for _ in range(rounds):
            coded = fit.refine(self.planes, self.values, lattice, weight=self.weight, mixes=self.calls in (0, 2, 5))
            lattice = coded.lattice
            self.calls += 1
        self.coded = coded
        return coded.bits / 8 + self._overhead(coded)

    def _lattice(self, step: float) -> fit.Lattice:
        if self.coded is None:
            return fit.start(self.planes, self.values, step, self.memory)
        old = self.coded.lattice
        octaves = 4 * math.log2(old.step / step)
        means = np.where(old.means > 0, np.clip(np.rint(old.means + octaves), 1, 96), 0).astype(np.int64)
        count = max(fit.token_count(self.values, step), old.levels.shape[1])
        counts = np.zeros((len(self.coded.counts), count), dtype=np.int64)
        counts[:, : self.coded.counts.shape[1]] = self.coded.counts
        return replace(old, step=step, means=means, levels=contexts.levels_from(counts))

    def _overhead(self, coded: fit.Coded) -> float:
        coded = fit.trimmed(coded)
        fixed = sum(len(s) for s in self._heads(coded))
        return fixed + _STREAM * (len(self.planes.chunk_starts) - 1)

    def _heads(self, coded: fit.Coded) -> list[bytes]:
        heads = [] if self.basis is None else [integers.pack(self.basis)]
        lattice = coded.lattice
        means, mixes = integers.pack(np.diff(lattice.means, prepend=0)), integers.pack(lattice.mixes)
        heads.append(len(means).to_bytes(4, "little") + means + mixes)
        heads.append(contexts.pack(lattice.levels, coded.counts))
        return heads

    def finish(self) -> tuple[LatticeRecord, list[bytes], list[bytes], NDArray[np.float64]]:
        """The record, the head sections (basis, energies, tables), one stream per chunk, squared error per plane."""
        assert self.coded is not None
        coded = fit.trimmed(self.coded)
        self.coded = coded
        lattice, trellis = coded.lattice, TRELLISES[coded.lattice.memory]
        heads = self._heads(coded)
        table = tables.frequencies(contexts.unpack(heads[-1]), contexts.PRECISION)
        scan = lattice.scan(self.planes)
        streams = []
        for c in range(len(self.planes.chunk_starts) - 1):
            symbols = coded.symbols[self.planes.chunk_starts[c] : self.planes.chunk_starts[c + 1]]
            part = np.ascontiguousarray(scan.planes[self.planes.chunk_planes[c] : self.planes.chunk_planes[c + 1]])
            streams.append(kernels.encode(symbols, part, table, contexts.PRECISION, trellis))
        levels = kernels.levels_of(coded.symbols, scan, trellis)
        shifts = fit.centre_shifts(self.values, lattice.step, levels, SHIFT_UNIT)
        record = LatticeRecord(lattice.step, lattice.memory, self.basis is not None, shifts)
        return record, heads, streams, self._errors(levels, record)

    def _errors(self, levels: NDArray[np.int32], record: LatticeRecord) -> NDArray[np.float64]:
        """Squared error of each plane (in the basis, if there is one), chunk by chunk to save memory."""
        squares = np.empty(levels.size, dtype=np.float32)  # in steps, lest they leave the range of float32
        for first, last in itertools.pairwise(self.planes.chunk_starts.tolist()):
            left = self.values[first:last] - dequantize(levels[None, first:last], record, None)[:, 0]
            left /= np.float32(record.step)
            squares[first:last] = left * left
        return fit.plane_sums(self.planes, squares) * record.step**2


class LatticeReader:
    """Decoder of one group's lattice.

    Args:
        record: from the index.
        planes: the scan order, from the shapes.
        heads: the head sections, in order.

    Raises:
        ArchiveError: a section is not what its place promises.
    """

    def __init__(self, record: LatticeRecord, planes: Planes, heads: list[bytes]) -> None:
        self.record, self.planes = record, planes
        self.basis: NDArray[np.int8] | None = None
        if record.basis:
            dim = planes.shapes[0].dim
            entries = integers.unpack(heads[0], dim * dim)
            if np.abs(entries).max() > 127:
                raise ArchiveError("a basis has entries out of range")
            self.basis = entries.reshape(dim, dim).astype(np.int8)
        energies, levels = heads[-2:]
        split = 4 + int.from_bytes(energies[:4], "little")
        if split > len(energies):
            raise ArchiveError("a group's energies are cut short")
        means = np.cumsum(integers.unpack(energies[4:split], planes.means))
        mixes = integers.unpack(energies[split:], len(planes.shapes))
        if means.min() < 0 or means.max() > 96 or mixes.min() < 0 or mixes.max() >= len(MIXES):
            raise ArchiveError("a group's energies are out of range")
        self.lattice = fit.Lattice(record.step, record.memory, means, mixes, contexts.unpack(levels))
        self.scan = self.lattice.scan(planes)
        self.table = tables.frequencies(self.lattice.levels, contexts.PRECISION)

    def levels(self, chunks: list[int], streams: list[bytes]) -> list[NDArray[np.int32]]:
        """Levels of some chunks, in scan order, from their streams."""
        part = self.scan.chunks(chunks)
        levels = kernels.decode(streams, part, self.table, contexts.PRECISION, TRELLISES[self.record.memory])
        return np.split(levels, part.chunk_starts[1:-1])

    def values(self, levels: NDArray[np.int32]) -> NDArray[np.float32]:
        """Contributions [rows, cols, dim] to the sum from levels [dim, rows, cols], as `docs/format.md` has it."""
        return dequantize(levels, self.record, self.basis)


def dequantize(levels: NDArray[np.int32], record: LatticeRecord, basis: NDArray[np.int8] | None) -> NDArray[np.float32]:
    """Values [..., dim] of levels [dim, ...]: shift towards the centre, times the step, times the basis."""
    shift = np.array([0, *record.shifts], dtype=np.int32)[np.minimum(np.abs(levels), 3)]
    fine = levels * np.int32(SHIFT_UNIT) - np.sign(levels) * shift  # levels stay below 2**24
    values = fine.astype(np.float32) * np.float32(record.step / SHIFT_UNIT)
    return np.moveaxis(values, 0, -1) if basis is None else bases.synthesise(values, basis)
