"""Codes of a codebook in words of a fixed width: bytes, two bytes, or as many codes as 63 bits hold.

Within a quarter of the bits that the codes take: a codebook of 256 has bytes, one of 65,536 two bytes, one of 512 seven
codes to a word of eight bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SLACK = 1.25
_WORD = 63  # bits, so that words are positive in signed arithmetic, which is what graphs have


@dataclass(frozen=True)
class Words:
    """Codes 0..size-1, packed.

    Attributes:
        data: uint8 or uint16 [count], or int64 [ceil(count / each)].
        size: codewords of the codebook.
        each: codes per word, the first in the lowest place of a number to the base `size`.
        count: codes.
    """

    data: NDArray[np.integer]
    size: int
    each: int
    count: int

    def codes(self) -> NDArray[np.int64]:
        """The codes again, int64 [count]."""
        if self.each == 1:
            return self.data.astype(np.int64)
        return (self.data[:, None] // powers(self.size, self.each) % self.size).reshape(-1)[: self.count]

    def part(self, first: int, count: int) -> Words:
        """The `count` codes from `first` on, in words of their own."""
        if self.each == 1:
            return Words(self.data[first : first + count], self.size, 1, count)
        begin, end = first // self.each, -(-(first + count) // self.each)
        codes = Words(self.data[begin:end], self.size, self.each, (end - begin) * self.each).codes()
        return pack(codes[first - begin * self.each :][:count], self.size)


def pack(codes: NDArray[np.integer], size: int) -> Words:
    """Pack codes [n] of a codebook of `size` codewords."""
    bits = max(np.log2(max(size, 2)), 1)
    for kind, width in ((np.uint8, 8), (np.uint16, 16)):
        if size <= 1 << width and width <= _SLACK * bits:
            return Words(codes.astype(kind), size, 1, len(codes))
    each = int(_WORD / bits)
    full = np.zeros(-(-len(codes) // each) * each, dtype=np.int64)
    full[: len(codes)] = codes
    return Words(full.reshape(-1, each) @ powers(size, each), size, each, len(codes))


def powers(size: int, each: int) -> NDArray[np.int64]:
    """Place values [each] of the codes in a word."""
    return np.array([size**i for i in range(each)], dtype=np.int64)
