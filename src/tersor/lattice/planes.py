"""Planes and chunks: the order in which the lattice symbols of a group are visited.

A tensor's vectors stand as [rows, cols, dim]. Coefficient j of all of them is a *plane* [rows, cols]; planes are
visited one after the other, rows first, so that neighbours have like energies. Large tensors are cut by rows into
pieces; pieces are gathered into *chunks*, and a chunk is coded by itself: chunks run in parallel, and a tensor can be
read without the others. The cut follows from the shapes alone, so the file need not hold it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PIECE = 1 << 19
CHUNK = 1 << 17

MIXES = np.array(
    [
        [6, 6, 4, 0],
        [2, 2, 8, 4],
        [0, 2, 4, 10],
        [10, 4, 0, 2],
        [3, 3, 4, 6],
        [0, 8, 4, 4],
        [4, 4, 0, 8],
        [0, 0, 0, 16],
    ],
    dtype=np.int64,
)
"""Mixes [8, 4] of the energies (fast mean, slow mean, column mean, the plane's own mean) in sixteenths."""

_QUARTERS = np.array([32768, 38968, 46341, 55109], dtype=np.int64)  # 2**15 * 2**(i / 4)
MAX_MEAN = 96


def mean_of(level: NDArray[np.int64]) -> NDArray[np.int64]:
    """A plane's mean energy, 12 fractional bits, from its stored level: 0, or quarter octaves from 2**-10."""
    v = np.asarray(level, dtype=np.int64)
    up = np.maximum(v - 1, 0)
    return np.where(v == 0, 0, (_QUARTERS[up % 4] << (up // 4)) >> 13)


def mean_level(mean: NDArray[np.float64]) -> NDArray[np.int64]:
    """The level nearest to a mean of |y| in steps."""
    with np.errstate(divide="ignore"):
        level = np.rint(4 * (np.log2(np.maximum(mean, 0)) + 10)) + 1
    return np.clip(np.nan_to_num(level, neginf=0), 0, MAX_MEAN).astype(np.int64)


class Shape(NamedTuple):
    """How a tensor's vectors stand: [rows, cols] vectors of `dim` values."""

    rows: int
    cols: int
    dim: int

    @property
    def size(self) -> int:
        """Values, padding included."""
        return self.rows * self.cols * self.dim


class Piece(NamedTuple):
    """Rows [first, last) of a tensor (its index in the group)."""

    tensor: int
    first: int
    last: int


@dataclass(frozen=True)
class Planes:
    """All planes of a group in scan order.

    Attributes:
        shapes: of the tensors, in the group's order.
        pieces: the pieces, chunk by chunk.
        chunk_pieces: index of each chunk's first piece, and the number of pieces at the end, int64 [chunks + 1].
        chunk_starts: index of each chunk's first symbol, and the number of symbols at the end, int64 [chunks + 1].
        table: rows, cols, tensor and coefficient of each plane, int64 [planes, 4].
        chunk_planes: like chunk_pieces, for planes.
    """

    shapes: tuple[Shape, ...]
    pieces: tuple[Piece, ...]
    chunk_pieces: NDArray[np.int64]
    chunk_starts: NDArray[np.int64]
    table: NDArray[np.int64]
    chunk_planes: NDArray[np.int64]

    @property
    def symbols(self) -> int:
        """Number of symbols."""
        return int(self.chunk_starts[-1])

    @property
    def means(self) -> int:
        """Number of mean levels a group stores: one for each coefficient of each tensor."""
        return sum(shape.dim for shape in self.shapes)

    def kernel_table(self, means: NDArray[np.int64], mixes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Planes as the kernels take them, int64 [planes, 7]: rows, cols, mean energy and the four weights.

        Args:
            means: stored levels, one per tensor and coefficient, tensor by tensor.
            mixes: index into `MIXES` per tensor.
        """
        offsets = np.concatenate([[0], np.cumsum([s.dim for s in self.shapes])])
        tensor, coefficient = self.table[:, 2], self.table[:, 3]
        mean = mean_of(np.asarray(means, dtype=np.int64))[offsets[tensor] + coefficient]
        return np.ascontiguousarray(np.column_stack([self.table[:, :2], mean, MIXES[mixes][tensor]]))

    def gather(self, values: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Values [rows, cols, dim] of each tensor, one tensor at a time, as one array in scan order."""
        out = np.empty(self.symbols, dtype=np.float32)
        at, pieces = 0, iter(self.pieces)
        for shape, tensor in zip(self.shapes, values, strict=True):
            last = 0
            while last < shape.rows:
                _, first, last = next(pieces)
                size = (last - first) * shape.cols * shape.dim
                out[at : at + size].reshape(shape.dim, last - first, shape.cols)[:] = tensor[first:last].transpose(
                    2, 0, 1
                )
                at += size
        return out

    def chunk(self, chunk: int) -> tuple[Piece, ...]:
        """The pieces of one chunk."""
        return self.pieces[self.chunk_pieces[chunk] : self.chunk_pieces[chunk + 1]]

    def part(self, symbols: NDArray[np.int32], chunk: int, k: int) -> NDArray[np.int32]:
        """Symbols of the chunk's k-th piece, [dim, rows, cols], out of all symbols of the chunk."""
        sizes = [(p.last - p.first) * self.shapes[p.tensor].cols * self.shapes[p.tensor].dim for p in self.chunk(chunk)]
        piece = self.chunk(chunk)[k]
        start = sum(sizes[:k])
        _, cols, dim = self.shapes[piece.tensor]
        return symbols[start : start + sizes[k]].reshape(dim, piece.last - piece.first, cols)


def chunk_count(shapes: Iterable[Shape]) -> int:
    """Chunks that `plan_planes` makes of these tensors, from arithmetic alone: opening a large file needs no more."""
    count = filled = 0
    for shape in shapes:
        per_row = shape.cols * shape.dim
        height = max(1, PIECE // max(per_row, 1))
        for pieces, size in ((shape.rows // height, height * per_row), (1, shape.rows % height * per_row)):
            if not size:
                continue
            closing = -(-(CHUNK - filled) // size)  # pieces that close the chunk begun before
            if pieces < closing:
                filled += pieces * size
                continue
            each = -(-CHUNK // size)
            count += 1 + (pieces - closing) // each
            filled = (pieces - closing) % each * size
    return count + (filled > 0)


def plan_planes(shapes: list[Shape]) -> Planes:
    """Cut tensors into pieces, planes and chunks; a tensor without rows is in none."""
    pieces: list[Piece] = []
    chunk_pieces, chunk_starts, chunk_planes, rows = [0], [0], [0], []
    filled = total = 0
    for t, shape in enumerate(shapes):
        per_row = shape.cols * shape.dim
        height = max(1, PIECE // max(per_row, 1))
        for first in range(0, shape.rows, height):
            piece = Piece(t, first, min(first + height, shape.rows))
            pieces.append(piece)
            rows += [(piece.last - first, shape.cols, t, j) for j in range(shape.dim)]
            filled += (piece.last - first) * per_row
            if filled >= CHUNK:
                total += filled
                filled = 0
                chunk_pieces.append(len(pieces))
                chunk_starts.append(total)
                chunk_planes.append(len(rows))
    if filled:
        chunk_pieces.append(len(pieces))
        chunk_starts.append(total + filled)
        chunk_planes.append(len(rows))
    return Planes(
        tuple(shapes),
        tuple(pieces),
        np.array(chunk_pieces, dtype=np.int64),
        np.array(chunk_starts, dtype=np.int64),
        np.array(rows, dtype=np.int64).reshape(-1, 4),
        np.array(chunk_planes, dtype=np.int64),
    )
