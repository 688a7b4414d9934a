"""Cutting a tensor into short vectors, and back.

A tensor stands as [rows, cols, dim]: a row is an output channel (the first dimension; all but the last for stacks of
matrices), and along it lie `cols` vectors of `dim` values in storage order. Where `dim` does not divide a row, or a row
is very long, the tensor is one run of vectors, padded with zeros at its end.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tersor.lattice.planes import Shape

MAX_KERNEL = 32
_MAX_COLS = 1 << 16
_RUN_COLS = 1024


def kernel_size(shape: tuple[int, ...]) -> int:
    """Weights of one convolution kernel, 1 for matrices and whatever does not look like a convolution."""
    size = math.prod(shape[2:])
    return size if len(shape) > 2 and 1 < size <= MAX_KERNEL else 1


def arrange(shape: tuple[int, ...], dim: int) -> Shape:
    """How a non-empty tensor of this shape stands as vectors of `dim` values."""
    count = math.prod(shape)
    matrix = len(shape) < 3 or math.prod(shape[2:]) == 1
    rows = shape[0] if matrix or kernel_size(shape) > 1 else math.prod(shape[:-1])
    length = count // rows
    if len(shape) > 1 and length % dim == 0 and length // dim <= _MAX_COLS:
        return Shape(rows, length // dim, dim)
    vectors = -(-count // dim)
    cols = min(vectors, _RUN_COLS)
    return Shape(-(-vectors // cols), cols, dim)


def cut(values: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """Vectors [rows, cols, dim] of a tensor, zeros at the end where they do not fit; a view where they do."""
    shape = arrange(values.shape, dim)
    flat = values.reshape(-1)
    if flat.size < shape.size:
        flat = np.concatenate([flat, np.zeros(shape.size - flat.size, dtype=values.dtype)])
    return flat.reshape(shape)


def join(vectors: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The tensor of this shape from its vectors."""
    return vectors.reshape(-1)[: math.prod(shape)].reshape(shape)
