from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tersor.codec import ans, tables
from tersor.errors import ArchiveError

Parts = list[tuple[np.ndarray, np.ndarray]]


def plain_encode(parts: Parts, precision: int) -> bytes:
    """A coder in unbounded integers: 64-bit state, 32-bit words, 24-bit probabilities, last symbol first.

    The end mark comes before all: with a state of 0, pushing 16 bits leaves the mark in the upper ones of 24.
    """
    state, words = 0xA53C << 8, []
    for symbols, table in reversed(parts):
        f = [int(v) << (24 - precision) for v in table]
        for symbol in reversed(symbols.tolist() if len(f) > 1 else []):
            if state >> 40 >= f[symbol]:
                words.append(state & 0xFFFFFFFF)
                state >>= 32
            state = (state // f[symbol] << 24) + sum(f[:symbol]) + state % f[symbol]
    while state:
        words.append(state & 0xFFFFFFFF)
        state >>= 32
    return b"".join(word.to_bytes(4, "little") for word in words)


@st.composite
def streams(draw: st.DrawFn) -> tuple[Parts, int]:
    """A few arrays of symbols, each with a table that need not fit it."""
    precision = draw(st.sampled_from([8, 12, 20, 24]))
    parts = []
    for _ in range(draw(st.integers(0, 4))):
        levels = draw(st.lists(st.integers(0, tables.MAX_LEVEL), min_size=1, max_size=30))
        symbols = draw(st.lists(st.integers(0, len(levels) - 1), max_size=60))
        parts.append((np.array(symbols, dtype=np.int32), tables.frequencies(levels, precision)))
    return parts, precision


def sizes(parts: Parts) -> list[tuple[int, np.ndarray]]:
    return [(len(symbols), table) for symbols, table in parts]


@given(streams())
def test_symbols_come_back(stream: tuple[Parts, int]) -> None:
    parts, precision = stream
    decoded = ans.decode(ans.encode(parts, precision), sizes(parts), precision)
    assert [d.tolist() for d in decoded] == [symbols.tolist() for symbols, _ in parts]


@settings(max_examples=200)
@given(streams())
def test_the_probabilities_are_the_integers_themselves(stream: tuple[Parts, int]) -> None:
    assert ans.encode(*stream) == plain_encode(*stream)


@pytest.mark.parametrize("size", [2, 3, 257, 4096, 60000])
def test_so_they_are_for_large_alphabets(size: int) -> None:
    rng = np.random.default_rng(size)
    table = tables.frequencies(rng.integers(0, 61, size), 20)
    symbols = rng.integers(0, size, 50).astype(np.int32)
    assert ans.encode([(symbols, table)], 20) == plain_encode([(symbols, table)], 20)


@given(streams(), st.integers(1, 2**32 - 1))
def test_a_word_cut_off_or_added_is_refused_or_gives_other_symbols(stream: tuple[Parts, int], word: int) -> None:
    parts, precision = stream
    data = ans.encode(parts, precision)
    for damaged in {data[4:], data[:-4], data + word.to_bytes(4, "little"), word.to_bytes(4, "little") + data} - {data}:
        try:
            decoded = ans.decode(damaged, sizes(parts), precision)
        except ArchiveError:
            continue
        assert [d.size for d in decoded] == [symbols.size for symbols, _ in parts]
        assert any(d.tolist() != symbols.tolist() for d, (symbols, _) in zip(decoded, parts, strict=True))


@pytest.mark.parametrize("data", [b"\1", b"\1\2\3", b"\1\0\0\0\1", b"\0\0\0\0", b"\1\0\0\0\0\0\0\0"])
def test_a_stream_of_no_coder_is_refused(data: bytes) -> None:
    with pytest.raises(ArchiveError):
        ans.words(data)


def test_a_stream_longer_than_its_symbols_is_refused() -> None:
    table = tables.frequencies([0, 4, 8], 12)
    data = ans.encode([(np.tile(np.arange(3, dtype=np.int32), 50), table)], 12)
    with pytest.raises(ArchiveError):
        ans.decode(data, [(100, table)], 12)
    with pytest.raises(ArchiveError):
        ans.decode(data, [(150, tables.frequencies([0], 12))], 12)


@given(st.lists(st.lists(st.tuples(st.integers(0, 120), st.booleans()), max_size=40), max_size=4), st.integers(8, 24))
def test_symbols_with_tables_of_their_own_are_coded_as_if_each_were_a_part(
    parts: list[list[tuple[int, bool]]], precision: int
) -> None:
    odds = np.arange(-60, 61)
    table = tables.frequencies(np.stack([np.maximum(odds, 0), np.maximum(-odds, 0)], axis=1), precision)
    which = [np.array([t for t, _ in part], dtype=np.int16) for part in parts]
    bits = [np.array([b for _, b in part], dtype=np.bool_) for part in parts]
    data = ans.encode_each(list(zip(bits, which, strict=True)), table, precision)
    assert data == plain_encode([(np.array([b]), table[t]) for part in parts for t, b in part], precision)
    decoder = ans.EachDecoder(data, table, precision)
    assert [decoder.next(w).tolist() for w in which] == [b.tolist() for b in bits]
    decoder.finish()


def test_a_decoder_of_each_that_stops_early_is_refused() -> None:
    table = tables.frequencies([[0, 0], [0, 9]], 20)
    which = np.tile(np.array([0, 1], dtype=np.int16), 50)
    decoder = ans.EachDecoder(ans.encode_each([(which > 0, which)], table, 20), table, 20)
    decoder.next(which[:-1])
    with pytest.raises(ArchiveError):
        decoder.finish()
