from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tersor.codec import integers, rice
from tersor.errors import ArchiveError


def skewed(count: int, spread: float, low: int, seed: int) -> np.ndarray:
    return np.rint(np.random.default_rng(seed).laplace(low, spread, count)).astype(np.int64)


arrays = st.builds(skewed, st.integers(0, 900), st.floats(0.1, 40), st.integers(-500, 500), st.integers(0, 99))


@given(arrays)
def test_integers_come_back(values: np.ndarray) -> None:
    data = integers.pack(values)
    np.testing.assert_array_equal(integers.unpack(data, values.size), values)


@pytest.mark.parametrize(("values", "mode"), [([3, -4, 5], 0), (skewed(2000, 3, 40, 0), 1), ([7] * 500, 1)])
def test_the_shorter_of_both_modes_is_written(values: list[int], mode: int) -> None:
    data = integers.pack(values)
    assert data[0] == mode
    assert len(data) <= 1 + len(rice.pack(values, signed=True))
    assert integers.unpack(data, len(values)).tolist() == list(values)


def test_a_table_comes_near_the_entropy() -> None:
    values = skewed(20000, 6, 0, 1)
    shares = np.unique(values, return_counts=True)[1] / values.size
    entropy = -(shares * np.log2(shares)).sum() * values.size / 8
    assert len(integers.pack(values)) < 1.01 * entropy + 60


def test_an_empty_array_is_no_bytes() -> None:
    assert integers.pack(np.zeros((3, 0))) == b""
    assert integers.unpack(b"", 0).size == 0
    for data, count in ((b"\0", 0), (b"", 1)):
        with pytest.raises(ArchiveError):
            integers.unpack(data, count)


@pytest.mark.parametrize("values", [list(range(-40, 40)), skewed(600, 2, 0, 2)])
def test_every_cut_and_every_addition_is_refused(values: np.ndarray) -> None:
    data = integers.pack(values)
    for damaged in [data[:n] for n in range(len(data))] + [data + b"\0", data + b"\1\2\3\4"]:
        with pytest.raises(ArchiveError):
            integers.unpack(damaged, len(values))


@settings(max_examples=200)
@given(st.binary(min_size=1, max_size=40) | st.binary(max_size=40).map(lambda b: b"\1" + b), st.integers(0, 400))
def test_arbitrary_bytes_give_the_count_or_an_error(data: bytes, count: int) -> None:
    try:
        assert integers.unpack(data, count).shape == (count,)
    except ArchiveError as error:
        assert "\n" not in str(error)


@settings(max_examples=200)
@given(st.integers(0, 200), st.integers(1, 255))
def test_a_flipped_byte_gives_the_count_or_an_error(position: int, flip: int) -> None:
    data = bytearray(integers.pack(skewed(600, 2, 0, 3)))
    data[position % len(data)] ^= flip
    try:
        assert integers.unpack(bytes(data), 600).shape == (600,)
    except ArchiveError as error:
        assert "\n" not in str(error)
