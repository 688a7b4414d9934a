"""Round numbers for axes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.search import ticks


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_linear_ticks_lie_within_and_are_few(low: float, span: float) -> None:
    found = ticks.linear(low, low + span)
    assert 2 <= len(found) <= 14 and found == sorted(set(found))
    slack = 1e-6 * (span + abs(low))
    assert all(low - slack <= tick <= low + span + slack for tick in found)


@given(st.floats(1.0, 1e10), st.floats(1.05, 1e4))
def test_logarithmic_ticks_lie_within(low: float, factor: float) -> None:
    found = ticks.logarithmic(low, low * factor)
    assert found and found == sorted(set(found))
    assert all(low * (1 - 1e-6) <= tick <= low * factor * (1 + 1e-6) for tick in found)


def test_known_ticks() -> None:
    assert ticks.linear(85.1, 92.3) == [86.0, 88.0, 90.0, 92.0]
    assert ticks.linear(0.0, 0.0) == [0.0]
    assert ticks.logarithmic(900, 110_000) == [1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5]


@pytest.mark.parametrize(
    ("nbytes", "text"), [(999, "999 B"), (43_210, "43.21 kB"), (1_500_000, "1.5 MB"), (2e9, "2 GB"), (0.5, "0.5 B")]
)
def test_sizes(nbytes: float, text: str) -> None:
    assert ticks.size(nbytes) == text


def test_plain_numbers() -> None:
    assert [ticks.plain(v) for v in (92.0, 0.05, -3.75, 1e12)] == ["92", "0.05", "-3.75", "1000000000000"]
