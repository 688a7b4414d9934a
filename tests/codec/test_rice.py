from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.codec import rice
from tersor.errors import ArchiveError

small = st.lists(st.integers(0, 40), max_size=60)
wide = st.lists(st.integers(0, (1 << 20) - 1), max_size=20)


def bits_of(values: list[int], k: int) -> str:
    """The definition: unary upper part, a zero, k lower bits."""
    return "".join("1" * (v >> k) + "0" + (format(v & ((1 << k) - 1), f"0{k}b") if k else "") for v in values)


@given(small | wide)
def test_unsigned_integers_come_back(values: list[int]) -> None:
    assert rice.unpack(rice.pack(values), len(values)).tolist() == values


@given(st.lists(st.integers(-(1 << 29) + 1, (1 << 29) - 1).map(lambda v: v >> 12) | st.integers(-9, 9), max_size=40))
def test_signed_integers_come_back(values: list[int]) -> None:
    assert rice.unpack(rice.pack(values, signed=True), len(values), signed=True).tolist() == values


def test_a_lone_large_integer_comes_back() -> None:
    for value in (2**30 - 1, -(2**30) + 1):
        assert rice.unpack(rice.pack([value], signed=True), 1, signed=True).tolist() == [value]


@given(small | wide)
def test_the_layout_is_the_definition_with_the_shortest_parameter(values: list[int]) -> None:
    data = rice.pack(values)
    if not values:
        assert data == b""
        return
    text = bits_of(values, data[0])
    assert len(text) == min(len(bits_of(values, k)) for k in range(21))
    assert np.unpackbits(np.frombuffer(data[1:], np.uint8)).tolist() == [
        int(b) for b in text.ljust(-(-len(text) // 8) * 8, "0")
    ]


@given(small | wide, st.integers(1, 5), st.integers(0, 255))
def test_bytes_cut_off_or_added_are_refused(values: list[int], count: int, byte: int) -> None:
    data = rice.pack(values)
    with pytest.raises(ArchiveError):
        rice.unpack(data + bytes([byte]) * count, len(values))
    for length in range(len(data)):
        with pytest.raises(ArchiveError):
            rice.unpack(data[:length], len(values))


@given(st.binary(max_size=30), st.integers(0, 300), st.booleans())
def test_arbitrary_bytes_give_the_count_or_an_error(data: bytes, count: int, signed: bool) -> None:
    try:
        assert rice.unpack(data, count, signed=signed).shape == (count,)
    except ArchiveError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("values", [[-1], [1 << 31], [0, -5]])
def test_what_has_no_code_is_the_callers_mistake(values: list[int]) -> None:
    with pytest.raises(ValueError):
        rice.pack(values)


@given(st.lists(st.integers(-(1 << 40), 1 << 40), max_size=20))
def test_zigzag_is_a_bijection_by_magnitude(values: list[int]) -> None:
    folded = rice.zigzag(np.array(values, dtype=np.int64))
    assert (folded >= 0).all() and rice.unzigzag(folded).tolist() == values
    assert rice.zigzag(np.array([0, -1, 1, -2, 2])).tolist() == [0, 1, 2, 3, 4]
