from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tersor.lattice.planes import Shape
from tersor.stream.sample import rows_of

shapes = st.lists(st.builds(Shape, st.integers(1, 5000), st.integers(1, 300), st.sampled_from([1, 4, 9])), min_size=1)


@given(shapes, st.integers(0, 9), st.integers(1 << 10, 1 << 20))
def test_every_tensor_gives_rows_each_at_most_once(tensors: list[Shape], seed: int, limit: int) -> None:
    total = sum(t.size for t in tensors)
    found = rows_of(tensors, total, seed, limit)
    assert found == rows_of(tensors, total, seed, limit)
    for shape, blocks in zip(tensors, found, strict=True):
        ends = [0, *(end for block in blocks for end in block)]
        assert ends == sorted(ends) and ends[-1] <= shape.rows and all(first < last for first, last in blocks)


def test_shares_follow_sizes_down_to_a_floor() -> None:
    tensors = [Shape(8192, 4096, 1), Shape(4096, 4096, 1), Shape(1000, 4, 9), Shape(3, 70, 1)]
    total = sum(t.size for t in tensors)
    counts = [
        sum(last - first for first, last in blocks) * t.cols * t.dim
        for t, blocks in zip(tensors, rows_of(tensors, total, 0, 1 << 20), strict=True)
    ]
    assert 0.9 < sum(counts) / (1 << 20) < 1.1
    assert 1.9 < counts[0] / counts[1] < 2.1
    assert counts[2] > 0.99 * (1 << 14) and counts[3] == tensors[3].size


def test_a_small_group_is_taken_whole() -> None:
    tensors = [Shape(64, 64, 9), Shape(10, 1000, 1)]
    assert rows_of(tensors, sum(t.size for t in tensors), 5, 1 << 20) == [[(0, 64)], [(0, 10)]]


def test_the_seed_moves_the_blocks_within_their_strata() -> None:
    tensors = [Shape(10_000, 100, 1)]
    one, other = (rows_of(tensors, tensors[0].size, seed, 1 << 17)[0] for seed in (0, 1))
    assert one != other and len(one) == len(other) > 1
    for i, (first, last) in enumerate(one):
        assert i * 10_000 // len(one) <= first < last <= (i + 1) * 10_000 // len(one)
