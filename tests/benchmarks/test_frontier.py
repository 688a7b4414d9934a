from __future__ import annotations

import itertools
import math

import pytest
from benchmarks.frontier import advantage, hull, interpolate
from hypothesis import given
from hypothesis import strategies as st

coordinates = st.tuples(st.integers(1, 400).map(lambda n: n / 100), st.integers(1, 300).map(lambda n: n / 10))
clouds = st.lists(coordinates, min_size=1, max_size=30)


def error(snr: float) -> float:
    return 10 ** (-snr / 10)


@given(clouds)
def test_no_point_and_no_mix_of_points_is_better_than_the_hull(points):
    curve = hull(points)
    for x, snr in points:
        reference = interpolate(curve, min(x, curve[-1][0]))
        assert reference is not None
        assert snr <= reference + 1e-9


@given(clouds)
def test_hull_is_made_of_points_and_convex_in_squared_error(points):
    curve = hull(points)
    assert set(curve) <= set(points)
    slopes = [(error(b[1]) - error(a[1])) / (b[0] - a[0]) for a, b in itertools.pairwise(curve)]
    assert all(slope < 0 for slope in slopes)
    assert slopes == sorted(slopes)


@given(clouds)
def test_hull_of_a_hull_is_itself(points):
    assert hull(hull(points)) == hull(points)


def test_a_coder_of_six_db_per_bit_keeps_all_its_points():
    curve = [(bits / 2, 3.0103 * bits) for bits in range(1, 9)]
    assert hull(curve) == curve


def test_a_setting_that_a_mix_of_two_others_beats_is_left_out():
    ends = [(1.0, 10.0), (3.0, 20.0)]
    mixed = -10 * math.log10((error(10.0) + error(20.0)) / 2)
    assert hull([*ends, (2.0, mixed - 0.01)]) == ends
    assert hull([*ends, (2.0, mixed + 0.01)]) == [ends[0], (2.0, mixed + 0.01), ends[1]]


def test_interpolation_is_linear_in_db_and_stops_at_the_ends():
    curve = [(1.0, 6.0), (2.0, 12.0), (4.0, 24.0)]
    assert interpolate(curve, 1.5) == pytest.approx(9.0)
    assert interpolate(curve, 3.0) == pytest.approx(18.0)
    assert [interpolate(curve, x) for x in (1.0, 2.0, 4.0)] == [6.0, 12.0, 24.0]
    assert interpolate(curve, 0.99) is None
    assert interpolate(curve, 4.01) is None
    assert interpolate([], 1.0) is None


def test_advantage_is_in_db_at_equal_bytes():
    curve = [(1.0, 6.0), (2.0, 12.0)]
    point = {"coder": "x", "setting": "", "bytes": 0, "bpw": 1.5, "snr_db": 9.5, "encode_s": 0.0, "decode_s": 0.0}
    assert advantage(point, curve) == pytest.approx(0.5)
    assert advantage({**point, "bpw": 2.5}, curve) is None
    assert advantage({**point, "snr_db": None}, curve) is None
