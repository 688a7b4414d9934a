from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lattices import cut, cut_planes, shapes

from tersor.lattice import planes
from tersor.lattice.planes import MIXES, Planes, Shape, chunk_count, plan_planes


@given(cut_planes())
def test_pieces_cover_every_row_once_and_in_order(cut_up: Planes) -> None:
    rows = [(p.tensor, r) for p in cut_up.pieces for r in range(p.first, p.last)]
    assert rows == [(t, r) for t, shape in enumerate(cut_up.shapes) for r in range(shape.rows)]
    assert all(p.first < p.last for p in cut_up.pieces)


@given(cut_planes())
def test_chunks_are_whole_pieces_and_count_their_symbols_and_planes(cut_up: Planes) -> None:
    chunks = len(cut_up.chunk_starts) - 1
    assert [p for c in range(chunks) for p in cut_up.chunk(c)] == list(cut_up.pieces)
    assert cut_up.symbols == sum(shape.size for shape in cut_up.shapes)
    for c in range(chunks):
        part = cut_up.table[cut_up.chunk_planes[c] : cut_up.chunk_planes[c + 1]]
        assert (part[:, 0] * part[:, 1]).sum() == cut_up.chunk_starts[c + 1] - cut_up.chunk_starts[c] > 0
        wanted = [
            (p.last - p.first, cut_up.shapes[p.tensor].cols, p.tensor, j)
            for p in cut_up.chunk(c)
            for j in range(cut_up.shapes[p.tensor].dim)
        ]
        assert part.tolist() == [list(w) for w in wanted]


@given(shapes, st.integers(1, 300), st.integers(1, 300))
def test_sizes_of_pieces_and_chunks_are_bounded(given_shapes: list[Shape], piece: int, chunk: int) -> None:
    with cut(piece, chunk):
        cut_up = plan_planes(given_shapes)
    for p in cut_up.pieces:
        shape = cut_up.shapes[p.tensor]
        assert p.last - p.first == 1 or (p.last - p.first) * shape.cols * shape.dim <= piece
    sizes = np.diff(cut_up.chunk_starts)
    assert (sizes[:-1] >= chunk).all()
    largest = max(max(piece, s.cols * s.dim) for s in given_shapes)
    assert (sizes < chunk + largest).all()


@given(shapes, st.integers(1, 300), st.integers(1, 300))
def test_chunks_are_counted_without_being_made(given_shapes: list[Shape], piece: int, chunk: int) -> None:
    with cut(piece, chunk):
        assert chunk_count(given_shapes) == len(plan_planes(given_shapes).chunk_starts) - 1


@given(cut_planes())
def test_gather_and_part_are_inverse(cut_up: Planes) -> None:
    tensors = [np.random.default_rng(i).normal(size=s).astype(np.float32) for i, s in enumerate(cut_up.shapes)]
    scanned = cut_up.gather(tensors)
    back = [np.full(s, np.nan, dtype=np.float32) for s in cut_up.shapes]
    for c in range(len(cut_up.chunk_starts) - 1):
        symbols = scanned[cut_up.chunk_starts[c] : cut_up.chunk_starts[c + 1]]
        for k, p in enumerate(cut_up.chunk(c)):
            back[p.tensor][p.first : p.last] = np.moveaxis(cut_up.part(symbols, c, k), 0, -1)
    for found, tensor in zip(back, tensors, strict=True):
        np.testing.assert_array_equal(found, tensor)


@given(cut_planes())
def test_the_scan_visits_plane_by_plane_rows_first(cut_up: Planes) -> None:
    tensors = [np.arange(s.size, dtype=np.float32).reshape(s) + 1000 * i for i, s in enumerate(cut_up.shapes)]
    wanted = [
        tensors[p.tensor][row, col, j]
        for p in cut_up.pieces
        for j in range(cut_up.shapes[p.tensor].dim)
        for row in range(p.first, p.last)
        for col in range(cut_up.shapes[p.tensor].cols)
    ]
    np.testing.assert_array_equal(cut_up.gather(tensors), wanted)


def test_the_cut_of_the_format_is_as_documented() -> None:
    cut_up = plan_planes([Shape(3, 1 << 17, 2), Shape(10, 10, 1), Shape(1 << 12, 9, 9)])
    assert cut_up.pieces == ((0, 0, 2), (0, 2, 3), (1, 0, 10), (2, 0, 4096))
    assert cut_up.chunk_pieces.tolist() == [0, 1, 2, 4]


@given(cut_planes(), st.randoms())
def test_the_kernels_get_each_planes_own_mean_and_mix(cut_up: Planes, random: object) -> None:
    rng = np.random.default_rng(len(cut_up.pieces))
    means, mixes = rng.integers(0, 97, cut_up.means), rng.integers(0, len(MIXES), len(cut_up.shapes))
    table = cut_up.kernel_table(means, mixes)
    split = np.split(means, np.cumsum([s.dim for s in cut_up.shapes])[:-1])
    for row, (rows, cols, tensor, j) in zip(table, cut_up.table, strict=True):
        assert row.tolist() == [rows, cols, planes.mean_of(split[tensor][j]), *MIXES[mixes[tensor]]]


def test_mixes_are_sixteenths() -> None:
    assert (MIXES.sum(axis=1) == 16).all() and (MIXES >= 0).all()


def test_mean_levels_are_quarter_octaves_and_nearest() -> None:
    levels = np.arange(1, planes.MAX_MEAN + 1)
    means = planes.mean_of(levels).astype(float) / 4096
    np.testing.assert_allclose(means, 2.0 ** ((levels - 1) / 4 - 10), atol=1 / 4096, rtol=1e-4)
    np.testing.assert_array_equal(planes.mean_level(2.0 ** ((levels - 1) / 4 - 10)), levels)
    assert planes.mean_of(np.array([0])).tolist() == [0]
    assert planes.mean_level(np.array([0.0, 1e-9, 1e12])).tolist() == [0, 0, planes.MAX_MEAN]


@pytest.mark.parametrize("shape", [Shape(1, 1, 1), Shape(1, 1, 9), Shape(5, 1, 1)])
def test_the_smallest_tensors_are_one_piece(shape: Shape) -> None:
    assert plan_planes([shape]).pieces == ((0, 0, shape.rows),)
