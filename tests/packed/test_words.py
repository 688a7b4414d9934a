"""Codes in words of a fixed width."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.packed import words


@given(st.integers(1, 1 << 16), st.integers(0, 300), st.integers(0, 2**32 - 1))
def test_codes_come_back(size: int, count: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, size, count)
    packed = words.pack(codes, size)
    np.testing.assert_array_equal(packed.codes(), codes)
    assert packed.data.dtype in (np.uint8, np.uint16, np.int64) and (packed.data >= 0).all()


@pytest.mark.parametrize("size", [2, 3, 16, 31, 32, 64, 100, 128, 200, 256, 257, 512, 1000, 2048, 4096, 8000, 65536])
def test_words_are_within_a_quarter_of_the_bits(size: int) -> None:
    codes = np.random.default_rng(0).integers(0, size, 10_000)
    assert 8 * words.pack(codes, size).data.nbytes <= 1.25 * 10_000 * np.log2(size) + 64


def test_bytes_and_pairs_of_bytes() -> None:
    assert words.pack(np.array([0, 255]), 256).data.dtype == np.uint8
    assert words.pack(np.array([0, 65535]), 65536).data.dtype == np.uint16
    assert words.pack(np.array([0, 511]), 512).each == 7


@given(st.sampled_from((3, 200, 257, 512, 65536)), st.integers(1, 300), st.data())
def test_a_part_holds_its_codes(size: int, count: int, data: st.DataObject) -> None:
    codes = np.random.default_rng(count).integers(0, size, count)
    first = data.draw(st.integers(0, count))
    length = data.draw(st.integers(0, count - first))
    part = words.pack(codes, size).part(first, length)
    np.testing.assert_array_equal(part.codes(), codes[first : first + length])
    assert part.count == length
