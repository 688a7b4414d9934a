"""Canonical Huffman codes: whole bits per symbol, decoded without a model of the numbers.

Only the code lengths are stored. Codes follow from them: symbols in the order of (length, symbol) take consecutive
binary numbers, a longer code going on where the shorter ones ended. So the first `MAX_LENGTH` bits of what is left,
read as one number, tell the length of the code that they begin with: they are compared with the first number of every
length. Codes stand most significant bit first; the last byte is filled with zeros.

Sources: Huffman, "A method for the construction of minimum-redundancy codes", 1952; lengths by package-merge, Larmore
and Hirschberg, "A fast algorithm for optimal length-limited Huffman codes", 1990; first-code tables as in Moffat and
Turpin, "On the implementation of minimum redundancy prefix codes", 1997.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tersor.errors import ArchiveError

MAX_LENGTH = 32
"""Longest code, bits. A shortest code wants more only where counts grow like Fibonacci's numbers, to nine million."""

_SLICE = 1 << 18  # symbols encoded at once, to bound memory
_CHUNK = 1 << 12  # bytes whose every bit is looked at, at once


def lengths(counts: ArrayLike, limit: int = MAX_LENGTH) -> NDArray[np.uint8]:
    """Lengths in bits, uint8 [K], of the shortest prefix code for symbols seen that often, none above `limit`.

    A symbol never seen gets 0, no code. One symbol alone gets a code of 1 bit. Where several codes are as short, it is
    the same one everywhere; of symbols with equal counts the later has no longer code.

    Raises:
        ValueError: a negative count, or more symbols than there are codes of `limit` bits.
    """
    c = np.asarray(counts, dtype=np.int64)
    out = np.zeros(c.size, dtype=np.uint8)
    used = np.flatnonzero(c)
    if (c.size and c.min() < 0) or used.size > 1 << limit:
        raise ValueError(f"no code of at most {limit} bits for these counts")
    rarest_first = used[np.argsort(c[used], kind="stable")]
    out[rarest_first] = _package_merge(c[rarest_first], limit)
    return out


def _package_merge(leaves: NDArray[np.int64], limit: int) -> NDArray[np.uint8]:
    """Lengths for counts in ascending order.

    A code of length l is l coins of one symbol, of values 1/2, 1/4, ... 2**-l, each at the price of the symbol's count;
    the cheapest coins worth n - 1 are bought. From the smallest value on, coins pair up to packages of the next.
    """
    n = leaves.size
    if n < 2:
        return np.ones(n, dtype=np.uint8)
    row, are_leaves = leaves, []
    for _ in range(min(limit, n - 1) - 1):
        packages = row[: row.size // 2 * 2].reshape(-1, 2).sum(axis=1)
        order = np.argsort(np.concatenate([leaves, packages]), kind="stable")
        row = np.concatenate([leaves, packages])[order]
        are_leaves.append(order < n)
    out = np.zeros(n, dtype=np.uint8)
    bought = 2 * n - 2
    for leaf in reversed(are_leaves):
        alone = int(np.count_nonzero(leaf[:bought]))
        out[:alone] += 1
        bought = 2 * (bought - alone)
    out[:bought] += 1
    return out


def codes(lengths: ArrayLike) -> NDArray[np.uint32]:
    """The codes, uint32 [K]: as many low bits as the symbol's length.

    Raises:
        ArchiveError: these are no lengths of a code.
    """
    table = _Table(lengths)
    out = np.zeros(table.lengths.size, dtype=np.uint32)
    own = table.lengths[table.symbols]
    out[table.symbols] = (table.first[own] >> MAX_LENGTH - own) + np.arange(own.size) - table.rank[own]
    return out


def encode(symbols: ArrayLike, lengths: ArrayLike) -> tuple[bytes, int]:
    """The codes of symbols (any shape, flattened), and how many bits they are.

    Raises:
        ValueError: a symbol without a code.
    """
    s = np.asarray(symbols, dtype=np.int64).ravel()
    own = np.asarray(lengths, dtype=np.int64)
    if s.size and (s.min() < 0 or s.max() >= own.size or not own[s].all()):
        raise ValueError("a symbol has no code")
    code = codes(own).astype(np.int64)
    out, count, rest = [], 0, np.zeros(0, dtype=np.uint8)
    for at in range(0, s.size, _SLICE):
        part = s[at : at + _SLICE]
        size = own[part]
        ends = np.cumsum(size)
        behind = np.repeat(ends, size) - 1 - np.arange(ends[-1])  # bits of the same code that follow
        bits = np.concatenate([rest, (np.repeat(code[part], size) >> behind & 1).astype(np.uint8)])
        whole = bits.size // 8 * 8
        out.append(np.packbits(bits[:whole]).tobytes())
        rest, count = bits[whole:], count + int(ends[-1])
    return b"".join([*out, np.packbits(rest).tobytes()]), count


def decode(data: bytes, lengths: ArrayLike, count: int) -> NDArray[np.int32]:
    """`count` symbols; all of `data` must be used.

    Raises:
        ArchiveError: these are no lengths of a code, or the bytes do not end with the last symbol.
    """
    decoder = Decoder(data, lengths)
    symbols = decoder.next(count)
    decoder.finish()
    return symbols


class _Table:
    """What a code's lengths say: symbols in canonical order, and where each length begins.

    Attributes:
        lengths: int64 [K].
        symbols: those with a code, by (length, symbol).
        longest: length of the longest code, 0 where there is none.
        first: per length 0 to longest + 1 its first code, filled with zeros to `MAX_LENGTH` bits.
        rank: per length how many codes are shorter.
    """

    def __init__(self, lengths: ArrayLike) -> None:
        self.lengths = np.asarray(lengths, dtype=np.int64).ravel()
        if self.lengths.size and (self.lengths.min() < 0 or self.lengths.max() > MAX_LENGTH):
            raise ArchiveError("a Huffman code has a length out of range")
        used = np.flatnonzero(self.lengths)
        self.symbols = used[np.argsort(self.lengths[used], kind="stable")]
        self.longest = int(self.lengths.max(initial=0))
        counts = np.bincount(self.lengths[used], minlength=self.longest + 1)
        shares = counts << MAX_LENGTH - np.arange(self.longest + 1)
        self.first = np.concatenate([[0], np.cumsum(shares)])
        self.rank = np.concatenate([[0], np.cumsum(counts)])
        full = self.first[-1] == 1 << MAX_LENGTH
        if not (full or used.size == 0 or (used.size == 1 and self.longest == 1)):
            raise ArchiveError("a Huffman code has lengths that do not fill it")


class Decoder:
    """Reads a stream of codes, some symbols at a time.

    The length of the code that would start at every bit of a chunk is found for all bits at once; what is left to do
    one by one is to go from each code to the next.

    Args:
        data: the stream.
        lengths: of the code [K].

    Raises:
        ArchiveError: these are no lengths of a code.
    """

    def __init__(self, data: bytes, lengths: ArrayLike) -> None:
        self._table = _Table(lengths)
        self._data = np.frombuffer(data + bytes(MAX_LENGTH // 8), dtype=np.uint8)
        self._size = 8 * len(data)
        self._at, self._start, self._end = 0, 0, 0
        self._ahead = self._own = np.zeros(0, dtype=np.int64)
        self._steps: list[int] = []

    def next(self, count: int) -> NDArray[np.int32]:
        """The next symbols.

        Raises:
            ArchiveError: there are not as many left.
        """
        if count > self._size - self._at:
            raise ArchiveError("a coded stream ends early")
        out, done = np.empty(count, dtype=np.int32), 0
        while done < count:
            found = self._some(count - done)
            out[done : done + found.size] = found
            done += found.size
        return out

    def finish(self) -> None:
        """Raises ArchiveError: more is left than the zeros that fill a byte."""
        left = self._size - self._at
        if left >= 8 or (left and int(self._data[self._size // 8 - 1]) & ((1 << left) - 1)):
            raise ArchiveError("a coded stream does not end with its last symbol")

    def _some(self, most: int) -> NDArray[np.int64]:
        """Some of the next symbols, at least one."""
        if self._at >= self._size:
            raise ArchiveError("a coded stream ends early")
        if self._at >= self._end:
            self._load()
        starts: list[int] = []
        at, end, steps = self._at - self._start, self._end - self._start, self._steps
        while at < end and len(starts) < most:
            starts.append(at)
            at += steps[at]
        self._at = self._start + at
        own, ahead, table = self._own[starts], self._ahead[starts], self._table
        if self._at > self._size or own.max() > table.longest:
            raise ArchiveError("a coded stream is damaged")
        return table.symbols[table.rank[own] + (ahead - table.first[own] >> MAX_LENGTH - own)]

    def _load(self) -> None:
        """Look ahead from every bit of the chunk in which the next code starts."""
        low = self._at // 8
        high = min(low + _CHUNK, self._size // 8)
        five = np.zeros(high - low, dtype=np.int64)
        for i in range(5):
            five = five << 8 | self._data[low + i : high + i]
        self._ahead = (five[:, None] >> np.arange(8, 0, -1) & (1 << MAX_LENGTH) - 1).ravel()
        self._own = np.searchsorted(self._table.first[2:], self._ahead, side="right") + 1
        self._steps = self._own.tolist()
        self._start, self._end = 8 * low, 8 * high
