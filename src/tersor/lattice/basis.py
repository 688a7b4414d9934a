"""A basis shared by a group's vectors, in which their coefficients are uncorrelated (Karhunen-Loeve transform).

The nine weights of a 3x3 kernel are correlated (1.2 to 1.6 dB of coding gain on trained networks); integers for
coefficients in this basis cost that much less than integers for the weights. In the words of additive quantization:
the codewords are the integer multiples of `dim` basis vectors that all layers of the group share.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SCALE = 127
_COST_BITS = 8


def fit(vectors: list[NDArray[np.float32]]) -> NDArray[np.int8] | None:
    """The basis [dim, dim] of vectors [..., dim], columns by falling energy, entries in 1/127; None if not worth it.

    It is worth its bytes if the coding gain, half a log2 of arithmetic over geometric mean of the coefficients'
    energies per value, saves more bits than the entries cost.
    """
    dim = vectors[0].shape[-1]
    if dim == 1:
        return None
    covariance = np.zeros((dim, dim))
    for v in vectors:
        flat = v.reshape(-1, dim)
        for i in range(dim):
            for k in range(i + 1):
                covariance[i, k] += np.einsum("n,n->", flat[:, i], flat[:, k], dtype=np.float64)
    covariance += np.tril(covariance, -1).T
    if not covariance.trace() > 0:
        return None
    energies, axes = np.linalg.eigh(covariance)
    axes = axes[:, ::-1]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(dim)])
    basis = np.rint(axes * SCALE).astype(np.int8)
    if np.linalg.cond(basis.astype(np.float64)) > 2:
        return None
    floor = energies.max() * 1e-9
    gain = 0.5 * (np.log2(np.diag(covariance) + floor).mean() - np.log2(energies + floor).mean())
    return basis if gain * sum(v.size for v in vectors) > 2 * _COST_BITS * dim * dim else None


def analyse(vectors: NDArray[np.float32], basis: NDArray[np.int8]) -> NDArray[np.float32]:
    """Coefficients [..., dim] of vectors [..., dim]: the inverse of `synthesise`, up to rounding."""
    inverse = np.linalg.inv(basis.astype(np.float64) / SCALE).astype(np.float32)
    return _apply(np.moveaxis(vectors, -1, 0), inverse)


def synthesise(coefficients: NDArray[np.float32], basis: NDArray[np.int8]) -> NDArray[np.float32]:
    """Vectors [..., dim] from coefficients [dim, ...]: float32 products added in the order of the coefficients."""
    return _apply(coefficients, basis.astype(np.float32) / np.float32(SCALE))


def _apply(planes: NDArray[np.float32], matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Product with a matrix over the first axis, which becomes the last; the same bits on every machine."""
    out = np.empty((*planes.shape[1:], matrix.shape[0]), dtype=np.float32)
    for i in range(matrix.shape[0]):
        total = matrix[i, 0] * planes[0]
        for j in range(1, matrix.shape[1]):
            total += matrix[i, j] * planes[j]
        out[..., i] = total
    return out
