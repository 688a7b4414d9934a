from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.additive.scheme import Scheme
from tersor.errors import TersorError


@given(st.integers(1, 16), st.integers(2, 65536), st.integers(1, 256))
def test_text_and_scheme_are_the_same(stages: int, size: int, dims: int) -> None:
    scheme = Scheme(stages, size, dims)
    assert str(scheme) == f"{stages}x{size}d{dims}"
    assert Scheme.parse(str(scheme)) == scheme


def test_fixed_rate() -> None:
    scheme = Scheme.parse("3x256d8")
    assert scheme.bits_per_vector == 24
    assert scheme.bits_per_weight == 3
    assert scheme.codebook_entries == 3 * 256 * 8


@pytest.mark.parametrize("text", ["", "4x128", "x128d9", "4x128d9d", "-4x128d9", "4x128d9 8", "4×128d9", "four"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(TersorError, match="4x128d9"):
        Scheme.parse(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("0x128d9", "num_codebooks"),
        ("17x128d9", "num_codebooks"),
        ("4x1d9", "codebook_size"),
        ("4x65537d9", "codebook_size"),
        ("4x128d0", "vector_dim"),
        ("4x128d257", "vector_dim"),
    ],
)
def test_numbers_outside_their_limits_are_refused(text: str, name: str) -> None:
    with pytest.raises(TersorError, match=name):
        Scheme.parse(text)
