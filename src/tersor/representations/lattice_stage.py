"""The lattice stage of one group while it is being encoded: warm tables, a size for every step, sections at the end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tersor.codec import integers, tables
from tersor.errors import ArchiveError
from tersor.kernels.threads import thread_count
from tersor.lattice import basis as bases
from tersor.lattice import contexts, fit, kernels
from tersor.lattice.planes import MAX_MEAN, MIXES, Planes
from tersor.lattice.trellis import TRELLISES
from tersor.representations.records import STREAM, LatticeRecord

SHIFT_UNIT, MAX_SHIFT = 128, 64


class LatticeStage:
    """Encoder of one group's lattice.

    Args:
        planes: the scan order.
        vectors: per tensor, float32 [rows, cols, dim], emptied; or None: `values` are set before every call.
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
        self.weight = self._importance = weight
        self.memory = memory
        self.values = np.zeros(0, dtype=np.float32)
        if vectors is not None:
            self.values = planes.gather(self._coefficients(vectors))
        self.coded: fit.Coded | None = None
        self.calls = 0

    def _coefficients(self, vectors: list[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Each tensor in the basis; takes the vectors out of the list, so that they need not all stay in memory."""
        while vectors:
            v = vectors.pop(0)
            yield v if self.basis is None else bases.analyse(v, self.basis)

    def reset(self) -> None:
        """Forget the tables of earlier steps."""
        self.coded, self.calls = None, 0

    def at(self, step: float) -> float:
        """Bytes at a step, after one round of search under the tables of the last call."""
        step = float(np.float32(step))
        lattice = self._lattice(step)
        for _ in range(2 if self.calls == 0 else 1):
            self.coded = None  # frees the symbols before new ones are made
            mixes = self.calls in (0, 2, 5)
            self.coded = fit.refine(self.planes, self.values, lattice, weight=self.weight, mixes=mixes)
            lattice = self.coded.lattice
            self.calls += 1
        assert self.coded is not None
        return self.coded.bits / 8 + self._overhead(self.coded)

    def follow(self) -> bool:
        """The best symbols for renewed values, step and tables staying; False if these have no symbol for one."""
        if self.coded is None or fit.token_count(self.values, self.coded.lattice.step) > self.coded.counts.shape[1]:
            return False
        symbols = fit.search(self.planes, self.values, self.coded.lattice, weight=self.weight)
        self.coded = replace(self.coded, symbols=symbols)
        return True

    def _lattice(self, step: float) -> fit.Lattice:
        if self.coded is None:
            return fit.start(self.planes, self.values, step, self.memory)
        old = self.coded.lattice
        octaves = 4 * math.log2(old.step / step)
        means = np.where(old.means > 0, np.clip(np.rint(old.means + octaves), 1, MAX_MEAN), 0).astype(np.int64)
        count = max(fit.token_count(self.values, step), old.levels.shape[1])
        counts = np.zeros((len(self.coded.counts), count), dtype=np.int64)
        counts[:, : self.coded.counts.shape[1]] = self.coded.counts
        return replace(old, step=step, means=means, levels=contexts.levels_from(counts))

    def costs(self) -> tuple[float, NDArray[np.float64]]:
        """Of the last call of `at`: bytes of the head sections, and bits of each tensor's symbols."""
        assert self.coded is not None
        measured = fit.measure(
            self.planes, self.coded.symbols, self.coded.lattice, contexts.token_bits(self.coded.lattice.levels)
        )
        bits = np.bincount(self.planes.table[:, 2], weights=measured.bits, minlength=len(self.planes.shapes))
        return float(sum(map(len, self._heads(fit.trimmed(self.coded))))), np.asarray(bits, dtype=np.float64)

    def _overhead(self, coded: fit.Coded) -> float:
        coded = fit.trimmed(coded)
        fixed = sum(len(s) for s in self._heads(coded))
        return fixed + STREAM * (len(self.planes.chunk_starts) - 1)

    def _heads(self, coded: fit.Coded) -> list[bytes]:
        heads = [] if self.basis is None else [integers.pack(self.basis)]
        lattice = coded.lattice
        means, mixes = integers.pack(np.diff(lattice.means, prepend=0)), integers.pack(lattice.mixes)
        heads.append(len(means).to_bytes(4, "little") + means + mixes)
        heads.append(contexts.pack(lattice.levels, coded.counts))
        return heads

    def fixed(self, peak: float) -> tuple[LatticeRecord, list[bytes]]:
        """Record and head sections that code any values of at most this magnitude, with the tables of the last call."""
        assert self.coded is not None
        coded = fit.trimmed(self.coded)
        used = coded.counts.shape[1]
        counts = np.pad(coded.counts, ((0, 0), (0, max(0, fit.tokens_up_to(peak, coded.lattice.step) - used))))
        lattice = replace(coded.lattice, levels=contexts.levels_from(counts))
        return self._record(), self._heads(replace(coded, lattice=lattice, counts=counts))

    def finish(self) -> tuple[LatticeRecord, list[bytes], list[bytes], NDArray[np.float64]]:
        """The record, the head sections (basis, energies, tables), one stream per chunk, squared error per plane."""
        assert self.coded is not None
        coded = fit.trimmed(self.coded)
        self.coded = coded
        lattice, trellis = coded.lattice, TRELLISES[coded.lattice.memory]
        heads = self._heads(coded)
        table = tables.frequencies(contexts.unpack(heads[-1]), contexts.PRECISION)
        scan = lattice.scan(self.planes)
        record = self._record()

        def stream(c: int) -> bytes:
            inside = slice(int(self.planes.chunk_planes[c]), int(self.planes.chunk_planes[c + 1]))
            planes = np.ascontiguousarray(scan.planes[inside])
            return kernels.encode(coded.symbols[self._chunk(c)], planes, table, contexts.PRECISION, trellis)

        with ThreadPoolExecutor(thread_count()) as pool:
            streams = list(pool.map(stream, range(len(self.planes.chunk_starts) - 1)))
        return (
            record,
            heads,
            streams,
            fit.plane_sums(self.planes, lambda part: self._squares(part, record)) * lattice.step**2,
        )

    def renew(self, vectors: list[NDArray[np.float32]] | None, hold: list[NDArray[np.float32]] | None) -> None:
        """Take other values (emptied; None where `values` are set before every call); basis and tables stay.

        `hold` [rows, cols, 1] multiplies the importance of each vector, until the next call.
        """
        if vectors is not None:
            self.values = self.planes.gather(self._coefficients(vectors))
        self.weight = self._importance
        if hold is not None:
            factor = self.planes.gather(
                np.broadcast_to(h, shape) for h, shape in zip(hold, self.planes.shapes, strict=True)
            )
            self.weight = factor if self._importance is None else factor * self._importance

    def decoded(self) -> list[NDArray[np.float32]]:
        """What a reader will decode from the last symbols, per tensor [rows, cols, dim]."""
        record, out = self._record(), [np.empty(shape, dtype=np.float32) for shape in self.planes.shapes]
        for c in range(len(self.planes.chunk_starts) - 1):
            levels = self._levels(self._chunk(c))
            for k, piece in enumerate(self.planes.chunk(c)):
                values = dequantize(self.planes.part(levels, c, k), record, self.basis)
                out[piece.tensor][piece.first : piece.last] = values
        return out

    def cost(self, step: float) -> float:
        """What coding at a step costs in all: weighted squared error in steps, and bits at `fit.LAMBDA` each."""
        size, record = self.at(step), self._record()

        def weighted(part: slice) -> NDArray[np.float32]:
            squares = self._squares(part, record)
            return squares if self.weight is None else squares * self.weight[part]

        return float(fit.plane_sums(self.planes, weighted).sum()) + 8 * fit.LAMBDA * size

    def _record(self) -> LatticeRecord:
        """The record of the last symbols, with the shifts that suit them."""
        assert self.coded is not None
        lattice, shifts = self.coded.lattice, _Shifts()
        for c in range(len(self.planes.chunk_starts) - 1):
            part = self._chunk(c)
            shifts.add(self.values[part] / np.float32(lattice.step), self._levels(part))
        return LatticeRecord(lattice.step, lattice.memory, self.basis is not None, shifts.found())

    def _chunk(self, c: int) -> slice:
        """Where the symbols of a chunk are."""
        return slice(int(self.planes.chunk_starts[c]), int(self.planes.chunk_starts[c + 1]))

    def _levels(self, chunk: slice) -> NDArray[np.int32]:
        """Levels of the symbols of one chunk."""
        assert self.coded is not None
        symbols = self.coded.symbols[chunk]
        starts = np.array([0, symbols.size], dtype=np.int64)
        return kernels.levels_of(symbols, starts, TRELLISES[self.coded.lattice.memory])

    def _squares(self, chunk: slice, record: LatticeRecord) -> NDArray[np.float32]:
        """Squared errors of one chunk, in squared steps lest they leave the range of float32; in the basis if any."""
        left = self.values[chunk] - dequantize(self._levels(chunk)[None], record, None)[:, 0]
        return np.square(left / np.float32(record.step))


class _Shifts:
    """How far the values coded as level 1, 2 and 3 or more lie below it on average."""

    def __init__(self) -> None:
        self.count, self.total = np.zeros(4), np.zeros(4)

    def add(self, scaled: NDArray[np.float32], levels: NDArray[np.int32]) -> None:
        """Take in values in steps and their levels."""
        magnitude = np.minimum(np.abs(levels), 3)
        below = np.abs(levels) - scaled * np.sign(levels).astype(np.float32)
        self.count += np.bincount(magnitude, minlength=4)
        self.total += np.bincount(magnitude, weights=below, minlength=4)

    def found(self) -> tuple[int, int, int]:
        """Shifts of level 1, 2 and the others, in 1/128 step."""
        shift = np.clip(np.rint(SHIFT_UNIT * self.total / np.maximum(self.count, 1)), -MAX_SHIFT, MAX_SHIFT).astype(int)
        return int(shift[1]), int(shift[2]), int(shift[3])


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
        if means.min() < 0 or means.max() > MAX_MEAN or mixes.min() < 0 or mixes.max() >= len(MIXES):
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
    values = kernels.centred(levels, SHIFT_UNIT, record.shifts, np.float32(record.step / SHIFT_UNIT))
    return np.moveaxis(values, 0, -1) if basis is None else bases.synthesise(values, basis)


def centred(levels: NDArray[np.int32], record: LatticeRecord) -> NDArray[np.float32]:
    """What levels stand for, in 128th steps: each shifted towards the centre of the values it codes."""
    return kernels.centred(levels, SHIFT_UNIT, record.shifts, np.float32(1))
