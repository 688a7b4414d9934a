from __future__ import annotations

import heapq
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tersor.codec import huffman
from tersor.errors import ArchiveError

counts = st.lists(st.integers(0, 3) | st.integers(0, 10**6), max_size=40)
seen = counts.filter(lambda c: sum(1 for n in c if n) > 1)


def kraft(lengths: np.ndarray) -> Fraction:
    return sum((Fraction(1, 1 << int(n)) for n in lengths if n), Fraction(0))


def least_bits(found: list[int]) -> int:
    """Bits of the whole text under Huffman's own construction."""
    heap = [n for n in found if n]
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        both = heapq.heappop(heap) + heapq.heappop(heap)
        total += both
        heapq.heappush(heap, both)
    return total


def canonical(lengths: np.ndarray) -> dict[int, str]:
    """The definition: consecutive binary numbers in the order of (length, symbol)."""
    out, code, last = {}, -1, 0
    for length, symbol in sorted((int(n), s) for s, n in enumerate(lengths) if n):
        code = (code + 1) << length - last
        last = length
        out[symbol] = format(code, f"0{length}b")
    return out


def skewed(size: int, count: int, share: float, seed: int) -> np.ndarray:
    """Symbols of which those with a higher number are rarer."""
    found = np.random.default_rng(seed).geometric(share, count) - 1
    return np.minimum(found, size - 1)


texts = st.builds(
    skewed, st.integers(1, 60), st.integers(0, 500), st.sampled_from([0.05, 0.3, 0.6, 0.95]), st.integers(0, 99)
)


def coded(symbols: np.ndarray, size: int = 60) -> tuple[bytes, np.ndarray]:
    lengths = huffman.lengths(np.bincount(symbols, minlength=size))
    return huffman.encode(symbols, lengths)[0], lengths


@given(seen)
def test_codes_are_as_short_as_huffmans_and_fill_the_space(found: list[int]) -> None:
    lengths = huffman.lengths(found)
    assert lengths.dtype == np.uint8 and kraft(lengths) == 1
    assert sum(n * int(length) for n, length in zip(found, lengths, strict=True)) == least_bits(found)
    assert [length > 0 for length in lengths] == [n > 0 for n in found]


@given(seen)
def test_the_mean_length_is_within_a_bit_of_the_entropy(found: list[int]) -> None:
    lengths, shares = huffman.lengths(found), np.array(found) / sum(found)
    entropy = -(shares[shares > 0] * np.log2(shares[shares > 0])).sum()
    assert entropy - 1e-9 <= shares @ lengths < entropy + 1


@settings(max_examples=30)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=5), st.integers(1, 4))
def test_a_limit_leaves_the_best_code_within_it(found: list[int], limit: int) -> None:
    if len(found) > 1 << limit:
        with pytest.raises(ValueError):
            huffman.lengths(found, limit)
        return
    lengths = huffman.lengths(found, limit)
    assert lengths.max() <= limit and kraft(lengths) == 1
    every = (np.array(tried) for tried in product(range(1, limit + 1), repeat=len(found)))
    assert np.dot(found, lengths) == min(np.dot(found, tried) for tried in every if kraft(tried) <= 1)


def test_counts_like_fibonaccis_numbers_stay_within_the_limit() -> None:
    found = [1, 1]
    while len(found) < 50:
        found.append(found[-1] + found[-2])
    lengths = huffman.lengths(found)
    assert lengths.max() == huffman.MAX_LENGTH and kraft(lengths) == 1
    assert huffman.lengths(found[:33]).max() == 32
    assert np.dot(found[:33], huffman.lengths(found[:33]).astype(int)) == least_bits(found[:33])


def test_few_symbols_have_the_codes_one_expects() -> None:
    assert huffman.lengths([]).tolist() == [] and huffman.lengths([0, 0]).tolist() == [0, 0]
    assert huffman.lengths([0, 7, 0]).tolist() == [0, 1, 0]
    assert huffman.lengths([5, 5]).tolist() == [1, 1]
    assert huffman.lengths([1, 2, 4, 8]).tolist() == [3, 3, 2, 1]
    assert huffman.lengths([1] * 5).tolist() == [3, 3, 2, 2, 2]


@given(counts)
def test_codes_are_canonical_and_prefix_free(found: list[int]) -> None:
    lengths = huffman.lengths(found)
    codes, expected = huffman.codes(lengths), canonical(lengths)
    assert {s: format(codes[s], f"0{n}b") for s, n in enumerate(lengths.tolist()) if n} == expected
    texts = sorted(expected.values())
    assert not any(b.startswith(a) for a, b in pairwise(texts))


@given(texts)
def test_symbols_come_back(symbols: np.ndarray) -> None:
    data, lengths = coded(symbols)
    decoded = huffman.decode(data, lengths, symbols.size)
    assert decoded.dtype == np.int32 and decoded.tolist() == symbols.tolist()


@given(texts)
def test_the_stream_is_the_definition(symbols: np.ndarray) -> None:
    lengths = huffman.lengths(np.bincount(symbols, minlength=60))
    data, count = huffman.encode(symbols, lengths)
    text = "".join(canonical(lengths)[s] for s in symbols.tolist())
    assert count == len(text) == np.bincount(symbols, minlength=60) @ lengths
    assert "".join(format(byte, "08b") for byte in data) == text.ljust(-(-len(text) // 8) * 8, "0")


@given(texts, st.lists(st.integers(0, 60), max_size=30))
def test_symbols_are_read_in_parts_over_the_borders_of_chunks(symbols: np.ndarray, parts: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huffman, "_SLICE", 37)
        patch.setattr(huffman, "_CHUNK", 5)
        data, lengths = coded(symbols)
        decoder = huffman.Decoder(data, lengths)
        ends = np.minimum(np.cumsum([*parts, symbols.size]), symbols.size)
        decoded = [decoder.next(int(n)) for n in np.diff(ends, prepend=0)]
        decoder.finish()
    assert data == coded(symbols)[0]
    assert np.concatenate(decoded).tolist() == symbols.tolist()


def test_codes_of_every_length_come_back() -> None:
    lengths = np.array([*range(1, 33), 32], dtype=np.uint8)
    symbols = np.random.default_rng(0).permutation(np.repeat(np.arange(33), 40))
    data, count = huffman.encode(symbols, lengths)
    assert count == 40 * lengths.sum(dtype=int)
    assert huffman.decode(data, lengths, symbols.size).tolist() == symbols.tolist()


def test_bytes_of_a_short_text() -> None:
    # a, b, r, c, d, with counts 5, 2, 2, 1, 1 and the codes 0, 100, 101, 110, 111: 0 100 101 0 110 0 111 0 100 101 0
    lengths = huffman.lengths([5, 2, 2, 1, 1])
    assert lengths.tolist() == [1, 3, 3, 3, 3]
    text = ["abrcd".index(letter) for letter in "abracadabra"]
    assert huffman.encode(text, lengths) == (bytes([0b01001010, 0b11001110, 0b10010100]), 23)


@given(texts, st.integers(0, 255))
def test_bytes_cut_off_or_added_are_refused(symbols: np.ndarray, byte: int) -> None:
    data, lengths = coded(symbols)
    for damaged in [data[:n] for n in range(len(data))] + [data + bytes([byte])]:
        with pytest.raises(ArchiveError):
            huffman.decode(damaged, lengths, symbols.size)


@given(texts, st.integers(0, 10**6), st.integers(1, 255))
def test_a_flipped_byte_gives_the_count_or_an_error(symbols: np.ndarray, at: int, flip: int) -> None:
    data, lengths = coded(symbols)
    damaged = bytearray(data or b"\0")
    damaged[at % len(damaged)] ^= flip
    try:
        decoded = huffman.decode(bytes(damaged), lengths, symbols.size)
    except ArchiveError as error:
        assert "\n" not in str(error)
    else:
        assert decoded.size == symbols.size and (lengths[decoded] > 0).all()


@settings(max_examples=200)
@given(st.lists(st.integers(-1, 4) | st.integers(-(2**40), 2**40), max_size=8), st.binary(max_size=20))
def test_arbitrary_lengths_are_a_full_code_or_refused(lengths: list[int], data: bytes) -> None:
    try:
        decoder = huffman.Decoder(data, lengths)
    except ArchiveError as error:
        assert "\n" not in str(error)
        return
    assert kraft(np.array(lengths)) == 1 or sorted(lengths)[-1:] in ([0], [1], [])
    try:
        assert decoder.next(len(data)).size == len(data)
    except ArchiveError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("lengths", [[1, 1, 1], [1, 2], [2, 2, 2], [33, 1], [-1, 1], [0, 2], [1, 2, 3, 3, 3]])
def test_lengths_that_are_no_code_are_refused(lengths: list[int]) -> None:
    with pytest.raises(ArchiveError):
        huffman.codes(lengths)
    with pytest.raises(ArchiveError):
        huffman.decode(b"\0" * 9, lengths, 3)


def test_more_symbols_than_bits_are_refused_before_memory_is_taken() -> None:
    with pytest.raises(ArchiveError, match="early"):
        huffman.decode(b"\0" * 4, [1, 1], 10**15)


def test_what_no_code_writes_is_refused() -> None:
    for data, lengths, count in (
        (b"\x10", [0, 1], 4),  # the code of one symbol alone is a zero
        (b"\x01", [1, 1], 4),  # a byte is filled with zeros
        (b"\0", [0, 0], 1),
        (b"", [1, 1], 1),
        (b"\0", [1, 1], 0),
    ):
        with pytest.raises(ArchiveError):
            huffman.decode(data, lengths, count)
    assert huffman.decode(b"", [0, 0], 0).size == 0


@pytest.mark.parametrize("symbols", [[2], [-1], [3]])
def test_a_symbol_without_a_code_is_the_callers_mistake(symbols: list[int]) -> None:
    with pytest.raises(ValueError):
        huffman.encode(symbols, [1, 1, 0])
    with pytest.raises(ValueError):
        huffman.lengths([1, -1])
