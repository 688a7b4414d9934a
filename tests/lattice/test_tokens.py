from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tersor.lattice import tokens

magnitudes = st.integers(0, tokens.MAX_MAGNITUDE)


@given(st.lists(magnitudes | magnitudes.map(lambda m: m >> 12), min_size=1))
def test_a_token_and_its_bits_give_the_magnitude(values: list[int]) -> None:
    magnitude = np.array(values)
    token = tokens.token_of(magnitude)
    behind = magnitude - tokens.smallest_of(token)
    mantissa_bits = np.maximum(tokens.raw_bits_of(token) - 1, 0)  # one bit is the sign
    assert (behind >= 0).all() and (behind < 1 << mantissa_bits).all()
    assert token.max() < tokens.MAX_TOKENS


def test_tokens_divide_the_magnitudes_without_gaps() -> None:
    token = np.arange(tokens.MAX_TOKENS)
    first, bits = tokens.smallest_of(token), tokens.raw_bits_of(token)
    width = 1 << np.maximum(bits - 1, 0)
    assert first[0] == 0 and (first[1:] == (first + width)[:-1]).all()
    assert (tokens.token_of(first) == token).all() and (tokens.token_of(first + width - 1) == token).all()


def test_small_magnitudes_are_their_tokens_and_zero_has_no_sign() -> None:
    small = np.arange(tokens.DIRECT)
    assert (tokens.token_of(small) == small).all()
    assert tokens.raw_bits_of(small).tolist() == [0] + [1] * (tokens.DIRECT - 1)


def test_uncoded_bits_fit_the_coder() -> None:
    assert tokens.raw_bits_of(np.arange(tokens.MAX_TOKENS)).max() <= 24
