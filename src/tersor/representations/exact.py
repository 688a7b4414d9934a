"""Functions whose results are the same bits on every machine: integers, and float64 by exactly rounded operations only.

IEEE 754 rounds +, -, *, / and the square root correctly, so that they give the same bits everywhere. Libraries' exp and
cos do not, nor do sums and products of matrices, whose order varies with the number of threads and the width of
vectors. So here are polynomials evaluated by Horner's rule, and factorizations written as updates of elements, each of
which is one operation of NumPy on whole arrays (which does not fuse a product and a sum).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Words = NDArray[np.uint64]

_GOLDEN, _MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1
_HALF_PI = float.fromhex("0x1.921fb54442d18p+0")
_LN2_HIGH, _LN2_LOW = float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")
_LEAST = -700.0
_DEGREE = 18
_TILE = 128


def words(seed: int, start: int, count: int) -> Words:
    """Numbers start to start + count - 1 of a seed's sequence: SplitMix64 (Steele, Lea and Flood 2014), by counter.

    Number i is mix(mix(seed + g) + (i + 1) g) mod 2**64 with g = 0x9E3779B97F4A7C15; the inner mix sets neighbouring
    seeds apart.
    """
    base = int(_mix(np.array([(seed + _GOLDEN) & _MASK], dtype=np.uint64))[0])
    index = np.arange(start + 1, start + count + 1, dtype=np.uint64)
    return _mix(index * np.array([_GOLDEN], dtype=np.uint64) + np.array([base], dtype=np.uint64))


def _mix(x: Words) -> Words:
    x = (x ^ (x >> np.uint64(30))) * np.array([0xBF58476D1CE4E5B9], dtype=np.uint64)
    x = (x ^ (x >> np.uint64(27))) * np.array([0x94D049BB133111EB], dtype=np.uint64)
    return x ^ (x >> np.uint64(31))


def normals(seed: int, start: int, count: int) -> Floats:
    """Numbers start to start + count - 1 of nearly Gaussian ones, mean 0 and variance 1: sums of twelve uniform ones.

    Number i is (s - 393210) / 65536, s the sum of the twelve 16-bit parts of words 3 i, 3 i + 1 and 3 i + 2. Their
    kurtosis is 2.9 (of a Gaussian 3), and none lies beyond 6. Exact in float64.
    """
    parts = words(seed, 3 * start, 3 * count)
    total = np.zeros(count, dtype=np.uint64)
    for i in range(3):
        for shift in (0, 16, 32, 48):
            total += (parts[i::3] >> np.uint64(shift)) & np.uint64(0xFFFF)
    return (total.astype(np.float64) - 393210.0) / 65536.0


def subset(seed: int, column: int, count: int, size: int) -> NDArray[np.int64]:
    """`count` of the integers below `size`, rising: those whose words column * size + i are the smallest."""
    order = np.argsort(words(seed, column * size, size), kind="stable")
    return np.sort(order[:count]).astype(np.int64)


def cosine(numerator: NDArray[np.int64], denominator: int) -> Floats:
    """cos(pi / 2 * numerator / denominator); within 2 units in the last place of 1."""
    m = numerator % (4 * denominator)
    m = np.where(m > 2 * denominator, 4 * denominator - m, m)
    sign = np.where(m > denominator, -1.0, 1.0)
    m = np.where(m > denominator, 2 * denominator - m, m)
    late = 2 * m > denominator
    x = np.where(late, denominator - m, m).astype(np.float64) * _HALF_PI / float(denominator)
    square = x * x
    even, odd = np.zeros_like(x), np.zeros_like(x)
    for k in range(_DEGREE, -1, -2):
        factor = 1.0 if k % 4 == 0 else -1.0
        even = even * square + factor / float(math.factorial(k))
        odd = odd * square + factor / float(math.factorial(k + 1))
    return sign * np.where(late, odd * x, even)


def exp(x: Floats) -> Floats:
    """e to the power of numbers that are 0 or less; 0 below -700. Within 2 units in the last place."""
    clipped = np.maximum(x, _LEAST)
    n = np.floor(clipped * (1.0 / (_LN2_HIGH + _LN2_LOW)) + 0.5)
    r = (clipped - n * _LN2_HIGH) - n * _LN2_LOW
    out = np.zeros_like(r)
    for k in range(_DEGREE, -1, -1):
        out = out * r + 1.0 / float(math.factorial(k))
    return np.where(x < _LEAST, 0.0, np.ldexp(out, n.astype(np.int32)))


def solve(matrix: Floats, right: Floats) -> Floats | None:
    """X of matrix X = right, by Cholesky factors; None if the matrix is not positive definite.

    Args:
        matrix: [n, n], symmetric; only its lower half counts.
        right: [n, m].
    """
    low = _cholesky(matrix.copy())
    if low is None:
        return None
    parts = [right[:, i : i + _TILE].copy() for i in range(0, right.shape[1], _TILE)]
    for x in parts:
        for j in range(len(low)):
            x[j] /= low[j, j]
            x[j + 1 :] -= low[j + 1 :, j, None] * x[j]
        for j in range(len(low) - 1, -1, -1):
            x[j] /= low[j, j]
            x[:j] -= low[j, :j, None] * x[j]
    return np.concatenate(parts, 1)


def _cholesky(a: Floats) -> Floats | None:
    """The lower factor, in place. Every element is updated by columns in their order, tile by tile for the cache."""
    count = len(a)
    for start in range(0, count, _TILE):
        stop = min(start + _TILE, count)
        for j in range(start, stop):
            if not a[j, j] > 0:
                return None
            a[j:, j] /= np.sqrt(a[j, j])
            a[j + 1 :, j + 1 : stop] -= a[j + 1 :, j, None] * a[j + 1 : stop, j]
        columns = np.ascontiguousarray(a[:, start:stop].T)
        for row in range(stop, count, _TILE):
            for column in range(stop, row + 1, _TILE):
                tile = a[row : row + _TILE, column : column + _TILE]
                for line in columns:
                    tile -= line[row : row + _TILE, None] * line[column : column + _TILE]
    return a
