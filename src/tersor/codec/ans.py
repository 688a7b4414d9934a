"""Asymmetric numeral systems through `constriction`, with probabilities that are exact integers.

The library takes probabilities as floats and turns them into 24-bit integers as floor(p * (2**24 - K) / sum(p)) + 1.
Handing it the integers f - 1, whose sum is exactly 2**24 - K, makes that map the identity: f itself is used, on every
machine. A test asserts it against a coder in plain integers. Streams are little-endian 32-bit words.
"""

from __future__ import annotations

from collections.abc import Iterable

import constriction
import numpy as np
from numpy.typing import NDArray

from tersor.errors import ArchiveError

STREAM_BITS = 24
"""Precision of the coder's probabilities; tables of fewer bits are scaled up to it."""

END_MARK, END_BITS = 0xA53C, 16
"""What a stream ends with: without it, a coder that ran dry would go on with symbols nobody wrote."""


def model(table: NDArray[np.uint32], precision: int) -> constriction.stream.model.Categorical:
    """The library's model of one table [K], K >= 2, of frequencies that sum to 2**precision."""
    return constriction.stream.model.Categorical(_scaled(table, precision), lazy=False, perfect=False)


def _scaled(tables: NDArray[np.uint32], precision: int) -> NDArray[np.float64]:
    """What the library is given for tables [..., K]."""
    return ((tables.astype(np.int64) << (STREAM_BITS - precision)) - 1).astype(np.float64)


def encode(parts: Iterable[tuple[NDArray[np.int32], NDArray[np.uint32]]], precision: int) -> bytes:
    """Code parts (symbols, table of frequencies), each with its own table, into one stream; decoded in the same order.

    A table of one symbol costs nothing.
    """
    coder = new_coder()
    for symbols, table in reversed(list(parts)):
        if table.size > 1 and symbols.size:
            coder.encode_reverse(np.ascontiguousarray(symbols, dtype=np.int32), model(table, precision))
    return coder.get_compressed().astype("<u4").tobytes()


def decode(data: bytes, parts: Iterable[tuple[int, NDArray[np.uint32]]], precision: int) -> list[NDArray[np.int32]]:
    """Decode parts (count, table of frequencies) in order.

    Raises:
        ArchiveError: the stream does not end exactly with the last symbol.
    """
    coder = constriction.stream.stack.AnsCoder(words(data))
    out = []
    for count, table in parts:
        if table.size > 1 and count:
            out.append(coder.decode(model(table, precision), count))
        else:
            out.append(np.zeros(count, dtype=np.int32))
    if not at_end(coder):
        raise ArchiveError("a coded stream does not end with its last symbol")
    return out


def encode_each(
    parts: Iterable[tuple[NDArray[np.bool_], NDArray[np.int16]]], tables: NDArray[np.uint32], precision: int
) -> bytes:
    """Code parts (symbols, which of the tables [T, K] each takes) into one stream; `EachDecoder` reads it."""
    coder, family, scaled = new_coder(), _family(), _scaled(tables, precision)
    for symbols, which in reversed(list(parts)):
        coder.encode_reverse(symbols.astype(np.int32), family, scaled[which])
    return coder.get_compressed().astype("<u4").tobytes()


class EachDecoder:
    """Reads a stream whose symbols have tables of their own, which may depend on the symbols before.

    Args:
        data: the stream.
        tables: frequencies [T, K], K >= 2.
        precision: their sum is 2**precision.
    """

    def __init__(self, data: bytes, tables: NDArray[np.uint32], precision: int) -> None:
        self._coder = constriction.stream.stack.AnsCoder(words(data))
        self._family, self._scaled = _family(), _scaled(tables, precision)

    def next(self, which: NDArray[np.int16]) -> NDArray[np.int32]:
        """The next symbols, from their tables."""
        return np.asarray(self._coder.decode(self._family, self._scaled[which]))

    def finish(self) -> None:
        """Raises ArchiveError: symbols are left."""
        if not at_end(self._coder):
            raise ArchiveError("a coded stream does not end with its last symbol")


def _family() -> constriction.stream.model.Categorical:
    """The library's model whose table is given symbol by symbol."""
    return constriction.stream.model.Categorical(lazy=False, perfect=False)


def new_coder() -> constriction.stream.stack.AnsCoder:
    """A coder to encode with; it holds the end mark already, since what is pushed first comes out last."""
    coder = constriction.stream.stack.AnsCoder()
    coder.encode_reverse(END_MARK, constriction.stream.model.Uniform(1 << END_BITS))
    return coder


def at_end(coder: constriction.stream.stack.AnsCoder) -> bool:
    """Whether the end mark, and nothing else, is left to decode."""
    return int(coder.decode(constriction.stream.model.Uniform(1 << END_BITS))) == END_MARK and coder.is_empty()


def words(data: bytes) -> NDArray[np.uint32]:
    """The stream's words; a stream never ends with a zero word.

    Raises:
        ArchiveError: not a whole number of words, or a zero word at the end.
    """
    if len(data) % 4 or data[-4:] == b"\0\0\0\0":
        raise ArchiveError("a coded stream is damaged")
    return np.frombuffer(data, dtype="<u4").astype(np.uint32)
