from __future__ import annotations

import numpy as np
import pytest
from benchmarks.peers.bound import Mixture, bound, fit, tensor_bound

ERRORS = np.geomspace(1e-4, 1.0, 50)


def gaussian_entropy(variance: float) -> float:
    return 0.5 * np.log2(2 * np.pi * np.e * variance)


def test_one_gaussian_gives_its_rate_distortion_function():
    mixture = Mixture(np.ones(1), np.ones(1), gaussian_entropy(1.0))
    assert tensor_bound(mixture, ERRORS) == pytest.approx(-0.5 * np.log2(ERRORS), abs=1e-3)


def test_tensors_of_different_variance_are_filled_like_water():
    variances, sizes = np.array([4.0, 0.25, 0.01]), np.array([100, 300, 600])
    mixtures = [Mixture(np.ones(1), np.array([v]), gaussian_entropy(v)) for v in variances]
    rates, errors = bound(mixtures, sizes)
    for rate, error in zip(rates, errors, strict=True):
        low, high = 0.0, 4.0
        for _ in range(60):
            level = (low + high) / 2
            low, high = (level, high) if np.minimum(level, variances) @ sizes / 1000 < error else (low, level)
        exact = 0.5 * np.log2(variances / np.minimum(level, variances)) @ sizes / 1000
        assert rate == pytest.approx(exact, abs=0.02)


def test_fit_finds_the_mixture_that_made_the_values():
    generator = np.random.default_rng(1)
    deviations = np.where(generator.random(40_000) < 0.3, 5.0, 1.0)
    mixture = fit(generator.normal(size=40_000) * deviations, components=2)
    order = np.argsort(mixture.variances)
    assert mixture.variances[order] == pytest.approx([1.0, 25.0], rel=0.1)
    assert mixture.weights[order] == pytest.approx([0.7, 0.3], abs=0.03)


def test_fit_of_gaussian_values_has_their_energy_and_entropy():
    values = np.random.default_rng(2).normal(size=40_000) * 3
    mixture = fit(values)
    assert mixture.weights @ mixture.variances == pytest.approx((values**2).mean(), rel=1e-3)
    assert mixture.entropy == pytest.approx(gaussian_entropy(9.0), abs=0.01)


def test_heavy_tails_cost_less_than_a_gaussian_of_the_same_variance():
    values = np.random.default_rng(3).laplace(size=40_000)
    mixture = fit(values)
    energy = float((values**2).mean())
    errors = energy * np.geomspace(1e-3, 0.9, 20)
    rates = tensor_bound(mixture, errors)
    assert (rates < 0.5 * np.log2(energy / errors)).all()
    assert (np.diff(rates) < 0).all()
    laplace = np.log2(2 * np.e) - 0.5 * np.log2(2 * np.pi * np.e * errors[0])
    assert rates[0] == pytest.approx(laplace, abs=0.02)


def test_tensors_of_zeros_cost_nothing_and_break_nothing():
    live = fit(np.random.default_rng(4).normal(size=1000))
    rates, errors = bound([live, fit(np.zeros(1000))], np.array([1000, 1000]), steps=10)
    assert np.isfinite(rates).all()
    assert np.isfinite(errors).all()
    assert rates.max() < 10
