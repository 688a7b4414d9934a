"""Rice codes: short arrays of small integers in a few bits each, with one parameter for the array.

Layout: one byte k, then the codes, most significant bit first: the value's upper part in unary (that many ones and a
zero), its k lower bits. Signed arrays are zigzag-folded first (0, -1, 1, -2, ... become 0, 1, 2, 3, ...).
Source: Rice and Plaunt, "Adaptive variable-length coding for efficient compression of spacecraft television data",
1971.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tersor.errors import ArchiveError

MAX_PARAMETER = 30


def zigzag(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Fold signed integers into non-negative ones."""
    return np.where(values >= 0, 2 * values, -2 * values - 1)


def unzigzag(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Undo `zigzag`."""
    return np.where(values % 2 == 0, values // 2, -(values // 2) - 1)


def pack(values: ArrayLike, *, signed: bool = False) -> bytes:
    """Code integers (any shape, flattened) with the parameter that makes them shortest.

    Values are below 2**30 in magnitude, unsigned unless `signed`.
    """
    v = np.asarray(values, dtype=np.int64).ravel()
    if signed:
        v = zigzag(v)
    if v.size == 0:
        return b""
    if v.min() < 0 or v.max() >= 1 << 31:
        raise ValueError("Rice codes hold non-negative integers below 2**31")
    k = min(range(MAX_PARAMETER + 1), key=lambda p: int((v >> p).sum()) + p * v.size)
    ones = v >> k
    lengths = ones + 1 + k
    starts = np.concatenate([[0], np.cumsum(lengths)])
    bits = np.ones(int(starts[-1]), dtype=np.uint8)
    bits[starts[:-1] + ones] = 0
    for i in range(k):
        bits[starts[:-1] + ones + 1 + i] = (v >> (k - 1 - i)) & 1
    return bytes([k]) + np.packbits(bits).tobytes()


def unpack(data: bytes, count: int, *, signed: bool = False) -> NDArray[np.int64]:
    """Decode `count` integers, int64; all of `data` must be used.

    Raises:
        ArchiveError: the bytes end early, go on too long, or have a parameter out of range.
    """
    if count == 0:
        if data:
            raise ArchiveError("a list of integers is longer than its count")
        return np.zeros(0, dtype=np.int64)
    if not data or data[0] > MAX_PARAMETER or count > 8 * len(data):
        raise ArchiveError("a list of integers is damaged")
    k = data[0]
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8, offset=1))
    zeros = np.flatnonzero(bits == 0)
    ends = np.empty(count, dtype=np.int64)  # position of each code's unary zero
    position, pointer = 0, 0
    for i in range(count):
        pointer = int(np.searchsorted(zeros, position)) if k else i
        if pointer >= zeros.size:
            raise ArchiveError("a list of integers ends early")
        ends[i] = zeros[pointer]
        position = int(ends[i]) + 1 + k
    if position > bits.size or bits.size - position >= 8:
        raise ArchiveError("a list of integers has the wrong length")
    starts = np.concatenate([[0], ends[:-1] + 1 + k])
    values = (ends - starts) << k
    for i in range(k):
        values |= bits[ends + 1 + i].astype(np.int64) << (k - 1 - i)
    return unzigzag(values) if signed else values
