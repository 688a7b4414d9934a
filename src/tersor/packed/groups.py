"""What an archive holds, packed: each group's codes, levels, codebooks, basis, scales and masks as plain arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tersor.archive import Archive
from tersor.lattice.planes import Shape
from tersor.packed import tuples, words
from tersor.packed.tuples import Tuples
from tersor.packed.words import Words
from tersor.representations import affine
from tersor.representations.group import GroupReader
from tersor.representations.group_symbols import symbols_of
from tersor.representations.lattice_stage import SHIFT_UNIT, centred
from tersor.representations.sparse import scatter


@dataclass(frozen=True)
class PackedGroup:
    """A group of codes, lattice points, or both: `scale * (sum of codewords + basis @ v)`, in float32, in this order.

    Attributes:
        tensors: positions in the archive.
        shapes: of the tensors.
        vectors: how each stands as [rows, cols, dim]; where `masks` are, what survives of it.
        entries: codebooks, int8 [M, K, dim]; None without codes.
        units: float32 [M], what an entry of each codebook is worth.
        codes: of each codebook, of all vectors, tensor by tensor.
        levels: lattice points; row t * dim + j is coefficient j of tensor t. None without a lattice.
        values: float32 [L], the coefficient that each of `levels.points` stands for.
        basis: int8 [dim, dim] in 127ths, or None.
        scales: per tensor float32 [1] or [rows]; None without.
        masks: where each tensor is not zero, in its shape; None where zeros are levels, or no zeros are kept.
    """

    tensors: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    vectors: tuple[Shape, ...]
    entries: NDArray[np.int8] | None
    units: NDArray[np.float32] | None
    codes: tuple[Words, ...]
    levels: Tuples | None
    values: NDArray[np.float32] | None
    basis: NDArray[np.int8] | None
    scales: tuple[NDArray[np.float32], ...] | None
    masks: tuple[NDArray[np.bool_], ...] | None

    @property
    def nbytes(self) -> int:
        """Bytes of codes and codebooks."""
        size = sum(word.data.nbytes for word in self.codes)
        size += 0 if self.entries is None else self.entries.nbytes
        size += 0 if self.levels is None or self.values is None else self.levels.nbytes + self.values.nbytes
        size += 0 if self.masks is None else sum(-(-m.size // 8) for m in self.masks)
        size += 0 if self.scales is None else sum(s.nbytes for s in self.scales)
        return size + (0 if self.basis is None else self.basis.nbytes)


@dataclass(frozen=True)
class PackedScalars:
    """Tensors whose elements are each one of few values, or integers on grids.

    Attributes:
        tensors: positions in the archive.
        shapes: of the tensors.
        symbols: row t is tensor t.
        values: float32 [L], what each of `symbols.points` stands for: a shared value, or an integer.
        grids: of each tensor its scales float32 [units] and zero points float32 [units], for equal runs of elements;
            None for shared values.
    """

    tensors: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    symbols: Tuples
    values: NDArray[np.float32]
    grids: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...] | None

    @property
    def nbytes(self) -> int:
        """Bytes of symbols, values and grids."""
        grids = 0 if self.grids is None else sum(s.nbytes + z.nbytes for s, z in self.grids)
        return self.symbols.nbytes + self.values.nbytes + grids


def pack(archive: Archive, *, lines: bool = False) -> list[PackedGroup | PackedScalars]:
    """Every group and scalar group of an archive, packed.

    Args:
        archive: what `compress` made.
        lines: lines of matrices begin with a code of their own, as a layer needs that is computed from codes.

    Raises:
        ArchiveError: a section is damaged.
    """
    index = archive.index
    out: list[PackedGroup | PackedScalars] = []
    for g, record in enumerate(index.groups):
        out.append(_group(archive.group(g), record.tensors, lines))
    for g, scalar in enumerate(index.scalars):
        reader = archive.scalar_group(g)
        count = len(reader.shapes)
        symbols = tuples.pack(lambda: (reader.symbols(t).reshape(1, -1) for t in range(count)))  # noqa: B023
        if not scalar.bits:
            packed = PackedScalars(scalar.tensors, tuple(reader.shapes), symbols, reader.palette[symbols.points], None)
        else:
            low, _ = affine.limits(scalar.bits, scalar.zeros)
            grids = tuple((grid.scales, grid.zeros.astype(np.float32)) for grid in reader.grids)
            values = (symbols.points + low).astype(np.float32)
            packed = PackedScalars(scalar.tensors, tuple(reader.shapes), symbols, values, grids)
        out.append(packed)
    return out


def _group(reader: GroupReader, tensors: Sequence[int], lines: bool) -> PackedGroup:
    record = reader.record
    shapes = tuple(tuple(s) for s in reader.shapes)
    zeros = reader.sparse is not None
    spread = zeros and reader.codes is None  # zeros are the level zero, of value zero
    vectors = tuple(_flat(shape) for shape in shapes) if spread else tuple(reader.planes.shapes)
    packed = values = None
    if reader.lattice is not None:
        packed = tuples.pack(lambda: _rows(reader, shapes, vectors, spread, lines))
        assert record.lattice is not None
        part = np.float32(record.lattice.step) / np.float32(SHIFT_UNIT)
        values = centred(packed.points.astype(np.int32), record.lattice) * part
    entries = units = None
    codes: tuple[Words, ...] = ()
    if reader.codes is not None:
        units = np.array(record.steps, dtype=np.float32)
        entries = reader.codes.entries.astype(np.int8)
        kind = (np.uint8, np.uint16)[record.codebook_size > 256]
        stacked = np.concatenate([c.astype(kind) for _, c, _ in symbols_of(reader) if c is not None])
        codes = tuple(words.pack(c, record.codebook_size) for c in stacked.T)
    return PackedGroup(
        tensors=tuple(tensors),
        shapes=shapes,
        vectors=vectors,
        entries=entries,
        units=units,
        codes=codes,
        levels=packed,
        values=values,
        basis=None if reader.lattice is None else reader.lattice.basis,
        scales=None if reader.scales is None else tuple(reader.scales),
        masks=tuple(reader.masks or ()) if zeros and not spread else None,
    )


def _flat(shape: tuple[int, ...]) -> Shape:
    """A tensor as vectors of one value."""
    rows = shape[0] if len(shape) > 1 else 1
    return Shape(rows, int(np.prod(shape)) // rows, 1)


def _rows(
    reader: GroupReader, shapes: Sequence[tuple[int, ...]], vectors: Sequence[Shape], spread: bool, apart: bool
) -> Iterator[NDArray[np.integer]]:
    """The rows that `tuples` packs, tensor by tensor, one for each coefficient; zeros where a mask says so."""
    for t, _, levels in symbols_of(reader):
        assert levels is not None
        if spread and reader.sparse is not None:
            levels = scatter(levels, reader.sparse.mask(t)).reshape(-1, 1)
        shape, stand = shapes[t], vectors[t]
        matrix = (
            apart
            and len(shape) == 2
            and stand.dim == 1
            and stand.rows == shape[0]
            and stand.size == shape[0] * shape[1]
        )
        lines = stand.rows if matrix else 1
        for column in levels.T:
            yield column.reshape(lines, -1)
