"""Rows of integers as byte codes and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tersor.packed import tuples


def laplacian(seed: int, lines: int, length: int, scale: float) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.rint(random.laplace(size=(lines, length)) * scale).astype(np.int64)


def bytes_of(packed: tuples.Tuples) -> int:
    return sum(a.nbytes for c in packed.classes for a in (c.codes, c.escaped, *(() if c.book is None else (c.book,))))


ROW = st.tuples(
    st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(0, 200), st.sampled_from((0.01, 0.5, 3, 1e3, 1e6))
)


@given(st.lists(ROW, max_size=6))
@settings(max_examples=60, deadline=None)
def test_nothing_is_lost(kinds: list[tuple[int, int, int, float]]) -> None:
    rows = [laplacian(*kind) for kind in kinds]
    packed = tuples.pack(rows)
    found = packed.rows()
    assert len(found) == len(rows)
    for row, back in zip(rows, found, strict=True):
        np.testing.assert_array_equal(back, row)
    assert packed.nbytes == bytes_of(packed)
    assert sorted(r for c in packed.classes for r in c.rows) == list(range(len(rows)))


def test_two_bits_of_entropy_take_about_three() -> None:
    rows = [laplacian(seed, 1, 40_000, 0.75) for seed in range(4)]
    share = np.unique(np.concatenate([r.reshape(-1) for r in rows]), return_counts=True)[1] / 160_000
    entropy = float(-(share * np.log2(share)).sum())
    assert 1.8 < entropy < 2.2
    assert 8 * tuples.pack(rows).nbytes / 160_000 < entropy + 1.0


def test_rows_choose_their_size() -> None:
    quiet, loud = laplacian(0, 1, 30_000, 0.05), laplacian(1, 1, 30_000, 30.0)
    packed = tuples.pack([quiet, loud])
    size = {r: c.size for c in packed.classes for r in c.rows}
    assert size[0] >= 8 and size[1] == 1


def test_a_book_that_does_not_pay_is_left_out() -> None:
    packed = tuples.pack([laplacian(0, 1, 40, 3.0)])
    assert [c.size for c in packed.classes] == [0] and packed.nbytes == 40


def test_escapes_are_in_order_and_only_where_codes_say() -> None:
    packed = tuples.pack([laplacian(3, 8, 3001, 1.0)])
    (kind,) = packed.classes
    assert kind.book is not None and len(kind.places) == len(kind.escaped) > 0
    assert (kind.escaped >= tuples.ESCAPE).all() and int(kind.escaped.max()) < len(kind.book)
    assert kind.codes.dtype == np.uint8


def test_lines_begin_with_a_code_of_their_own() -> None:
    packed = tuples.pack([laplacian(4, 7, 1000, 1.0)])
    (kind,) = packed.classes
    assert len(kind.codes) == 7 * -(-1000 // kind.size) == tuples.starts(kind, packed.shapes)[-1]


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 70_000])
def test_any_number_of_distinct_integers(count: int) -> None:
    row = np.arange(-5, count - 5, dtype=np.int64)[None]
    np.testing.assert_array_equal(tuples.pack([row]).rows()[0], row)


def test_the_same_rows_give_the_same_bytes() -> None:
    first, second = (tuples.pack([laplacian(s, 1, 5000, 1.0) for s in range(3)]) for _ in range(2))
    for one, other in zip(first.classes, second.classes, strict=True):
        assert one.codes.tobytes() == other.codes.tobytes() and one.escaped.tobytes() == other.escaped.tobytes()


def test_more_distinct_integers_than_two_bytes_tell_apart() -> None:
    row = np.concatenate([np.zeros(400_000, dtype=np.int64), np.arange(70_000)])[None]
    np.testing.assert_array_equal(tuples.pack([row]).rows()[0], row)
