"""Encoding chunks one by one, by heads that are settled: what is larger than memory is coded this way.

Codebooks, tables, basis, step and mixes are those of the head sections, exactly as a reader will see them, so that a
chunk depends on its own values and on nothing else: chunks may be coded in any order, anywhere, again after a break.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tersor.codec import ans, tables
from tersor.lattice import basis as bases
from tersor.lattice import contexts, fit, kernels
from tersor.lattice.planes import Piece
from tersor.lattice.trellis import TRELLISES
from tersor.representations import measures, scales, vectors
from tersor.representations.codes_stage import PRECISION, CodesReader
from tersor.representations.lattice_stage import LatticeReader, dequantize
from tersor.representations.records import GroupRecord

if TYPE_CHECKING:
    from tersor.additive.alternate import EffortName


class Heads(msgspec.Struct, array_like=True, frozen=True, tag="heads"):
    """What all chunks of a group share.

    Attributes:
        record: for the index.
        sections: head sections but for the scales.
        levels: where there is one scale per tensor, their levels.
        factors: where there is one scale per tensor, what importance is multiplied by once values are divided by it.
    """

    record: GroupRecord
    sections: tuple[bytes, ...]
    levels: tuple[int, ...]
    factors: tuple[float, ...]


class PieceError(NamedTuple):
    """Squared error and energy of one piece of a tensor."""

    tensor: int
    error: float
    energy: float


class CodedChunk(NamedTuple):
    """A chunk's streams, the errors of its pieces, and the scale levels of its rows where rows have scales."""

    streams: list[bytes]
    errors: list[PieceError]
    levels: list[int]


class ChunkCoder:
    """Encoder of the chunks of a group.

    Args:
        heads: what all chunks share.
        shapes: of the group's tensors.
        step: of the lattice, or what would be; codes spend bits by it.
        effort, seed, device: of the search for codes.
    """

    def __init__(
        self,
        heads: Heads,
        shapes: Sequence[tuple[int, ...]],
        step: float,
        effort: EffortName,
        seed: int,
        device: str = "cpu",
    ) -> None:
        record, sections = heads.record, list(heads.sections)
        self.heads, self.record, self.effort, self.seed, self.device = heads, record, effort, seed, device
        self.planes = vectors.layout(shapes, record.dim)
        self.lam = fit.LAMBDA * step * step
        self.codes: CodesReader | None = None
        if record.num_codebooks:
            self.codes = CodesReader(record, self.planes, [sections.pop(0), sections.pop(0)])
        self.lattice: LatticeReader | None = None
        if record.lattice is not None:
            self.lattice = LatticeReader(record.lattice, self.planes, sections)
            self._cost = contexts.token_bits(self.lattice.lattice.levels)

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return len(self.planes.chunk_starts) - 1

    def encode(
        self,
        chunk: int,
        pieces: Sequence[NDArray[np.float32]],
        importance: Sequence[NDArray[np.float32] | None] | None = None,
    ) -> CodedChunk:
        """Code a chunk.

        Args:
            chunk: its number.
            pieces: vectors [rows, cols, dim] of each of its pieces, in order.
            importance: weight of each value, shaped alike, for none or all of the pieces; None where all are 1.
        """
        places = self.planes.chunk(chunk)
        energies = [measures.energy(v) for v in pieces]
        units, scaled, weights = [], [], []
        levels: list[int] = []
        for i, (piece, v) in enumerate(zip(places, pieces, strict=True)):
            w = None if importance is None else importance[i]
            w = np.ones(v.shape, np.float32) if w is None and importance is not None else w
            if self.record.scales:
                level, factor = self._scaling(piece, v, w)
                levels += level.tolist() if self.record.scales == 2 else []
                unit = scales.broadcast(scales.scale_of(level))
                v, w = v / unit, None if w is None else w * scales.broadcast(factor)
                units.append(unit[:, 0, 0].astype(np.float64) ** 2)
            else:
                units.append(np.ones(1))
            scaled.append(v)
            weights.append(w)
        streams = []
        if self.codes is not None:
            stream, scaled = self._code(chunk, places, scaled, weights)
            streams.append(stream)
        squares = [np.square(v).sum(axis=(1, 2), dtype=np.float64) for v in scaled] if self.lattice is None else []
        if self.lattice is not None:
            stream, squares = self._trellis(chunk, scaled, weights)
            streams.append(stream)
        errors = [
            PieceError(piece.tensor, float((rows * unit).sum()), energy)
            for piece, rows, unit, energy in zip(places, squares, units, energies, strict=True)
        ]
        return CodedChunk(streams, errors, levels)

    def _scaling(
        self, piece: Piece, v: NDArray[np.float32], w: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        if self.record.scales == 2:
            return measures.scaling(v, w, "row")
        factor = np.array([self.heads.factors[piece.tensor]], dtype=np.float32)
        return np.array([self.heads.levels[piece.tensor]], dtype=np.int64), factor

    def _code(
        self,
        chunk: int,
        places: Sequence[Piece],
        scaled: list[NDArray[np.float32]],
        weights: list[NDArray[np.float32] | None],
    ) -> tuple[bytes, list[NDArray[np.float32]]]:
        """The stream of codes, and what they leave of each piece."""
        import torch

        from tersor.additive import alternate
        from tersor.kernels.gather import decode

        assert self.codes is not None
        dim = self.record.dim
        exponent = math.frexp(max(*self.record.steps, 1e-30))[1]  # squares stay within float32
        flat = torch.from_numpy(np.ldexp(np.concatenate([v.reshape(-1, dim) for v in scaled]), -exponent))
        books = torch.from_numpy(np.ldexp(self.codes.codebooks, -exponent))
        weighing = None
        if weights[0] is not None:
            weighing = torch.from_numpy(np.concatenate([w.reshape(-1, dim) for w in weights if w is not None]))
        counts = [v.shape[0] * v.shape[1] for v in scaled]
        classes = self.codes.classes[[p.tensor for p in places]]
        bits = np.zeros(self.codes.frequencies.shape, dtype=np.float32)
        if self.record.codebook_size > 1:
            bits = tables.bits(self.codes.frequencies, PRECISION)
        codes = alternate.reencode_on(
            self.device, flat, books, table=torch.from_numpy(np.repeat(classes, counts).astype(np.int32)),
            bits=torch.from_numpy(bits), lam=math.ldexp(self.lam, -2 * exponent), weights=weighing,
            effort=self.effort, seed=self.seed + chunk,
        )  # fmt: skip
        rest = np.ldexp((flat - decode(codes, books)).numpy(), exponent)
        parts, left, at = [], [], 0
        for count, piece, v in zip(counts, places, scaled, strict=True):
            table = self.codes.frequencies[self.codes.classes[piece.tensor]]
            parts += [(codes[at : at + count, m].numpy(), table[m]) for m in range(self.record.num_codebooks)]
            left.append(rest[at : at + count].reshape(v.shape))
            at += count
        return ans.encode(parts, PRECISION), left

    def _trellis(
        self, chunk: int, scaled: Sequence[NDArray[np.float32]], weights: Sequence[NDArray[np.float32] | None]
    ) -> tuple[bytes, list[NDArray[np.float64]]]:
        """The stream of lattice symbols, and the squared error of each row of each piece."""
        assert self.lattice is not None
        record, trellis = self.lattice.record, TRELLISES[self.lattice.record.memory]
        basis = self.lattice.basis
        y = _scan([v if basis is None else bases.analyse(v, basis) for v in scaled])
        w = None if weights[0] is None else _scan([measures.of_vectors(w) for w in weights if w is not None])
        scan = self.lattice.scan.chunks([chunk])
        symbols = kernels.search(y, record.step, w, scan, self._cost, fit.LAMBDA, trellis)
        stream = kernels.encode(symbols, scan.planes, self.lattice.table, contexts.PRECISION, trellis)
        levels = kernels.levels_of(symbols, scan.chunk_starts, trellis)
        left = y - dequantize(levels[None], record, None)[:, 0]
        left /= np.float32(record.step)
        squares, at = [], 0
        for v in scaled:
            rows, cols, dim = v.shape
            part = np.square(left[at : at + v.size]).reshape(dim, rows, cols)
            squares.append(part.sum(axis=(0, 2), dtype=np.float64) * record.step**2)
            at += v.size
        return stream, squares


def _scan(pieces: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Pieces [rows, cols, dim] of one chunk in scan order."""
    return np.concatenate([v.transpose(2, 0, 1).reshape(-1) for v in pieces])
