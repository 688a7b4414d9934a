from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lattices import seeds

from tersor.lattice import basis

dims = st.integers(2, 12)


def correlated(dim: int, seed: int, rows: int = 300) -> np.ndarray:
    """Vectors [rows, 4, dim] whose neighbours are alike."""
    rng = np.random.default_rng(seed)
    mixing = 0.9 ** np.abs(np.subtract.outer(np.arange(dim), np.arange(dim)))
    return (rng.normal(size=(rows, 4, dim)) @ np.linalg.cholesky(mixing).T).astype(np.float32)


@given(dims, seeds)
def test_analysis_and_synthesis_are_inverse(dim: int, seed: int) -> None:
    vectors = correlated(dim, seed)
    found = basis.fit([vectors])
    assert found is not None and found.dtype == np.int8 and found.shape == (dim, dim)
    coefficients = basis.analyse(vectors, found)
    back = basis.synthesise(np.moveaxis(coefficients, -1, 0), found)
    np.testing.assert_allclose(back, vectors, atol=2e-5)


@given(dims, seeds)
def test_coefficients_are_uncorrelated_and_fall(dim: int, seed: int) -> None:
    vectors = correlated(dim, seed)
    found = basis.fit([vectors])
    assert found is not None
    flat = basis.analyse(vectors, found).reshape(-1, dim).astype(float)
    covariance = flat.T @ flat / len(flat)
    away = covariance - np.diag(np.diag(covariance))
    assert np.abs(away).max() < 0.05 * np.diag(covariance).max()
    assert (np.diff(np.diag(covariance)) < 0.02 * covariance[0, 0]).all()


@given(dims, seeds)
def test_axes_keep_lengths_and_angles_nearly(dim: int, seed: int) -> None:
    found = basis.fit([correlated(dim, seed)])
    assert found is not None
    axes = found.astype(float) / basis.SCALE
    np.testing.assert_allclose(axes.T @ axes, np.eye(dim), atol=0.03)


def test_the_first_column_is_the_axis_of_most_energy() -> None:
    direction = np.array([3, 4], dtype=np.float32) / 5
    vectors = np.random.default_rng(0).normal(size=(400, 1, 1)).astype(np.float32) * direction
    found = basis.fit([vectors + np.float32(0.01) * np.random.default_rng(1).normal(size=vectors.shape).astype("f4")])
    assert found is not None
    np.testing.assert_allclose(np.abs(found[:, 0]), np.rint(127 * direction), atol=1)


@pytest.mark.parametrize(
    "vectors",
    [
        np.random.default_rng(0).normal(size=(50, 4, 9)),  # nothing to gain
        correlated(9, 0, rows=3),  # too few to pay for it
        np.zeros((50, 4, 9)),
        np.ones((50, 4, 1)),
    ],
    ids=["white", "few", "zeros", "scalars"],
)
def test_there_is_none_where_it_is_not_worth_its_bytes(vectors: np.ndarray) -> None:
    assert basis.fit([vectors.astype(np.float32)]) is None


@given(dims, seeds)
def test_synthesis_adds_float32_products_in_order(dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    entries = rng.integers(-127, 128, (dim, dim)).astype(np.int8)
    coefficients = rng.normal(size=(dim, 3)).astype(np.float32)
    found = basis.synthesise(coefficients, entries)
    for n in range(3):
        for i in range(dim):
            total = np.float32(0)
            for j in range(dim):
                product = np.float32(np.float32(entries[i, j]) / np.float32(127)) * coefficients[j, n]
                total = product if j == 0 else np.float32(total + product)
            assert found[n, i] == total
