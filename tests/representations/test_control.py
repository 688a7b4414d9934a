from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.representations.control import NEAR, Unreachable, meet

WEIGHTS = 10_000
FINEST, COARSEST = 2.0**-24, 2.0**12


def gaussian_like(step: float) -> float:
    """Bytes of WEIGHTS values of unit spread: a bit per octave when fine, fading to nothing when coarse."""
    return WEIGHTS / 8 * 0.5 * math.log2(1 + (4 / step) ** 2)


def search(size_of: Callable[[float], float], budget: float, first: float, rounds: tuple[int, int] = (2, 16)) -> float:
    return meet(size_of, budget, WEIGHTS, first=first, finest=FINEST, coarsest=COARSEST, rounds=rounds)


budgets = st.floats(100, 20_000)
offs = st.floats(-3, 3)
firsts = st.floats(-30, 15).map(lambda octave: 2.0**octave)


def guess(budget: float, off: float) -> float:
    """The step that the rate suggests, some octaves off."""
    return 2.0 ** (1 - 8 * budget / WEIGHTS + off)


@given(budgets, offs)
def test_the_budget_is_met_and_used(budget: float, off: float) -> None:
    calls: list[float] = []

    def size_of(step: float) -> float:
        calls.append(step)
        return gaussian_like(step)

    step = search(size_of, budget, guess(budget, off))
    assert NEAR * budget <= gaussian_like(step) <= budget
    assert calls[-1] == step and 2 <= len(calls) <= 24
    assert all(FINEST <= s <= COARSEST for s in calls)


@given(budgets, offs, st.integers(0, 2**32 - 1))
def test_noise_and_drift_do_not_break_the_budget(budget: float, off: float, seed: int) -> None:
    rng, calls = np.random.default_rng(seed), [0.0]

    def size_of(step: float) -> float:
        calls.append(gaussian_like(step) * (1 + 0.03 * 0.5 ** len(calls) + rng.normal() * 5e-4))
        return calls[-1]

    search(size_of, budget, guess(budget, off))
    assert 0.97 * budget <= calls[-1] <= budget


def test_the_least_number_of_calls_is_made() -> None:
    calls: list[float] = []

    def size_of(step: float) -> float:
        calls.append(step)
        return gaussian_like(step)

    search(size_of, gaussian_like(0.1) / 0.995, 0.1, rounds=(6, 20))
    assert len(calls) == 6


@given(firsts)
def test_what_is_always_too_large_is_unreachable_and_says_its_size(first: float) -> None:
    with pytest.raises(Unreachable) as caught:
        search(lambda step: 5000 + gaussian_like(step), 4000, first)
    assert caught.value.size == 5000 + gaussian_like(COARSEST)


@given(firsts)
def test_what_is_never_large_enough_gets_the_finest_step(first: float) -> None:
    assert search(lambda step: 50.0, 4000, first, rounds=(2, 30)) == FINEST


@given(firsts, st.floats(-8, 4))
def test_a_cliff_is_passed_on_its_safe_side(first: float, edge: float) -> None:
    sizes = [0.0]

    def size_of(step: float) -> float:
        sizes.append(250.0 if math.log2(step) > edge else 850.0)
        return sizes[-1]

    search(size_of, 500, first)
    assert sizes[-1] == 250 and len(sizes) < 60
