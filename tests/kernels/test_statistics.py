from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tersor import kernels
from tersor.kernels import twins


def one_hot(codes: torch.Tensor, size: int) -> np.ndarray:
    count, stages = codes.shape
    dense = np.zeros((count, stages * size))
    for m in range(stages):
        dense[np.arange(count), m * size + codes[:, m].numpy()] = 1
    return dense


def draw(seed: int, count: int, stages: int, size: int, dims: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(size, (count, stages), generator=generator, dtype=torch.int32)
    values = torch.randn(count, dims, generator=generator)
    return codes, values, torch.rand(count, generator=generator), torch.rand(count, dims, generator=generator)


sizes = (st.integers(0, 1 << 30), st.integers(0, 60), st.integers(1, 4), st.integers(1, 9), st.integers(1, 6))


@settings(max_examples=40)
@given(*sizes)
def test_sums_equal_the_dense_products(seed: int, count: int, stages: int, size: int, dims: int) -> None:
    codes, values, per_vector, per_element = draw(seed, count, stages, size, dims)
    b, v = one_hot(codes, size), values.double().numpy()
    w, e = per_vector.double().numpy(), per_element.double().numpy()
    for module in (kernels, twins):
        np.testing.assert_array_equal(module.cooccurrence(codes, size, None).numpy(), b.T @ b)
        np.testing.assert_allclose(
            module.cooccurrence(codes, size, per_vector).numpy(), b.T @ (w[:, None] * b), atol=1e-12
        )
        for weights, dense in ((None, v), (per_vector[:, None], w[:, None] * v), (per_element, e * v)):
            found = module.accumulate(codes, values, size, weights)
            np.testing.assert_allclose(found.reshape(-1, dims).numpy(), b.T @ dense, atol=1e-12)


@settings(max_examples=40)
@given(*sizes[:4], st.integers(1, 4))
def test_counts_equal_the_dense_sums(seed: int, count: int, stages: int, size: int, tables: int) -> None:
    codes = draw(seed, count, stages, size, 1)[0]
    table = torch.randint(tables, (count,), generator=torch.Generator().manual_seed(seed), dtype=torch.int32)
    dense = one_hot(codes, size)
    expected = np.stack([dense[table.numpy() == t].sum(0) for t in range(tables)]).reshape(tables, stages, size)
    np.testing.assert_array_equal(kernels.count_codes(codes, size, table, tables).numpy(), expected)
    np.testing.assert_array_equal(twins.count_codes(codes, size, table, tables).numpy(), expected)
    np.testing.assert_array_equal(kernels.count_codes(codes, size)[0].numpy(), expected.sum(0))


@settings(max_examples=20)
@given(st.integers(0, 1 << 30), st.integers(1, 200), st.integers(1, 9))
def test_the_solver_equals_numpy(seed: int, side: int, dims: int) -> None:
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((side, side))
    matrix, right = root @ root.T + np.eye(side), rng.standard_normal((side, dims))
    expected = np.linalg.solve(matrix, right)
    for module in (kernels, twins):
        found = module.solve_spd(torch.from_numpy(matrix.copy()), torch.from_numpy(right.copy()))
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-8)


def test_the_solver_refuses_what_is_not_positive_definite_and_spares_its_input() -> None:
    matrix, right = -torch.eye(3, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64)
    for module in (kernels, twins):
        with pytest.raises(ValueError, match="positive definite"):
            module.solve_spd(matrix, right)
    matrix = 4 * torch.eye(3, dtype=torch.float64)
    kernels.solve_spd(matrix, right)
    assert torch.equal(matrix, 4 * torch.eye(3, dtype=torch.float64))
    assert torch.equal(right, torch.ones(3, 1, dtype=torch.float64))


@settings(max_examples=20)
@given(*sizes)
def test_conjugate_gradients_equal_the_normal_equations(
    seed: int, count: int, stages: int, size: int, dims: int
) -> None:
    codes, values, _, weights = draw(seed, count, stages, size, dims)
    b, ridge = one_hot(codes, size), 1e-2
    expected = np.stack(
        [
            np.linalg.solve(
                b.T @ (w[:, None] * b) + ridge * np.eye(stages * size), b.T @ (w * values[:, j].double().numpy())
            )
            for j, w in enumerate(weights.double().numpy().T)
        ],
        axis=1,
    )
    found = kernels.conjugate_refit(codes, values, size, weights, ridge=ridge, steps=200)
    twin = twins.conjugate_refit(codes, values, size, weights, ridge, 200)
    np.testing.assert_allclose(found.reshape(-1, dims).numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(twin.numpy(), found.numpy(), atol=1e-5)


def test_the_same_bits_at_any_thread_count_and_instruction_set(threads_restored: None) -> None:
    codes, values, per_vector, per_element = draw(7, 900, 3, 50, 8)

    def results() -> list[torch.Tensor]:
        matrix = kernels.cooccurrence(codes, 50, per_vector)
        right = kernels.accumulate(codes, values, 50, per_vector)
        matrix.diagonal().add_(1e-3)
        solved = kernels.solve_spd(matrix, right.view(150, 8))
        return [matrix, right, solved, kernels.conjugate_refit(codes, values, 50, per_element, ridge=1e-3, steps=9)]

    torch.set_num_threads(1)
    expected = results()
    for threads in (2, 3):
        torch.set_num_threads(threads)
        for name in kernels.instruction_sets():
            with kernels.using_instruction_set(name):
                assert all(torch.equal(*pair) for pair in zip(results(), expected, strict=True))


def test_bad_indices_are_refused() -> None:
    codes, values, _, _ = draw(8, 10, 2, 4, 3)
    for bad in (torch.where(codes == 0, 4, codes), torch.where(codes == 0, -1, codes)):
        for call in (
            lambda bad=bad: kernels.cooccurrence(bad, 4),
            lambda bad=bad: kernels.accumulate(bad, values, 4),
            lambda bad=bad: kernels.count_codes(bad, 4),
        ):
            with pytest.raises(IndexError, match="code"):
                call()
