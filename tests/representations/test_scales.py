from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.errors import ArchiveError
from tersor.representations import scales


@given(st.floats(2.0**-119, 2.0**119))
def test_a_scale_is_within_a_32nd_of_an_octave(scale: float) -> None:
    found = scales.scale_of(scales.level_of(scale).reshape(1))
    assert found.dtype == np.float32
    assert abs(np.log2(float(found[0]) / scale)) <= 1 / 32 + 1e-6


@given(st.lists(st.integers(-scales.MAX_LEVEL, scales.MAX_LEVEL), min_size=1, max_size=20))
def test_levels_are_exact_powers_of_a_sixteenth_octave(levels: list[int]) -> None:
    found = scales.scale_of(np.array(levels))
    for level, scale in zip(levels, found, strict=True):
        mantissa = Fraction(float(np.float32(2.0 ** (level % 16 / 16))))
        assert Fraction(float(scale)) == mantissa * Fraction(2) ** (level // 16)


@given(st.lists(st.integers(-16 * 118, 16 * 118), min_size=1, max_size=20))
def test_levels_are_idempotent(levels: list[int]) -> None:
    assert scales.level_of(scales.scale_of(np.array(levels))).tolist() == levels


def test_what_has_no_size_gets_a_finite_scale() -> None:
    for scale in (0.0, 1e-45, 3.4e38):
        assert np.isfinite(scales.scale_of(scales.level_of(scale).reshape(1))).all()
    assert scales.scale_of(np.zeros(0, dtype=np.int64)).size == 0


@pytest.mark.parametrize("level", [scales.MAX_LEVEL + 1, -scales.MAX_LEVEL - 1, 1 << 40])
def test_a_level_out_of_range_is_refused(level: int) -> None:
    with pytest.raises(ArchiveError):
        scales.scale_of(np.array([0, level]))
