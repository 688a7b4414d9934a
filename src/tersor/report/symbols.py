"""How often each layer uses each codeword, or each level: the histograms that sharing is judged by."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tersor.archive import Archive
from tersor.representations.group import GroupReader

Counts = NDArray[np.int64]

EDGE = 64
"""Levels below so many are counted one by one, those from it on in quarter octaves."""

SIDE = EDGE + 4 * 25
"""Columns to either side of zero: the level itself below EDGE, then four for each octave up to 2^31."""

_STARTS = np.array([math.ceil(EDGE * 2 ** (i / 4)) for i in range(1, SIDE - EDGE + 1)], dtype=np.int64)


def symbols_of(archive: Archive, g: int) -> Iterator[tuple[int, Counts]]:
    """Of each tensor of the g-th group (scalar groups after the others): its position, and counts [M, K].

    M codebooks of K codewords; of a lattice one row of its levels (`column_of`), zero in the middle; of a scalar group
    one row of its symbols. A tensor of which nothing survives gives zeros.

    Raises:
        ArchiveError: a section is damaged.
    """
    index = archive.index
    if g < len(index.groups):
        record = index.groups[g]
        for k, counts in _of_group(archive.group(g)):
            yield record.tensors[k], counts
        return
    reader = archive.scalar_group(g - len(index.groups))
    for k, i in enumerate(reader.record.tensors):
        yield i, _histogram(reader.symbols(k).reshape(1, -1), reader.record.size)


def _of_group(reader: GroupReader) -> Iterator[tuple[int, Counts]]:
    """Tensor by tensor, as their last pieces come by."""
    record, planes = reader.record, reader.planes
    shape = (record.num_codebooks, record.codebook_size) if record.num_codebooks else (1, 2 * SIDE + 1)
    left = {t: s.rows for t, s in enumerate(planes.shapes)}
    begun: dict[int, Counts] = {}
    for t in [t for t, rows in left.items() if not rows]:
        yield t, np.zeros(shape, dtype=np.int64)
    for c in range(reader.chunks):
        streams = reader.chunk_streams(c)
        for piece, found in _pieces(reader, c, streams):
            counts = begun.setdefault(piece.tensor, np.zeros(shape, dtype=np.int64))
            counts += _histogram(found, shape[1])
            left[piece.tensor] -= piece.last - piece.first
            if not left[piece.tensor]:
                yield piece.tensor, begun.pop(piece.tensor)


def _pieces(reader: GroupReader, c: int, streams: list[bytes]) -> Iterator[tuple[Any, NDArray[Any]]]:
    """Pieces of a chunk with their symbols [M, n], from 0."""
    if reader.codes is not None:
        for piece, codes in reader.codes.codes(c, streams[0]):
            yield piece, codes.T
        return
    assert reader.lattice is not None
    levels = reader.lattice.levels([c], streams)[0]
    for k, piece in enumerate(reader.planes.chunk(c)):
        part = reader.planes.part(levels, c, k).reshape(1, -1)
        yield piece, np.sign(part) * column_of(np.abs(part)) + SIDE


def column_of(magnitudes: NDArray[np.int32]) -> NDArray[np.int64]:
    """Where magnitudes of levels are counted, seen from zero: 0 to SIDE."""
    beyond = EDGE + np.searchsorted(_STARTS, magnitudes, side="right")
    return np.where(magnitudes < EDGE, magnitudes, beyond).astype(np.int64)


def magnitude_of(column: int) -> int:
    """The least magnitude that is counted in a column, seen from zero."""
    return column if column < EDGE else (EDGE, *_STARTS.tolist())[column - EDGE]


def _histogram(symbols: NDArray[Any], size: int) -> Counts:
    return np.stack([np.bincount(row, minlength=size) for row in symbols])
