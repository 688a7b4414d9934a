"""Rows of integers as byte codes: each byte names a tuple of neighbours in a codebook that all rows of a class share.

Lattice levels at two bits have an entropy near two and a half bits, and no entropy coder at hand where a graph runs. A
codebook of the 255 most frequent tuples of `size` levels takes 8 / `size` bits per level; code 255 is an escape: the
tuple is one of a longer list, named by the next of the wider codes set aside. Rows choose their size: coefficients of
high energy take a byte or more each, dead ones a thirtieth of that. Nothing is lost.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

SIZES = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32)
ESCAPE = 255
_ROUNDS = 2
_SAMPLE, _LEAST = 1 << 21, 1 << 12  # integers of all rows, and of one at least, that choose classes and codebooks

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class TupleClass:
    """Rows that share a codebook.

    Attributes:
        size: integers per code; 0 where codes are positions in `Tuples.points` themselves.
        book: positions in `Tuples.points`, uint8, uint16 or int32 [K, size]; codes below `ESCAPE` are its first rows.
            None where `size` is 0.
        codes: uint8 [n] of all rows, one after the other (uint16 or int32 [n] where `size` is 0).
        escaped: rows of `book` that the codes `ESCAPE` stand for, in order, uint16 or int32 [e].
        rows: which rows, rising.
    """

    size: int
    book: NDArray[np.integer] | None
    codes: NDArray[np.integer]
    escaped: NDArray[np.integer]
    rows: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return self.codes.nbytes + self.escaped.nbytes + (0 if self.book is None else self.book.nbytes)

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """Where escapes are among the codes, rising, int64 [e]."""
        return np.flatnonzero(self.codes == ESCAPE) if self.size else np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Tuples:
    """Rows of integers, packed.

    Attributes:
        points: the distinct integers, rising, int64 [L].
        classes: in order of `size`.
        shapes: (lines, length) of each row; each line is filled up to whole tuples.
    """

    points: Integers
    classes: tuple[TupleClass, ...]
    shapes: tuple[tuple[int, int], ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all classes."""
        return sum(c.nbytes for c in self.classes)

    def rows(self) -> list[Integers]:
        """All rows again, int64 [lines, length]: what whoever decodes is tested against."""
        out: dict[int, Integers] = {}
        for kind in self.classes:
            flat = kind.codes.astype(np.int64)
            if kind.book is not None:
                flat[kind.places] = kind.escaped
                flat = kind.book[flat].reshape(-1).astype(np.int64)
            size, at = max(kind.size, 1), 0
            for r in kind.rows:
                lines, length = self.shapes[r]
                full = -(-length // size) * size
                out[r] = self.points[flat[at : at + lines * full].reshape(lines, full)[:, :length]]
                at += lines * full
        return [out[r] for r in range(len(self.shapes))]


Read = Callable[[], Iterable[NDArray[np.integer]]]


def pack(read: Read | Sequence[NDArray[np.integer]]) -> Tuples:
    """Pack integers [lines, length] of each row; lines begin with a code of their own.

    Args:
        read: the rows, or a function that gives them one after the other, each time the same: it is called twice, and
            no more than one row and a sample of the others is held.
    """
    again: Read = read if callable(read) else lambda: read
    seen = [_Seen(row) for row in again()]
    points = np.unique(np.concatenate([s.distinct for s in seen])) if seen else np.zeros(0, dtype=np.int64)
    zero = int(np.searchsorted(points, 0)) if 0 in points else 0
    budget = max(_LEAST, _SAMPLE // max(len(seen), 1))
    for s in seen:
        s.rank(points, budget)
    sizes, books = _choose(seen, len(points), zero)
    coders = {size: _Coder(size, books.get(size), len(points), zero) for size in sorted(set(sizes))}
    for r, (row, size) in enumerate(zip(again(), sizes, strict=True)):
        coders[size].add(r, np.searchsorted(points, row).reshape(row.shape))
    shapes = tuple(s.shape for s in seen)
    return Tuples(points, tuple(coder.finish() for coder in coders.values()), shapes)


class _Seen:
    """What the first pass keeps of a row: its shape, its distinct integers, its first lines as a sample."""

    def __init__(self, row: NDArray[np.integer]) -> None:
        self.shape = (int(row.shape[0]), int(row.shape[1]))
        self.distinct = np.unique(row).astype(np.int64)
        flat = row.reshape(-1)[: _SAMPLE >> 4]
        lines = len(flat) // self.shape[1] if self.shape[1] else 0
        cut = flat[: lines * self.shape[1]].reshape(lines, -1) if lines else flat[None]
        self.sample: NDArray[np.integer] = cut.astype(np.int32)
        self.low = self.high = 0

    def rank(self, points: Integers, budget: int) -> None:
        """Integers become their ranks among the points; the sample keeps about so many."""
        flat = self.sample.reshape(-1)[:budget]
        lines = len(flat) // self.sample.shape[1] if self.sample.shape[1] else 0
        sample = flat[: lines * self.sample.shape[1]].reshape(lines, -1) if lines else flat[None]
        self.sample = np.searchsorted(points, sample).reshape(sample.shape)
        if self.distinct.size:
            self.low, self.high = (int(np.searchsorted(points, self.distinct[i])) for i in (0, -1))

    @property
    def size(self) -> int:
        """Integers of the row."""
        return self.shape[0] * self.shape[1]

    @property
    def weight(self) -> float:
        """Integers for each in the sample."""
        return self.size / max(self.sample.size, 1)

    def fits(self, size: int, fill: int) -> bool:
        """Whether tuples of the row can be written as numbers (`_keys`)."""
        return max(self.high - fill, fill - self.low, 0) <= (_base(size) - 1) // 2


# ---------------------------------------------------------------------- which size
def _choose(rows: Sequence[_Seen], count: int, fill: int) -> tuple[list[int], dict[int, Integers]]:
    """Tuple size of each row, and the codebook (tuples as numbers, rising) of each size."""
    plain = _width(count)
    keys: list[Counted] = [
        {size: np.unique(_keys(r.sample, size, fill), return_counts=True) for size in SIZES if r.fits(size, fill)}
        for r in rows
    ]
    guess = [7 / max(_entropy(r.sample), 7 / SIZES[-1]) for r in rows]
    sizes = [min(counted, key=lambda size: abs(size - g), default=0) for counted, g in zip(keys, guess, strict=True)]
    for _ in range(_ROUNDS):
        books = _books(rows, sizes, keys)
        sizes = _best(rows, keys, books, plain)
    while set(sizes) - {0}:  # classes that do not earn their codebooks
        books = _books(rows, sizes, keys)
        total = _total(rows, keys, books, sizes, plain)
        without = {}
        for size in books:
            rest = {s: b for s, b in books.items() if s != size}
            moved = _best(rows, keys, rest, plain)
            without[size] = _total(rows, keys, rest, moved, plain), moved
        least = min(without, key=lambda size: without[size][0])
        if without[least][0] >= total:
            break
        sizes = without[least][1]
    books = _books(rows, sizes, keys)
    return [size if size in books else 0 for size in sizes], books


Counted = dict[int, tuple[Integers, Integers]]
"""Keys of the tuples of a row and how often each is there, by size."""


def _books(rows: Sequence[_Seen], sizes: list[int], keys: list[Counted]) -> dict[int, Integers]:
    """The most frequent tuples of each size in use."""
    books = {}
    for size in sorted(set(sizes) - {0}):
        mine = [i for i, s in enumerate(sizes) if s == size and keys[i][size][0].size]
        if not mine:
            continue
        every = np.concatenate([keys[i][size][0] for i in mine])
        often = np.concatenate([keys[i][size][1] * rows[i].weight for i in mine])
        distinct, where = np.unique(every, return_inverse=True)
        counts = np.bincount(where, weights=often, minlength=len(distinct))
        books[size] = np.sort(distinct[np.argsort(-counts, kind="stable")[:ESCAPE]])
    return books


def _cost(row: _Seen, keys: Counted, size: int, book: Integers | None, plain: int) -> float:
    """Bytes of a row in a class."""
    if size == 0:
        return float(row.size * plain)
    assert book is not None
    tuples, often = keys[size]
    away = ~_within(tuples, book)
    lines, length = row.shape
    longer = min(row.weight, 2.0) * float(away.sum()) * size * plain  # rare tuples seldom come twice
    return lines * -(-length // size) + 2 * row.weight * float(often[away].sum()) + longer


def _best(rows: Sequence[_Seen], keys: list[Counted], books: dict[int, Integers], plain: int) -> list[int]:
    """The cheapest of these sizes for each row."""
    out = []
    for row, counted in zip(rows, keys, strict=True):
        found = {s: _cost(row, counted, s, books.get(s), plain) for s in (0, *books) if s == 0 or s in counted}
        out.append(min(found, key=lambda s: found[s]))
    return out


def _total(
    rows: Sequence[_Seen], keys: list[Counted], books: dict[int, Integers], sizes: list[int], plain: int
) -> float:
    """Bytes of rows and codebooks."""
    entries = sum(size * len(book) for size, book in books.items()) * plain
    return entries + sum(_cost(r, k, s, books.get(s), plain) for r, k, s in zip(rows, keys, sizes, strict=True))


def _entropy(row: NDArray[np.integer]) -> float:
    """Bits per integer."""
    counts = np.unique(row, return_counts=True)[1]
    share = counts / max(row.size, 1)
    return float(-(share * np.log2(share)).sum())


# ---------------------------------------------------------------------- coding
def _keys(row: NDArray[np.integer], size: int, fill: int) -> Integers:
    """Tuples of a row [lines, length] as numbers, [lines * ceil(length / size)]: digits are distances from `fill`."""
    short = -row.shape[1] % size
    full = np.pad(row, ((0, 0), (0, short)), constant_values=fill).reshape(-1, size)
    return np.asarray((full - fill + _base(size) // 2) @ _powers(size))


def _base(size: int) -> int:
    """Of numbers whose `size` digits fit 62 bits."""
    return int(2 ** (62 / size))


def _powers(size: int) -> Integers:
    return np.array([_base(size) ** (size - 1 - i) for i in range(size)], dtype=np.int64)


def _digits(keys: Integers, size: int, fill: int) -> Integers:
    """Ranks [n, size] of tuples given as numbers."""
    return keys[:, None] // _powers(size) % _base(size) - _base(size) // 2 + fill


def _within(tuples: Integers, book: Integers) -> NDArray[np.bool_]:
    """Which tuples are in a book, which is sorted."""
    return np.asarray(book[np.minimum(np.searchsorted(book, tuples), len(book) - 1)] == tuples)


class _Coder:
    """Codes and escapes of the rows of a class, row by row."""

    def __init__(self, size: int, book: Integers | None, count: int, fill: int) -> None:
        self.size, self.book, self.count, self.fill = size, book, count, fill
        self.codes: list[NDArray[np.integer]] = []
        self.away: list[Integers] = []
        self.rows: list[int] = []

    def add(self, r: int, row: Integers) -> None:
        """The next row of the class, as ranks."""
        self.rows.append(r)
        if self.book is None:
            self.codes.append(row.reshape(-1).astype(_WIDTHS[_width(self.count)]))
            return
        keys = _keys(row, self.size, self.fill)
        code = np.minimum(np.searchsorted(self.book, keys), len(self.book) - 1)
        away = self.book[code] != keys
        self.codes.append(np.where(away, ESCAPE, code).astype(np.uint8))
        self.away.append(keys[away])

    def finish(self) -> TupleClass:
        """The class."""
        rows = tuple(self.rows)
        codes = np.concatenate(self.codes)
        self.codes.clear()
        if self.book is None:
            return TupleClass(0, None, codes, np.zeros(0, dtype=np.uint16), rows)
        longer, where = np.unique(np.concatenate(self.away), return_inverse=True)
        book = np.concatenate([np.resize(self.book, ESCAPE), longer]) if longer.size else self.book
        words = _digits(book, self.size, self.fill).astype(_WIDTHS[_width(self.count)])
        escaped = (ESCAPE + where).astype((np.uint16, np.int32)[len(book) > 1 << 16])
        return TupleClass(self.size, words, codes, escaped, rows)


_WIDTHS: dict[int, type[np.integer]] = {1: np.uint8, 2: np.uint16, 4: np.int32}


def _width(count: int) -> int:
    """Bytes of a position among so many."""
    return next(width for width, limit in zip((1, 2, 4), (1 << 8, 1 << 16, 1 << 31), strict=True) if count <= limit)


def starts(kind: TupleClass, shapes: Sequence[tuple[int, int]]) -> list[int]:
    """Where each row of a class begins among its codes, and where the last ends."""
    size = max(kind.size, 1)
    return [0, *itertools.accumulate(shapes[r][0] * -(-shapes[r][1] // size) for r in kind.rows)]
