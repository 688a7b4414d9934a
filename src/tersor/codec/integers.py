"""Arrays of integers whose distribution is worth a table: codebook entries, indices, levels.

Layout: one byte of mode. 0: Rice codes follow. 1: three Rice-coded integers (folded minimum, alphabet size, bytes of
the table's levels), each in a frame of one length byte, then the levels, then one ANS stream. The shorter is written.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tersor.codec import ans, rice, tables
from tersor.errors import ArchiveError

PRECISION = 20
MAX_ALPHABET = 1 << 16
_TABLE_FROM = 256  # shorter arrays cannot pay for a table


def pack(values: ArrayLike) -> bytes:
    """Code signed integers (any shape, flattened) into bytes; an empty array is no bytes."""
    v = np.asarray(values, dtype=np.int64).ravel()
    if v.size == 0:
        return b""
    plain = b"\0" + rice.pack(v, signed=True)
    low, size = int(v.min()), int(v.max()) - int(v.min()) + 1
    if v.size < _TABLE_FROM or size > min(MAX_ALPHABET, v.size):
        return plain
    levels = tables.levels_of(np.bincount(v - low, minlength=size))
    table = tables.frequencies(levels, PRECISION)
    packed = rice.pack(np.diff(levels, prepend=0), signed=True)
    head = b"".join(_frame(rice.pack([n], signed=True)) for n in (low, size, len(packed)))
    coded = b"\1" + head + packed + ans.encode([((v - low).astype(np.int32), table)], PRECISION)
    return min(plain, coded, key=len)


def unpack(data: bytes, count: int) -> NDArray[np.int64]:
    """Decode `count` integers, int64.

    Raises:
        ArchiveError: the bytes are not what `pack` writes for that many integers.
    """
    if count == 0 or not data:
        return rice.unpack(data, count)
    if data[0] == 0:
        return rice.unpack(data[1:], count, signed=True)
    if data[0] != 1:
        raise ArchiveError("an array of integers has an unknown mode")
    rest = data[1:]
    head = []
    for _ in range(3):
        length = rest[0] if rest else 0
        head.append(int(rice.unpack(rest[1 : 1 + length], 1, signed=True)[0]))
        rest = rest[1 + length :]
    low, size, table_bytes = head
    if not 1 <= size <= MAX_ALPHABET or not 0 <= table_bytes <= len(rest):
        raise ArchiveError("an array of integers has a damaged head")
    levels = np.cumsum(rice.unpack(rest[:table_bytes], size, signed=True))
    table = tables.frequencies(levels, PRECISION)
    return ans.decode(rest[table_bytes:], [(count, table)], PRECISION)[0].astype(np.int64) + low


def _frame(data: bytes) -> bytes:
    return bytes([len(data)]) + data
