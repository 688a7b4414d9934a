"""Rate control: one number, the step, trades bytes against error; find the step that meets a budget."""

from __future__ import annotations

import math
from collections.abc import Callable


class Unreachable(Exception):
    """Even the coarsest step is over the budget; `size` is what it takes, in bytes."""

    def __init__(self, size: float) -> None:
        super().__init__(size)
        self.size = size


NEAR = 0.99
"""A result is good enough from this share of the budget on."""

_DRIFT = 0.3  # octaves by which what was too large, or fitted, may have moved when the tables did


def meet(
    size_of: Callable[[float], float],
    budget: float,
    weights: int,
    *,
    first: float,
    finest: float,
    coarsest: float,
    rounds: tuple[int, int],
    near: float = NEAR,
) -> float:
    """A step whose size is within the budget and, where the range allows, at least `near` of it.

    `size_of` falls as the step grows, roughly by one bit per weight and octave, and may drift down a little when called
    again (it refines its tables), so the search is a damped secant in bits per weight over octaves, not a bisection.

    Args:
        size_of: bytes at a step.
        budget: bytes to stay within.
        weights: number of values coded, at least 1.
        first: the first step to try.
        finest, coarsest: the range of steps.
        rounds: calls to make at least, and at most.
        near: the share of the budget that is good enough.

    Returns:
        The step of the last call, which is within the budget.

    Raises:
        Unreachable: even the coarsest step is over the budget.
    """
    target = budget * (1 + near) / 2
    octave, slope = math.log2(min(max(first, finest), coarsest)), -0.8
    low, high = math.log2(finest), math.log2(coarsest)  # steps known to be too fine, and to fit
    last: tuple[float, float] | None = None
    for call in range(1, rounds[1] + 1):
        size = size_of(2.0**octave)
        fits = size <= budget
        if fits and call >= rounds[0] and (size >= near * budget or octave <= math.log2(finest)):
            return 2.0**octave
        if not fits and octave >= math.log2(coarsest):
            raise Unreachable(size)
        rate = 8 * size / weights
        if last is not None and abs(octave - last[0]) > 1e-3:
            slope = min(-0.02, max(-1.5, (rate - last[1]) / (octave - last[0])))
        last = (octave, rate)
        move = (8 * target / weights - rate) / slope
        low, high = (low, min(high, octave)) if fits else (max(low, octave), high)
        octave = min(max(octave + min(max(move, -3.0), 3.0), math.log2(finest)), math.log2(coarsest))
        if not low - _DRIFT < octave < high + _DRIFT:  # over a cliff and back: sizes there say nothing of slopes
            octave = (low + high) / 2
    # The secant ended just above the budget: walk up in small steps, larger ones where that takes long.
    move = 0.02
    while octave < math.log2(coarsest):
        octave, move = min(octave + move, math.log2(coarsest)), 1.25 * move
        size = size_of(2.0**octave)
        if size <= budget:
            return 2.0**octave
    raise Unreachable(size)
