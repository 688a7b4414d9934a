"""A group of coded tensors: vectors cut, scaled, and stored as a sum of codewords, a lattice point, or both.

`x = scale * (C_1[i_1] + ... + C_M[i_M] + basis @ (step * z))`, added in this order in float32.
Sections of a group, in order: scales, codebooks, code tables, basis, energies, lattice tables (each only if there),
then for every chunk its codes and its lattice symbols.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tersor.codec import integers
from tersor.lattice import fit, tokens
from tersor.lattice.planes import Piece, Planes, plan_planes
from tersor.representations import scales, vectors
from tersor.representations.codes_stage import CodesReader, CodesStage
from tersor.representations.lattice_stage import LatticeReader, LatticeStage
from tersor.representations.records import GroupRecord

if TYPE_CHECKING:
    from tersor.additive.alternate import EffortName

MEMORY = {"draft": 2, "default": 3, "best": 5}
"""Trellis memory by effort: 4 states are 0.1 dB behind 8, 32 states 0.1 dB ahead, at half and four times the time."""

SCALES = ("none", "tensor", "row")


@dataclass(frozen=True)
class GroupSpec:
    """What a group is made of: positions and shapes of its tensors, vector length, stages, settings of the recipe."""

    tensors: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    dim: int
    codebooks: tuple[int, int] | None
    lattice: bool
    scales: str
    effort: EffortName
    seed: int

    def planes(self) -> Planes:
        """The scan order of the group."""
        return plan_planes([vectors.arrange(shape, self.dim) for shape in self.shapes])


class GroupCoder:
    """Encodes a group at any step; the last step stands.

    Args:
        spec: the group.
        tensors: its values, float32, in order; read one at a time.
        importance: per tensor None (all 1) or a weight per element, shaped like the tensor, 1 on average.
    """

    def __init__(
        self,
        spec: GroupSpec,
        tensors: Sequence[Callable[[], NDArray[np.float32]]],
        importance: Sequence[NDArray[np.float32] | None] | None = None,
    ) -> None:
        self.spec, self.tensors = spec, tensors
        self.planes = spec.planes()
        self.scale_levels: list[NDArray[np.int64]] = []
        cut: list[NDArray[np.float32]] = []
        weights: list[NDArray[np.float32]] | None = [] if importance is not None else None
        for t, read in enumerate(tensors):
            v = vectors.cut(read(), spec.dim)
            w = None
            if weights is not None and importance is not None:
                given = importance[t]
                w = np.ones(v.shape, np.float32) if given is None else vectors.cut(given, spec.dim)
            if w is not None or spec.scales != "none":
                unit = _units(v, spec.scales)
                level = scales.level_of(unit if w is None else unit / _root_mean(w, unit))
                self.scale_levels.append(level)
                s = scales.scale_of(level)
                v = v / _broadcast(s)
                w = None if w is None else w * _broadcast(np.square(s / unit).astype(np.float32))
            if weights is not None:
                assert w is not None
                weights.append(w)
            cut.append(v)
        self.energy = [_energy(v) for v in cut]
        self._spread = _spread(self.energy, [v.size for v in cut])
        self._peak = max(max(float(v.max()), -float(v.min())) for v in cut)
        self.codes: CodesStage | None = None
        self.lattice: LatticeStage | None = None
        if spec.codebooks is not None:
            self.codes = CodesStage(self.planes, cut, weights, spec.codebooks, spec.effort, spec.seed)
        if spec.lattice:
            own = cut if self.codes is None else None
            weight = self._lattice_weight(weights)
            self.lattice = LatticeStage(self.planes, own, weight, MEMORY[spec.effort])

    def _lattice_weight(self, weights: list[NDArray[np.float32]] | None) -> NDArray[np.float32] | None:
        """Importance in scan order; in a basis a coefficient belongs to a whole vector and gets its mean."""
        if weights is None:
            return None
        if self.spec.dim > 1:
            weights = [np.broadcast_to(w.mean(axis=-1, keepdims=True), w.shape) for w in weights]
        return self.planes.gather(weights)

    @property
    def weights(self) -> int:
        """Number of values coded, padding included."""
        return self.planes.symbols

    @property
    def spread(self) -> float:
        """Mean log2 of the values' root mean square, plane by plane."""
        return self._spread

    @property
    def finest(self) -> float:
        """The smallest step at which the largest magnitude, in any basis, still has a token."""
        return 1.1 * math.sqrt(self.spec.dim) * self._peak / (2 * tokens.MAX_MAGNITUDE) if self.lattice else 0.0

    @property
    def coarsest(self) -> float:
        """A step at which every value is nearer to zero than to anything else."""
        return 4 * math.sqrt(self.spec.dim) * self._peak

    def reset(self) -> None:
        """Forget the tables and codebooks of earlier steps."""
        if self.codes is not None:
            self.codes.reset()
        if self.lattice is not None:
            self.lattice.reset()

    def at(self, step: float) -> float:
        """Bytes of the group's sections at a step (predicted; exact to about a byte per chunk)."""
        size = float(len(self._scales_section()))
        if self.codes is not None:
            size += self.codes.at(fit.LAMBDA * step * step)
            if self.lattice is not None:
                self.lattice.values = self.planes.gather(self.codes.residual())
        if self.lattice is not None:
            size += self.lattice.at(step)
        return size

    def _scales_section(self) -> bytes:
        return integers.pack(np.concatenate(self.scale_levels)) if self.scale_levels else b""

    def finish(self) -> tuple[GroupRecord, list[bytes], list[int]]:
        """The record, the sections in order, and each tensor's error in half decibels of its energy."""
        sections = [self._scales_section()] if self.scale_levels else []
        streams: list[list[bytes]] = []
        steps: tuple[float, ...] = ()
        lattice = None
        if self.codes is not None:
            steps, heads, codes = self.codes.finish()
            left = self.planes.gather(self.codes.residual())
            squares = fit.plane_sums(self.planes, lambda part: np.square(left[part], dtype=np.float64))
            sections += heads
            streams.append(codes)
        if self.lattice is not None:
            lattice, heads, symbols, squares = self.lattice.finish()
            sections += heads
            streams.append(symbols)
        for chunk in zip(*streams, strict=True):
            sections += chunk
        m, k = self.spec.codebooks or (0, 0)
        kind = SCALES.index(self.spec.scales)
        kind = 1 if kind == 0 and self.scale_levels else kind
        record = GroupRecord(self.spec.tensors, self.spec.dim, m, k, steps, kind, lattice)
        sums = np.bincount(self.planes.table[:, 2], weights=squares, minlength=len(self.planes.shapes))
        errors, energy = np.asarray(sums, dtype=np.float64), self.energy
        if kind == 2:  # rows weigh differently: only decoding tells the error of a tensor as a whole
            errors, energy = self._decoded_errors(record, sections)
        return record, sections, [_half_decibels(e, s) for e, s in zip(errors, energy, strict=True)]

    def _decoded_errors(self, record: GroupRecord, sections: list[bytes]) -> tuple[NDArray[np.float64], list[float]]:
        """Squared error and energy of each tensor, from the sections as a reader sees them."""
        reader = GroupReader(record, self.spec.shapes, sections.__getitem__)
        errors, energy = np.zeros(len(self.tensors)), [0.0] * len(self.tensors)
        for t, values in reader.decode(range(len(self.tensors))):
            original = self.tensors[t]()
            errors[t], energy[t] = _energy(original - values), _energy(original)
        return errors, energy


class GroupReader:
    """Decodes tensors of a group.

    Args:
        record: from the index.
        shapes: of the group's tensors.
        sections: their number and a function that reads the i-th of the group.

    Raises:
        ArchiveError: a section is not what its place promises.
    """

    def __init__(self, record: GroupRecord, shapes: Sequence[tuple[int, ...]], section: Callable[[int], bytes]) -> None:
        self.record, self.shapes, self.section = record, shapes, section
        self.planes = plan_planes([vectors.arrange(shape, record.dim) for shape in shapes])
        heads = [section(i) for i in range(head_count(record))]
        self.scales: list[NDArray[np.float32]] | None = None
        if record.scales:
            self.scales = self._read_scales(heads.pop(0))
        self.codes = CodesReader(record, self.planes, [heads.pop(0), heads.pop(0)]) if record.num_codebooks else None
        self.lattice = LatticeReader(record.lattice, self.planes, heads) if record.lattice else None

    def _read_scales(self, data: bytes) -> list[NDArray[np.float32]]:
        counts = [1 if self.record.scales == 1 else s.rows for s in self.planes.shapes]
        levels = scales.scale_of(integers.unpack(data, sum(counts)))
        return np.split(levels, np.cumsum(counts)[:-1])

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return len(self.planes.chunk_starts) - 1

    def chunk_streams(self, chunk: int) -> list[bytes]:
        """The streams of one chunk: codes, lattice symbols, whichever the group has."""
        kinds = (self.codes is not None) + (self.lattice is not None)
        first = head_count(self.record) + kinds * chunk
        return [self.section(first + i) for i in range(kinds)]

    def chunks_of(self, tensors: Sequence[int]) -> list[int]:
        """Chunks that hold pieces of these tensors (positions within the group)."""
        wanted, bounds = set(tensors), self.planes.chunk_pieces
        return [
            c
            for c in range(self.chunks)
            if any(p.tensor in wanted for p in self.planes.pieces[bounds[c] : bounds[c + 1]])
        ]

    def decode(self, tensors: Sequence[int], batch: int = 16) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield (position within the group, values in the tensor's shape), decoding `batch` chunks at a time."""
        wanted = set(tensors)
        open_tensors: dict[int, NDArray[np.float32]] = {}
        chunks = self.chunks_of(tensors)
        for at in range(0, len(chunks), batch):
            for piece, values in self._pieces(chunks[at : at + batch]):
                if piece.tensor not in wanted:
                    continue
                shape = self.planes.shapes[piece.tensor]
                if piece.first == 0:
                    open_tensors[piece.tensor] = np.empty(shape, dtype=np.float32)
                if self.scales is not None:
                    s = self.scales[piece.tensor]
                    values = values * _broadcast(s if s.size == 1 else s[piece.first : piece.last])
                open_tensors[piece.tensor][piece.first : piece.last] = values
                if piece.last == shape.rows:
                    yield piece.tensor, vectors.join(open_tensors.pop(piece.tensor), self.shapes[piece.tensor])

    def check(self, batch: int = 16) -> Iterator[None]:
        """Decode every stream to its end, symbols only."""
        for at in range(0, self.chunks, batch):
            chunks = list(range(at, min(at + batch, self.chunks)))
            streams = [self.chunk_streams(c) for c in chunks]
            if self.lattice is not None:
                self.lattice.levels(chunks, [s[-1] for s in streams])
            if self.codes is not None:
                for c, s in zip(chunks, streams, strict=True):
                    self.codes.codes(c, s[0])
            yield

    def _pieces(self, chunks: list[int]) -> Iterator[tuple[Piece, NDArray[np.float32]]]:
        """Pieces with their values [rows, cols, dim], unscaled: codewords first, then the lattice's part."""
        streams = [self.chunk_streams(c) for c in chunks]
        levels = self.lattice.levels(chunks, [s[-1] for s in streams]) if self.lattice else None
        for i, c in enumerate(chunks):
            summed = self.codes.vectors(c, streams[i][0]) if self.codes else None
            for k, piece in enumerate(self.planes.chunk(c)):
                total = summed[k] if summed is not None else None
                if self.lattice is not None and levels is not None:
                    part = self.lattice.values(self.planes.part(levels[i], c, k))
                    total = part if total is None else total + part
                assert total is not None
                yield piece, total


def head_count(record: GroupRecord) -> int:
    """Sections of a group before its chunks."""
    lattice = 0 if record.lattice is None else 2 + record.lattice.basis
    return (record.scales > 0) + 2 * (record.num_codebooks > 0) + lattice


def section_count(record: GroupRecord, chunks: int) -> int:
    """All sections of a group."""
    return head_count(record) + chunks * ((record.num_codebooks > 0) + (record.lattice is not None))


def _units(v: NDArray[np.float32], kind: str) -> NDArray[np.float64]:
    """What errors are judged in: one, or the root mean square of the tensor [1] or of each row [rows]."""
    if kind == "none":
        return np.ones(1)
    rms = np.sqrt(np.square(v.astype(np.float64)).mean(axis=(1, 2) if kind == "row" else None)).reshape(-1)
    return np.asarray(np.where(rms > 0, rms, 1.0))


def _root_mean(weight: NDArray[np.float32], unit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root of the mean importance of the tensor or of each row: scales smaller by it make the mean weight 1."""
    mean = weight.mean(axis=None if unit.size == 1 else (1, 2), dtype=np.float64)
    return np.asarray(np.sqrt(np.maximum(mean, 1e-12))).reshape(-1)


def _broadcast(scale: NDArray[np.float32]) -> NDArray[np.float32]:
    return scale.reshape(-1, 1, 1)


def _energy(v: NDArray[np.float32]) -> float:
    """Sum of squares in double precision, without a copy."""
    flat = v.reshape(-1)
    return float(np.einsum("n,n->", flat, flat, dtype=np.float64))


def _spread(energy: list[float], counts: list[int]) -> float:
    """Mean over values of log2 of their tensor's root mean square, zeros left out."""
    sizes, squares = np.array(counts, dtype=float), np.array(energy)
    alive = squares > 0
    octaves = 0.5 * np.log2(squares[alive] / sizes[alive])
    return float((octaves * sizes[alive]).sum() / sizes[alive].sum()) if alive.any() else 0.0


def _half_decibels(error: float, energy: float) -> int:
    """Error over energy as a positive number of half decibels; 255 for none at all."""
    if error <= 0 or energy <= 0:
        return 255
    return int(np.clip(np.rint(-20 * np.log10(error / energy)), -254, 254))
