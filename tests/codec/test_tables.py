from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tersor.codec import tables
from tersor.errors import ArchiveError

levels = npst.arrays(np.int64, st.tuples(st.integers(1, 3), st.integers(1, 60)), elements=st.integers(0, 60))
precisions = st.sampled_from([6, 12, 20, 24])


def by_definition(row: list[int], precision: int) -> list[int]:
    """The table of `docs/format.md` in unbounded integers."""
    weight = [(32768, 27554, 23170, 19484)[v % 4] >> v // 4 for v in row]
    f = [1 + w * (2**precision - len(row)) // sum(weight) for w in weight]
    f[f.index(max(f))] += 2**precision - sum(f)
    return f


@given(levels, precisions)
def test_frequencies_are_the_definition(rows: np.ndarray, precision: int) -> None:
    table = tables.frequencies(rows, precision)
    assert table.dtype == np.uint32
    assert table.tolist() == [by_definition(row, precision) for row in rows.tolist()]


@given(levels, st.sampled_from([12, 20]))  # the precisions in use leave room to tell levels apart
def test_frequencies_are_positive_sum_exactly_and_fall_with_the_level(rows: np.ndarray, precision: int) -> None:
    for row, f in zip(rows, tables.frequencies(rows, precision).astype(np.int64), strict=True):
        assert f.min() >= 1 and f.sum() == 1 << precision
        order = np.argsort(row, kind="stable")
        assert (np.diff(f[order]) <= 0).all()


def test_the_quarters_are_quarter_octaves() -> None:
    assert [round(32768 * 2 ** (-i / 4)) for i in range(4)] == tables._QUARTERS.tolist()


@given(npst.arrays(np.int64, st.integers(1, 40), elements=st.integers(0, 10**6)))
def test_levels_are_the_nearest_quarter_octaves(counts: np.ndarray) -> None:
    found = tables.levels_of(counts)
    top = max(int(counts.max()), 1)
    for count, level in zip(counts.tolist(), found.tolist(), strict=True):
        if count == 0:
            assert level == (0 if counts.max() == 0 and level == 0 else tables.MAX_LEVEL)
        elif level < tables.MAX_LEVEL:
            ratio = Fraction(count, top)
            assert 2 ** (-(level + 0.501) / 4) <= float(ratio) <= 2 ** (-(level - 0.501) / 4)
    assert found[counts.argmax()] in (0, tables.MAX_LEVEL)


@given(st.integers(0, 10**6))
def test_quarter_octaves_cost_little(seed: int) -> None:
    counts = np.random.default_rng(seed).geometric(0.2, 20000)
    counts = np.bincount(counts, minlength=2)
    shares = counts[counts > 0] / counts.sum()
    entropy = -(shares * np.log2(shares)).sum()
    coded = (counts * tables.bits(tables.frequencies(tables.levels_of(counts), 20), 20)).sum() / counts.sum()
    assert entropy <= coded + 1e-6 < entropy + 0.01


@pytest.mark.parametrize(
    ("rows", "precision"), [([-1, 0], 12), ([0, 61], 12), (np.zeros((2, 0)), 12), ([0] * 65, 6), ([10**12], 20)]
)
def test_a_table_out_of_range_is_refused(rows: object, precision: int) -> None:
    with pytest.raises(ArchiveError):
        tables.frequencies(rows, precision)  # type: ignore[arg-type]
