"""Cutting a tensor into short vectors, and back.

A tensor stands as [rows, cols, dim]: a row is an output channel (the first dimension; all but the last for stacks of
matrices), and along it lie `cols` vectors of `dim` values in storage order. Where `dim` does not divide a row, or a row
is very long, the tensor is one run of vectors, padded with zeros at its end. What a mask leaves is a run too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tersor.lattice.planes import Planes, Shape, chunk_count, plan_planes

MAX_KERNEL = 32
_MAX_COLS = 1 << 16
_RUN_COLS = 1024


def kernel_size(shape: tuple[int, ...]) -> int:
    """Weights of one convolution kernel, 1 for matrices and whatever does not look like a convolution."""
    size = math.prod(shape[2:])
    return size if len(shape) > 2 and 1 < size <= MAX_KERNEL else 1


def rows_of(shape: tuple[int, ...]) -> int:
    """Output channels of a non-empty tensor: the first dimension, or all but the last for stacks of matrices."""
    if len(shape) < 2:
        return 1
    matrix = len(shape) < 3 or math.prod(shape[2:]) == 1
    return shape[0] if matrix or kernel_size(shape) > 1 else math.prod(shape[:-1])


def arrange(shape: tuple[int, ...], dim: int) -> Shape:
    """How a non-empty tensor of this shape stands as vectors of `dim` values."""
    count = math.prod(shape)
    length = count // rows_of(shape)
    if len(shape) > 1 and length % dim == 0 and length // dim <= _MAX_COLS:
        return Shape(rows_of(shape), length // dim, dim)
    vectors = -(-count // dim)
    cols = min(vectors, _RUN_COLS)
    return Shape(-(-vectors // cols), cols, dim)


def run(count: int, dim: int) -> Shape:
    """How `count` survivors of a sparse tensor stand as vectors of `dim` values: in few long rows, none if none."""
    vectors = -(-count // dim)
    rows = -(-vectors // _MAX_COLS)
    return Shape(rows, -(-vectors // max(rows, 1)), dim)


def layout(shapes: Sequence[tuple[int, ...]], dim: int, survivors: Sequence[int] | None = None) -> Planes:
    """The scan order of a group of tensors; of a sparse one, from the number of survivors in each.

    A sparse tensor of which everything survives stands as any other does.
    """
    return plan_planes(_arranged(shapes, dim, survivors))


def chunks(shapes: Sequence[tuple[int, ...]], dim: int, survivors: Sequence[int] | None = None) -> int:
    """The number of chunks in the scan order of a group."""
    return chunk_count(_arranged(shapes, dim, survivors))


def _arranged(shapes: Sequence[tuple[int, ...]], dim: int, survivors: Sequence[int] | None) -> list[Shape]:
    if survivors is None:
        return [arrange(shape, dim) for shape in shapes]
    pairs = zip(shapes, survivors, strict=True)
    return [arrange(s, dim) if n == math.prod(s) else run(n, dim) for s, n in pairs]


def cut(values: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """Vectors [rows, cols, dim] of a tensor, zeros at the end where they do not fit; a view where they do."""
    return _filled(values.reshape(-1), arrange(values.shape, dim))


def cut_run(values: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """Vectors [rows, cols, dim] of the survivors [n] of a sparse tensor, zeros at the end where they do not fit."""
    return _filled(values, run(values.size, dim))


def _filled(flat: NDArray[np.float32], shape: Shape) -> NDArray[np.float32]:
    if flat.size < shape.size:
        flat = np.concatenate([flat, np.zeros(shape.size - flat.size, dtype=flat.dtype)])
    return flat.reshape(shape)


def join(vectors: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The tensor of this shape from its vectors."""
    return vectors.reshape(-1)[: math.prod(shape)].reshape(shape)
