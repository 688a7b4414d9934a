"""Affine integers against torch's own simulated quantization, and their bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tersor.representations import affine

SHAPES = ((6, 8), (4, 2, 3, 4), (24,))


def values(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@given(st.integers(2, 8), st.sampled_from([-1, 0, 4, 8]), st.booleans(), st.sampled_from(SHAPES), st.integers(0, 9))
def test_rounding_is_idempotent_and_within_range(
    bits: int, block: int, zero: bool, shape: tuple[int, ...], seed: int
) -> None:
    x = values(shape, seed)
    grid = affine.fit(x, bits, block, zero)
    q = affine.quantize(x, grid, bits, block, zero)
    low, high = affine.limits(bits, zero)
    assert low <= q.min() and q.max() <= high
    once = affine.dequantize(q, grid, block)
    assert np.array_equal(affine.quantize(once, grid, bits, block, zero), q)


@given(st.sampled_from([-1, 0, 4]), st.booleans(), st.integers(0, 9))
def test_eight_bits_clip_nothing_and_err_by_half_a_step(block: int, zero: bool, seed: int) -> None:
    x = values((6, 8), seed)
    grid = affine.fit(x, 8, block, zero)
    error = np.abs(affine.units_of(affine.dequantize(affine.quantize(x, grid, 8, block, zero), grid, block) - x, block))
    assert (error <= 0.5 * grid.scales[:, None] * (1.01 + zero)).all()


def test_it_is_what_torch_simulates() -> None:
    x = values((6, 8))
    grid = affine.fit(x, 4, -1)
    low, high = affine.limits(4, False)
    theirs = torch.fake_quantize_per_channel_affine(
        torch.from_numpy(x), torch.from_numpy(grid.scales), torch.from_numpy(grid.zeros), 0, low, high
    )
    np.testing.assert_allclose(affine.dequantize(affine.quantize(x, grid, 4, -1), grid, -1), theirs.numpy(), rtol=1e-6)


def test_scales_are_sixteen_bits() -> None:
    scales = affine.fit(values((6, 8)), 4, -1).scales
    assert np.array_equal(torch.from_numpy(scales).bfloat16().float().numpy(), scales)


def test_clipping_pays_at_few_bits() -> None:
    x = values((1, 4096))
    grid = affine.fit(x, 3, 0)
    widest = affine.Grid(np.full(1, np.abs(x).max() / 3, dtype=np.float32), np.zeros(1, dtype=np.int32))

    def error(g: affine.Grid) -> float:
        return float(np.square(affine.dequantize(affine.quantize(x, g, 3, 0), g, 0) - x).sum())

    assert error(grid) < 0.7 * error(widest)


def test_zero_is_exact_and_constants_are_no_trouble() -> None:
    for x in (np.zeros((3, 8), np.float32), np.full((3, 8), 2.5, np.float32)):
        for zero in (False, True):
            grid = affine.fit(x, 8, -1, zero)
            back = affine.dequantize(affine.quantize(x, grid, 8, -1, zero), grid, -1)
            np.testing.assert_allclose(back, x, rtol=0.01)
            assert (back[x == 0] == 0).all()


@pytest.mark.parametrize(
    ("shape", "block", "fits"), [((6, 8), 4, True), ((6, 8), 3, False), ((24,), 8, True), ((5,), 4, False)]
)
def test_what_can_be_cut(shape: tuple[int, ...], block: int, fits: bool) -> None:
    assert affine.fits(shape, block) is fits
