"""Frequency tables of the lattice symbols: one per energy context and quantizer, and their short form in the file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tersor.codec import integers, tables
from tersor.errors import ArchiveError
from tersor.lattice import tokens

CONTEXTS = 48
"""Energy contexts; each stands once per quantizer in a table."""
PRECISION = 12
_BORROWED = 60.0  # symbols that a context takes from its neighbours; 4 to 80 differ by 0.01 dB


def laplacian(count: int) -> NDArray[np.float64]:
    """Token probabilities [2 * CONTEXTS, count] if levels were Laplacian with the mean of their context."""
    token = np.arange(count)
    first = tokens.smallest_of(token).astype(np.float64)
    width = tokens.smallest_of(token + 1) - first
    context = np.arange(CONTEXTS)
    mean = np.exp2((context - 1) / 2 + 2.25 - 12)[:, None] + 0.02
    rows = np.empty((CONTEXTS, 2, count))
    for quantizer in (0, 1):
        low = np.where(first == 0, 0.0, 2 * first - quantizer - 1)
        high = np.where(first == 0, 1.0 - 0.5 * quantizer, 2 * (first + width) - quantizer - 1)
        rows[:, quantizer] = np.exp(-low / mean) - np.exp(-high / mean)
    table = np.maximum(rows, 1e-12).reshape(2 * CONTEXTS, count)
    return table / table.sum(axis=1, keepdims=True)


def levels_from(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Table levels from counts [2 * CONTEXTS, tokens].

    A context seen seldom borrows from its neighbours, and tails follow the Laplacian, so that tables are smooth: that
    makes them short and leaves no symbol impossible.
    """
    c = counts.reshape(CONTEXTS, 2, -1).astype(np.float64)
    near = np.zeros_like(c)
    near[1:] += c[:-1]
    near[:-1] += c[1:]
    near += laplacian(c.shape[2]).reshape(c.shape)
    near /= near.sum(axis=2, keepdims=True)
    return tables.levels_of((c + _BORROWED * near).reshape(counts.shape))


def token_bits(levels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Bits of each token under table levels, uncoded bits included, float32 [2 * CONTEXTS, tokens]."""
    table = tables.frequencies(levels, PRECISION)
    coded = tables.bits(table, PRECISION) if levels.shape[1] > 1 else np.zeros(levels.shape, dtype=np.float32)
    return coded + tokens.raw_bits_of(np.arange(levels.shape[1])).astype(np.float32)


def pack(levels: NDArray[np.int64], counts: NDArray[np.int64]) -> bytes:
    """Table levels [2 * CONTEXTS, tokens] as bytes; contexts outside the range of those used are left out.

    Layout: three bytes (first context, number of contexts, number of tokens), then the differences of the levels
    along tokens and contexts, quantizer by quantizer, as `codec.integers` packs them.
    """
    used = np.flatnonzero(counts.reshape(CONTEXTS, -1).sum(axis=1))
    first, last = (int(used[0]), int(used[-1])) if used.size else (0, 0)
    part = levels.reshape(CONTEXTS, 2, -1)[first : last + 1].transpose(1, 0, 2)
    second = np.diff(np.diff(part, axis=2, prepend=0), axis=1, prepend=0)
    return bytes([first, last - first + 1, levels.shape[1]]) + integers.pack(second)


def unpack(data: bytes) -> NDArray[np.int64]:
    """Table levels [2 * CONTEXTS, tokens]; contexts left out repeat the nearest one stored.

    Raises:
        ArchiveError: the bytes are not what `pack` writes.
    """
    if len(data) < 3:
        raise ArchiveError("a lattice table is too short")
    first, count, size = data[:3]
    if count == 0 or first + count > CONTEXTS or not 1 <= size <= tokens.MAX_TOKENS:
        raise ArchiveError("a lattice table has a damaged head")
    second = integers.unpack(data[3:], 2 * count * size).reshape(2, count, size)
    part = np.cumsum(np.cumsum(second, axis=1), axis=2).transpose(1, 0, 2)
    if part.min() < 0 or part.max() > tables.MAX_LEVEL:
        raise ArchiveError("a lattice table has a level out of range")
    nearest = np.clip(np.arange(CONTEXTS) - first, 0, count - 1)
    return part[nearest].reshape(2 * CONTEXTS, size)
