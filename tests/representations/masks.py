"""Masks for tests, and a second reader of their sections, by the words of `docs/format.md` alone."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st

from tersor.codec import integers, tables

SHAPES = [
    (40,), (3, 5), (12, 16), (1, 300), (300, 1), (6, 8, 3, 3), (4, 1, 3, 3), (5, 12, 2, 2), (2, 3, 8), (7, 4, 1, 1),
    (2, 3, 40),
]  # fmt: skip


def made(shape: tuple[int, ...], kind: str, share: float, seed: int) -> np.ndarray:
    """A mask of a kind, of about that share of ones."""
    rng = np.random.default_rng(seed)
    rows, rest = shape[0], shape[1:]
    mask = rng.random(shape) < share
    if kind == "rows":
        mask &= (rng.random(rows) < 0.5).reshape(rows, *[1] * len(rest))
    if kind == "columns" and rest:
        mask &= (rng.random(rest[0]) < 0.5).reshape(1, rest[0], *[1] * (len(rest) - 1))
    if kind == "kernels" and len(rest) > 1:
        mask = np.broadcast_to(rng.random(shape[:2] + (1,) * (len(rest) - 1)) < share, shape).copy()
    if kind == "n of m" and mask.size % 4 == 0:
        flat = np.zeros((mask.size // 4, 4), dtype=bool)
        np.put_along_axis(flat, np.argsort(rng.random(flat.shape), axis=1)[:, :2], True, axis=1)
        mask = flat.reshape(shape)
    return mask


masks = st.builds(
    made,
    st.sampled_from(SHAPES),
    st.sampled_from(["plain", "rows", "columns", "kernels", "n of m"]),
    st.sampled_from([0.0, 0.01, 0.2, 0.5, 0.9, 1.0]),
    st.integers(0, 99),
)


def entropy(share: float) -> float:
    """Bits of one that is set with this probability."""
    return 0.0 if share in (0, 1) else -share * math.log2(share) - (1 - share) * math.log2(1 - share)


class Bits:
    """Bits from a stream, one at a time, in plain integers."""

    def __init__(self, data: bytes) -> None:
        self.words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
        self.state = 0
        self._refill()

    def _refill(self) -> None:
        while self.state < 1 << 32 and self.words:
            self.state = self.state << 32 | self.words.pop()

    def _pop(self, low: int, size: int) -> None:
        self.state = (self.state >> 24) * size + self.state % (1 << 24) - low
        self._refill()

    def next(self, odds: int) -> int:
        zero, one = (int(f) << 4 for f in tables.frequencies([max(odds, 0), max(-odds, 0)], 20))
        bit = self.state % (1 << 24) >= zero
        self._pop(zero if bit else 0, one if bit else zero)
        return int(bit)

    def at_end(self) -> bool:
        mark = self.state % (1 << 24) >> 8
        self._pop(mark << 8, 1 << 8)
        return mark == 0xA53C and self.state == 0 and not self.words


def by_the_page(data: bytes, shapes: list[tuple[int, ...]], counts: list[int]) -> list[np.ndarray]:
    """Masks of a section, bit by bit."""
    sizes = [math.prod(shape) for shape in shapes]
    coded = [i for i, (n, size) in enumerate(zip(counts, sizes, strict=True)) if 0 < n < size]
    out = [np.full(shape, n > 0) for shape, n in zip(shapes, counts, strict=True)]
    if not coded:
        assert data == b""
        return out
    first, second = int.from_bytes(data[:4], "little"), int.from_bytes(data[4:8], "little")
    settings = integers.unpack(data[8 : 8 + first], 7 * len(coded)).reshape(-1, 7).tolist()
    where = 0

    def effect(unit: int, count: int) -> list[int]:
        nonlocal where
        if unit == 0:
            return [0] * count
        where += count
        return [2 ** (unit - 1) * int(e) for e in effects[where - count : where]]

    dims, counted = [], []
    for i, (block, _, *units) in zip(coded, settings, strict=True):
        rows, length = _rows(shapes[i]), abs(block)
        dims.append((rows, sizes[i] // rows // length, length))
        counted.append(list(zip(units, (*dims[-1], length, length), strict=True)))
    effects = integers.unpack(data[8 + first : 8 + first + second], sum(n for c in counted for u, n in c if u))
    models = [[effect(u, n) for u, n in c] for c in counted]
    bits = Bits(data[8 + first + second :])
    for i, (rows, columns, length), (block, base, *_), model in zip(coded, dims, settings, models, strict=True):
        row, column, position, by_ones, by_zeros = model
        found = np.zeros((rows, columns, length), dtype=bool)
        for k in range(length):
            for y in range(rows):
                for x in range(columns):
                    ones = int(found[y, x, :k].sum())
                    odds = base + row[y] + column[x] + position[k] + by_ones[ones] + by_zeros[k - ones]
                    found[y, x, k] = bits.next(min(max(odds, -60), 60))
        if block < 0:  # along the inputs, one kernel position after the other
            found = found.reshape(rows, math.prod(shapes[i][2:]), -1).swapaxes(1, 2)
        out[i] = found.reshape(shapes[i])
    assert bits.at_end()
    return out


def _rows(shape: tuple[int, ...]) -> int:
    if len(shape) < 2:
        return 1
    matrices = len(shape) > 2 and math.prod(shape[2:]) > 32
    return math.prod(shape[:-1]) if matrices else shape[0]
