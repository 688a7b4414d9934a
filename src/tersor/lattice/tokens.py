"""Tokens: magnitudes of the lattice stage as symbols of a small alphabet, large ones with uncoded bits behind.

Magnitudes below 16 have a token each. Above, a token is half an octave and the remaining bits follow uncoded: inside
half an octave a distribution is flat enough that coding them would gain nothing. The sign is one uncoded bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DIRECT = 16
MAX_MAGNITUDE = (1 << 23) - 1
MAX_TOKENS = 54


def token_of(magnitude: NDArray[np.int64]) -> NDArray[np.int64]:
    """Token of each magnitude (non-negative, at most `MAX_MAGNITUDE`)."""
    m = np.asarray(magnitude, dtype=np.int64)
    exponent = np.frexp(np.maximum(m, 1).astype(np.float64))[1].astype(np.int64) - 1
    half = m >> np.maximum(exponent - 1, 0) & 1
    return np.where(m < DIRECT, m, DIRECT + 2 * (exponent - 4) + half)


def raw_bits_of(token: NDArray[np.int64]) -> NDArray[np.int64]:
    """Uncoded bits behind each token: none for zero, the sign, and a mantissa from token 16 on."""
    t = np.asarray(token, dtype=np.int64)
    return np.where(t == 0, 0, np.where(t < DIRECT, 1, 4 + (t - DIRECT) // 2))


def smallest_of(token: NDArray[np.int64]) -> NDArray[np.int64]:
    """Smallest magnitude of each token."""
    t = np.asarray(token, dtype=np.int64)
    exponent = np.maximum((t - DIRECT) // 2 + 4, 1)
    return np.where(t < DIRECT, t, (2 + ((t - DIRECT) & 1)) << (exponent - 1))
