from __future__ import annotations

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tersor.errors import ArchiveError
from tersor.representations import kept

sizes = st.sampled_from([1, 2, 4, 8, 16])


@st.composite
def values(draw: st.DrawFn) -> tuple[bytes, int]:
    """Bytes of whole values and their size; often compressible."""
    size, count = draw(sizes), draw(st.integers(0, 60))
    unit = draw(st.binary(min_size=size, max_size=size))
    return draw(st.just(unit * count) | st.binary(min_size=size * count, max_size=size * count)), size


def plane(data: bytes, flag: int = 0) -> bytes:
    return (len(data) | flag << 31).to_bytes(4, "little") + data


@given(values())
def test_values_come_back(given_values: tuple[bytes, int]) -> None:
    data, size = given_values
    assert kept.unpack(kept.pack(data, size), size, len(data) // size) == data


@given(values())
def test_packing_costs_at_most_four_bytes_a_plane(given_values: tuple[bytes, int]) -> None:
    data, size = given_values
    assert len(kept.pack(data, size)) <= len(data) + 4 * size


def test_floats_of_like_size_and_small_integers_shrink() -> None:
    rng = np.random.default_rng(0)
    floats = rng.uniform(1, 2, 4000).astype(np.float32).tobytes()
    assert len(kept.pack(floats, 4)) < 0.8 * len(floats)
    integers = rng.integers(0, 100, 4000).tobytes()
    assert len(kept.pack(integers, 8)) < 0.12 * len(integers)


@settings(max_examples=30)
@given(values())
def test_cuts_additions_and_other_counts_are_refused(given_values: tuple[bytes, int]) -> None:
    data, size = given_values
    packed, count = kept.pack(data, size), len(data) // size
    damaged = [(packed[:n], count) for n in range(len(packed))] + [(packed + b"\0", count), (packed, count + 1)]
    for wrong, number in damaged:
        with pytest.raises(ArchiveError):
            kept.unpack(wrong, size, number)


@settings(max_examples=200)
@given(values(), st.integers(0, 10**6), st.integers(1, 255))
def test_a_flipped_byte_gives_the_count_or_an_error(given_values: tuple[bytes, int], at: int, flip: int) -> None:
    data, size = given_values
    packed = bytearray(kept.pack(data, size))
    packed[at % len(packed)] ^= flip
    try:
        assert len(kept.unpack(bytes(packed), size, len(data) // size)) == len(data)
    except ArchiveError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\1", plane(b"ab"), plane(b"abcd"), plane(b"abc") + b"x", plane(b"abc", 1),
        (1 << 31).to_bytes(4, "little"),
        b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f" + b"abc", plane(zstandard.compress(bytes(1 << 20)), 1),
        plane(zstandard.compress(b"abc")[:-1], 1),
        plane(zstandard.ZstdCompressor(write_content_size=False).compress(b"abc"), 1),
    ],
)  # fmt: skip
def test_hostile_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ArchiveError):
        kept.unpack(data, 1, 3)
