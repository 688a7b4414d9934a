"""Which ratio is tried next."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.search.bracket import next_ratio

ENDS = (2.0, 64.0)


def walk(feasible: Callable[[float], bool], ends: tuple[float, float] = ENDS, most: int = 60) -> list[float]:
    """Ratios tried until the search ends by itself."""
    tried: list[tuple[float, bool]] = []
    while len(tried) < most:
        asked = next_ratio(tried, ends, 0.03)
        if asked is None:
            return [ratio for ratio, _ in tried]
        tried.append((asked, feasible(asked)))
    raise AssertionError("the search does not end")


@given(st.floats(2.0, 1000.0))
def test_finds_the_edge(edge: float) -> None:
    tried = walk(lambda ratio: ratio <= edge)
    low, high = max(r for r in tried if r <= edge), min(r for r in tried if r > edge)
    assert high <= 1.03 * low and len(tried) <= 14
    assert len(set(tried)) == len(tried), "no ratio is tried twice"


@pytest.mark.parametrize("edge", [3.0, 8.0, 16.0, 40.0, 63.0])
def test_ten_trials_suffice_within_the_range(edge: float) -> None:
    assert len(walk(lambda ratio: ratio <= edge)) <= 10


def test_starts_in_the_middle_and_tries_an_end_when_near() -> None:
    assert next_ratio([], ENDS, 0.03) == pytest.approx(math.sqrt(128))
    assert next_ratio([(40.0, True)], ENDS, 0.03) == 64.0
    assert next_ratio([(3.0, False)], ENDS, 0.03) == 2.0


def test_goes_beyond_a_feasible_upper_end() -> None:
    assert next_ratio([(64.0, True)], ENDS, 0.03) == 128.0
    assert next_ratio([(64.0, True), (128.0, True)], ENDS, 0.03) == 256.0


def test_never_goes_below_the_lower_end() -> None:
    tried = walk(lambda ratio: False)
    assert min(tried) == 2.0 and len(tried) <= 6


@given(st.lists(st.tuples(st.floats(1.0, 100.0), st.booleans()), max_size=12))
def test_any_history_has_a_sensible_next(tried: list[tuple[float, bool]]) -> None:
    asked = next_ratio(tried, ENDS, 0.03)
    best = max((ratio for ratio, good in tried if good), default=0.0)
    assert asked is None or (math.isfinite(asked) and asked >= min(best, ENDS[0]))
    assert next_ratio(tried[::-1], ENDS, 0.03) == asked, "order does not matter"


@given(st.integers(0, 2**32 - 1))
def test_ends_for_scores_without_order(seed: int) -> None:
    walk(lambda ratio: hash((seed, round(ratio, 6))) % 3 == 0 and ratio < 500)
