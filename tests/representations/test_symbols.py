"""Symbols by whichever code is the smallest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.errors import ArchiveError
from tersor.representations import symbols


def drawn(shape: tuple[int, ...], size: int, zeros: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = rng.integers(0, size, shape)
    return np.where(rng.random(shape) < zeros, size // 2, found).astype(np.int32)


@given(
    st.sampled_from([(7, 9), (4, 3, 3, 3), (50,), (1, 1)]),
    st.integers(1, 20),
    st.sampled_from([0.0, 0.5, 0.95]),
    st.integers(0, 5),
)
def test_every_method_gives_them_back(shape: tuple[int, ...], size: int, zeros: float, seed: int) -> None:
    found = drawn(shape, size, zeros, seed)
    for name, data in symbols.every(found, size, size // 2).items():
        back = symbols.unpack(data, symbols.METHODS.index(name), shape, size, size // 2)
        assert np.array_equal(back, found) and back.dtype == np.int32, name
    method, data = symbols.pack(found, size, size // 2)
    assert len(data) == min(map(len, symbols.every(found, size, size // 2).values()))
    assert np.array_equal(symbols.unpack(data, method, shape, size, size // 2), found)


def test_which_is_chosen_follows_from_the_symbols() -> None:
    rng = np.random.default_rng(0)
    even = rng.integers(0, 16, (200, 200)).astype(np.int32)
    assert symbols.METHODS[symbols.pack(even, 16, None)[0]] == "bits"
    skewed = np.minimum(rng.geometric(0.4, (200, 200)), 15).astype(np.int32)
    assert symbols.METHODS[symbols.pack(skewed, 16, None)[0]] == "table"
    dead = drawn((200, 200), 16, 0.9, 0)
    dead[:100] = 8  # half of the rows are dead: a mask sees that, one table does not
    assert symbols.METHODS[symbols.pack(dead, 16, 8)[0]] == "mask"


def test_masked_symbols_are_within_two_percent_of_their_entropy() -> None:
    found = drawn((512, 512), 32, 0.9, 1)
    counts = np.bincount(found.ravel(), minlength=32)
    p = counts[counts > 0] / found.size
    entropy = -(p * np.log2(p)).sum() * found.size / 8
    assert len(symbols.pack(found, 32, 16)[1]) < 1.02 * entropy


@given(st.binary(max_size=60), st.integers(0, len(symbols.METHODS) - 1))
def test_other_bytes_are_refused(data: bytes, method: int) -> None:
    try:
        back = symbols.unpack(data, method, (4, 5), 7, 3)
    except ArchiveError:
        return
    assert back.shape == (4, 5) and 0 <= back.min() <= back.max() < 7


def test_every_shorter_file_is_refused() -> None:
    found = drawn((20, 20), 9, 0.5, 0)
    for name, data in symbols.every(found, 9, 4).items():
        for cut in {0, 1, len(data) // 2, len(data) - 1}:
            with pytest.raises(ArchiveError):
                symbols.unpack(data[:cut], symbols.METHODS.index(name), (20, 20), 9, 4)
