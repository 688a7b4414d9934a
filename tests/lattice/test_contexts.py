from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lattices import seeds

from tersor.codec import integers, tables
from tersor.errors import ArchiveError
from tersor.lattice import contexts, tokens, twin

ROWS = 2 * contexts.CONTEXTS


def counted(first: int, number: int, size: int, seed: int) -> np.ndarray:
    """Token counts in some neighbouring contexts only."""
    counts = np.zeros((contexts.CONTEXTS, 2, size), dtype=np.int64)
    counts[first : first + number] = np.random.default_rng(seed).geometric(0.01, (number, 2, size))
    return counts.reshape(ROWS, size)


@given(st.integers(0, 30), st.integers(1, 18), st.integers(1, tokens.MAX_TOKENS), seeds)
def test_tables_come_back_and_repeat_beyond_the_contexts_used(first: int, number: int, size: int, seed: int) -> None:
    counts = counted(first, number, size, seed)
    levels = contexts.levels_from(counts)
    found = contexts.unpack(contexts.pack(levels, counts))
    own = levels.reshape(contexts.CONTEXTS, 2, size)
    wanted = [own[min(max(c, first), first + number - 1)] for c in range(contexts.CONTEXTS)]
    np.testing.assert_array_equal(found.reshape(own.shape), wanted)


@given(st.integers(1, tokens.MAX_TOKENS), seeds)
def test_no_token_is_impossible_and_the_used_ones_are_cheap(size: int, seed: int) -> None:
    counts = counted(5, 10, size, seed)
    bits = contexts.token_bits(contexts.levels_from(counts))
    assert np.isfinite(bits).all()
    raw = tokens.raw_bits_of(np.arange(size))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    entropy = -(counts * np.log2(np.where(shares > 0, shares, 1))).sum() + (counts * raw).sum()
    assert entropy <= (counts * bits.astype(float)).sum() <= 1.1 * entropy + 200 * size


def test_contexts_are_half_octaves_of_the_energy() -> None:
    bounds = [16 * first << octave for octave in range(24) for first in (4, 6)]
    for i, bound in enumerate(bounds):
        assert [twin.context_of(bound + e) for e in (-1, 0)] == [min(i, 47), min(i + 1, 47)]
    assert twin.context_of(0) == 0 and contexts.CONTEXTS == 48


@given(st.integers(1, tokens.MAX_TOKENS))
def test_laplacian_rows_are_distributions_that_fall_off_slower_in_later_contexts(size: int) -> None:
    rows = contexts.laplacian(size)
    np.testing.assert_allclose(rows.sum(axis=1), 1)
    zero = rows[:, 0].reshape(contexts.CONTEXTS, 2)
    assert (np.diff(zero, axis=0) <= 1e-9).all()


def damaged(first: int, number: int, size: int, values: np.ndarray) -> bytes:
    return bytes([first, number, size]) + integers.pack(values)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0\1", damaged(0, 0, 5, np.zeros(0)), damaged(40, 9, 5, np.zeros(90)), damaged(0, 1, 0, np.zeros(0)),
        damaged(0, 1, 57, np.zeros(114)), damaged(0, 1, 5, np.zeros(2)), damaged(0, 1, 5, np.zeros(30)),
        damaged(0, 1, 5, np.full(10, tables.MAX_LEVEL)), damaged(0, 1, 5, np.full(10, -1)),
    ],
)  # fmt: skip
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ArchiveError):
        contexts.unpack(data)
