"""The symbols of a group, tensor by tensor: for whoever decodes them in another way than a reader does."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tersor.representations.group import GroupReader

Symbols = NDArray[np.int32] | None


def symbols_of(reader: GroupReader) -> Iterator[tuple[int, Symbols, Symbols]]:
    """Tensor by tensor in order: its place in the group, its codes [vectors, M], and its lattice levels [vectors, dim].

    None for a stage that is not there. Nothing is held but the tensors that a chunk leaves unfinished.
    """
    planes, dim = reader.planes, reader.record.dim
    counts = [s.rows * s.cols for s in planes.shapes]
    width = 0 if reader.codes is None else reader.codes.num_codebooks
    open_codes: dict[int, NDArray[np.int32]] = {}
    open_levels: dict[int, NDArray[np.int32]] = {}
    done = 0

    def finished(until: int) -> Iterator[tuple[int, Symbols, Symbols]]:
        nonlocal done
        for t in range(done, until):  # those that have no vectors are in no chunk
            codes = open_codes.pop(t, np.empty((counts[t], width), dtype=np.int32)) if width else None
            levels = open_levels.pop(t, np.empty((counts[t], dim), dtype=np.int32)) if reader.lattice else None
            yield t, codes, levels
        done = max(done, until)

    for c in range(reader.chunks):
        streams = reader.chunk_streams(c)
        levels = reader.lattice.levels([c], streams[-1:])[0] if reader.lattice is not None else None
        coded = reader.codes.codes(c, streams[0]) if reader.codes is not None else None
        for k, piece in enumerate(planes.chunk(c)):
            t, shape = piece.tensor, planes.shapes[piece.tensor]
            part = slice(piece.first * shape.cols, piece.last * shape.cols)
            if coded is not None:
                open_codes.setdefault(t, np.empty((counts[t], width), dtype=np.int32))[part] = coded[k][1]
            if levels is not None:
                to = open_levels.setdefault(t, np.empty((counts[t], dim), dtype=np.int32))
                to[part] = np.moveaxis(planes.part(levels, c, k), 0, -1).reshape(-1, dim)
            if piece.last == shape.rows:
                yield from finished(t + 1)
    yield from finished(len(counts))
