from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.representations import vectors

shapes = st.lists(st.integers(1, 12), min_size=1, max_size=5).map(tuple)


@given(shapes, st.integers(1, 40))
def test_join_undoes_cut(shape: tuple[int, ...], dim: int) -> None:
    tensor = np.arange(1, math.prod(shape) + 1, dtype=np.float32).reshape(shape)
    cut = vectors.cut(tensor, dim)
    assert cut.shape == vectors.arrange(shape, dim) and cut.shape[2] == dim
    np.testing.assert_array_equal(vectors.join(cut, shape), tensor)
    np.testing.assert_array_equal(cut.ravel()[: tensor.size], tensor.ravel())
    assert not cut.ravel()[tensor.size :].any()


@given(shapes, st.integers(1, 40))
def test_padding_is_less_than_a_vector_per_row_of_a_run(shape: tuple[int, ...], dim: int) -> None:
    rows, cols, _ = vectors.arrange(shape, dim)
    assert 0 <= rows * cols * dim - math.prod(shape) < cols * dim


@pytest.mark.parametrize(
    ("shape", "kernel", "arranged"),
    [
        ((64, 32, 3, 3), 9, (64, 32, 9)),
        ((64, 32, 1, 1), 1, (64, 32, 1)),
        ((8, 4, 5, 5), 25, (8, 4, 25)),
        ((8, 4, 7, 7), 1, (8 * 4 * 7, 7, 1)),  # too long for a vector: rows of the kernel
        ((8, 4, 3), 3, (8, 4, 3)),  # conv1d
        ((8, 4, 3, 3, 3), 27, (8, 4, 27)),  # conv3d
        ((10, 20), 1, (10, 20, 1)),
        ((4, 64, 128), 1, (4 * 64, 128, 1)),  # experts
        ((1000, 64), 1, (1000, 64, 1)),  # embedding
        ((16, 32, 2, 2), 4, (16, 32, 4)),  # transposed
        ((96, 1, 3, 3), 9, (96, 1, 9)),  # depthwise
        ((12, 4, 3, 3), 9, (12, 4, 9)),  # grouped
        ((5000,), 1, (5, 1024, 1)),
        ((7,), 1, (1, 7, 1)),
        ((1, 1, 1), 1, (1, 1, 1)),
    ],
)
def test_each_kind_of_layer(shape: tuple[int, ...], kernel: int, arranged: tuple[int, int, int]) -> None:
    assert vectors.kernel_size(shape) == kernel
    assert vectors.arrange(shape, kernel) == arranged


def test_a_view_where_vectors_fit_and_a_run_where_they_do_not() -> None:
    tensor = np.zeros((6, 8), dtype=np.float32)
    assert np.shares_memory(vectors.cut(tensor, 4), tensor)
    assert vectors.arrange((6, 8), 3) == (1, 16, 3)
    assert vectors.arrange((6, 8), 5) == (1, 10, 5)
    assert vectors.arrange((2, 1 << 20), 1) == (2048, 1024, 1)  # very long rows
