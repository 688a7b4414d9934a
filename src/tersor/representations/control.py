"""Rate control: one number, the step, trades bytes against error; find the step that meets a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

Progress = Callable[[str, int, int], None]
"""Told a stage, steps done and steps expected."""

SMALLEST_STEP, LARGEST_STEP = 2.0**-119, 2.0**125
"""The range in which a step, its inverse and its 128th part are ordinary float32 numbers."""


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


class Sizes:
    """Bytes of all groups together at a step, as a function; tells of every call.

    Args:
        coders: of the groups.
        stage: to tell of.
        least: calls expected at least.
        progress: told of them.
    """

    def __init__(self, coders: Sequence[Stepped], stage: str, least: int, progress: Progress | None) -> None:
        self._coders, self._stage, self._least, self._progress = coders, stage, least, progress
        self.last, self._calls = 0.0, 0

    def __call__(self, step: float) -> float:
        """Bytes at a step."""
        self.last, self._calls = sum(coder.at(step) for coder in self._coders), self._calls + 1
        if self._progress is not None:
            self._progress(self._stage, self._calls, max(self._least + 2, self._calls + 1))
        return self.last


class Stepped(Protocol):
    """What a search for the step asks of the coder of a group; see `GroupCoder`."""

    @property
    def weights(self) -> int:
        """Values coded."""

    @property
    def spread(self) -> float:
        """Mean log2 of their root mean square."""

    @property
    def finest(self) -> float:
        """The finest step there may be."""

    @property
    def coarsest(self) -> float:
        """The coarsest step of any use."""

    @property
    def fixed(self) -> int:
        """Bytes that no step changes."""

    def at(self, step: float) -> float:
        """Bytes at a step."""


def step_range(coders: Sequence[Stepped], budget: float) -> tuple[float, float, float]:
    """A first guess at the step that meets a budget in bytes, the finest and the coarsest step there may be."""
    weights = sum(c.weights for c in coders)
    spread = sum(c.spread * c.weights for c in coders) / weights
    finest = max(2.0 ** (spread - 21), SMALLEST_STEP, *(c.finest for c in coders))
    coarsest = max(min(max(2.0 ** (spread + 12), *(c.coarsest for c in coders)), LARGEST_STEP), finest)
    fixed = sum(c.fixed for c in coders)
    return 2 * 2.0 ** (spread - 8 * max(budget - fixed, 1) / weights), finest, coarsest
