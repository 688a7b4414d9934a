"""Everything that chunks share, found on a sample: basis, codebooks, tables, scales, and the step for the budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from tersor.checkpoint.survey import Facts, octaves_of
from tersor.encode import ROUNDS, group_spec
from tersor.lattice.tokens import MAX_MAGNITUDE
from tersor.plan import GroupPlan
from tersor.recipe import Recipe
from tersor.representations import vectors
from tersor.representations.chunk_coder import Heads
from tersor.representations.control import Progress, Sizes, Unreachable, meet, step_range
from tersor.representations.group import GroupCoder
from tersor.representations.records import STREAM, GroupRecord
from tersor.stream.sample import rows_of
from tersor.stream.source import Source

_NEAR = 0.998  # of the budget: sizes on a sample are smooth, and rounds on it cost little
_APART = 0.05  # octaves between steps by whose rates a slope is known


class Whole(msgspec.Struct, array_like=True, frozen=True, tag="whole"):
    """A group that is coded as a whole: its record, all of its sections, the error of each tensor in half decibels."""

    record: GroupRecord
    sections: tuple[bytes, ...]
    errors: tuple[int, ...]


class Calibrated(msgspec.Struct, array_like=True, frozen=True):
    """What was found.

    Attributes:
        step: of all lattices.
        finest: whether no finer one is of use.
        predicted: bytes of all groups.
        groups: heads of those coded chunk by chunk, results of those coded as a whole.
    """

    step: float
    finest: bool
    predicted: float
    groups: tuple[Heads | Whole, ...]


class Sampled:
    """A group's coder on some rows of its tensors, and what that says of all of them.

    Args:
        group: of the plan.
        shapes: of its tensors.
        recipe: effort, scales, seed.
        source: of their values.
        facts: of each tensor.
        total: values of all groups together.
        limit: values to train on, of all groups together.
        device: where codes are searched.
    """

    def __init__(
        self,
        group: GroupPlan,
        shapes: Sequence[tuple[int, ...]],
        recipe: Recipe,
        source: Source,
        facts: Sequence[Facts],
        total: int,
        limit: int,
        device: str,
    ) -> None:
        stands = source.shapes
        self._rows = rows_of(stands, total, recipe.seed, limit)
        counts = [sum(last - first for first, last in blocks) for blocks in self._rows]
        sampled = tuple((n, s.cols * s.dim) for n, s in zip(counts, stands, strict=True))
        weights = None if source.importance is None else [_gather(source.weights, t, r) for t, r in self._numbered()]
        readers = [_reader(source, t, r) for t, r in self._numbered()]
        self.coder = GroupCoder(group_spec(group, sampled, recipe, device), readers, weights)
        self._peaks = [f.peak for f in facts]
        self._times = np.array([s.rows / n for s, n in zip(stands, counts, strict=True)])
        self._sizes = np.array([s.size for s in stands])
        self._louder = np.zeros(len(stands))
        if recipe.scales != "row":  # where each row has a scale, all take alike
            self._louder = np.array([_louder(f, *octaves_of(read())) for f, read in zip(facts, readers, strict=True)])
        self._last: tuple[float, float] | None = None
        self._slope = 0.8  # bits per value and octave
        self._row_times = sum(s.rows for s in stands) / sum(counts) if recipe.scales == "row" else 1.0
        self._chunks = vectors.chunks(shapes, group.dim)
        self.weights = sum(s.size for s in stands)

    def _numbered(self) -> list[tuple[int, list[tuple[int, int]]]]:
        return list(enumerate(self._rows))

    @property
    def spread(self) -> float:
        """Mean log2 of the values' root mean square."""
        return self.coder.spread

    @property
    def finest(self) -> float:
        """The smallest step at which every value of every tensor has a token."""
        return (
            max(self.coder.finest, self.coder.bound(self._peaks) / (2 * MAX_MAGNITUDE)) if self.coder.lattice else 0.0
        )

    @property
    def coarsest(self) -> float:
        """A step at which every value is nearer to zero than to anything else."""
        return self.coder.coarsest

    @property
    def fixed(self) -> int:
        """Bytes that no step changes."""
        return 0

    def at(self, step: float) -> float:
        """Predicted bytes of the whole group at a step."""
        self.coder.at(step)
        heads, bits, rows = self.coder.costs()
        self._learn_slope(step, float(bits.sum()))
        bits = bits * self._times + self._slope * self._louder * self._sizes
        streams = (self.coder.codes is not None) + (self.coder.lattice is not None)
        return heads + self._row_times * rows + float(bits.sum()) / 8 + STREAM * streams * self._chunks

    def _learn_slope(self, step: float, bits: float) -> None:
        """How many bits a value takes less by an octave of the step, and more by an octave of its own."""
        octave, rate = math.log2(step), bits / self.coder.weights
        if self._last is not None and abs(octave - self._last[0]) > _APART:
            self._slope = min(1.2, max(0.0, (self._last[1] - rate) / (octave - self._last[0])))
        if self._last is None or abs(octave - self._last[0]) > _APART:
            self._last = octave, rate

    def result(self) -> Heads:
        """What all chunks share, as the last call of `at` left it."""
        return self.coder.fixed_heads(self._peaks)


class Entire:
    """A group that is coded as a whole, and held in memory: one that keeps its zeros."""

    def __init__(self, coder: GroupCoder) -> None:
        self.coder = coder
        self.weights, self.spread, self.finest, self.coarsest = (
            coder.weights,
            coder.spread,
            coder.finest,
            coder.coarsest,
        )

    def at(self, step: float) -> float:
        """Bytes of the whole group at a step."""
        return self.coder.at(step)

    @property
    def fixed(self) -> int:
        """Bytes that no step changes."""
        return self.coder.fixed

    def result(self) -> Whole:
        """All of the group, as the last call of `at` left it."""
        self.coder.settle()
        record, sections, errors = self.coder.finish()
        return Whole(record, tuple(sections), tuple(errors))


def calibrate(
    coders: Sequence[Sampled | Entire], budget: float, effort: str, progress: Progress | None = None
) -> Calibrated | float:
    """Heads for a step at which all groups together take the budget or a little less; else the least they take."""
    least, most = ROUNDS[effort]
    size_of = Sizes(coders, "training", least, progress)
    first, finest, coarsest = step_range(coders, budget)
    weights = sum(coder.weights for coder in coders)
    try:
        step = meet(
            size_of, max(budget, 1), weights, first=first, finest=finest, coarsest=coarsest, rounds=(least, most),
            near=_NEAR,
        )  # fmt: skip
    except Unreachable as unreachable:
        return unreachable.size
    groups = tuple(coder.result() for coder in coders)
    return Calibrated(float(np.float32(step)), step <= 1.01 * finest, size_of.last, groups)


def _louder(facts: Facts, octaves: float, living: int) -> float:
    """By how many octaves values of a tensor are larger than those of its sample on average."""
    if not living or not facts.living:
        return 0.0
    return min(1.0, max(-1.0, facts.octaves / facts.living - octaves / living))


def _reader(source: Source, t: int, blocks: list[tuple[int, int]]) -> Callable[[], NDArray[np.float32]]:
    def read() -> NDArray[np.float32]:
        values = _gather(source.rows, t, blocks)
        assert values is not None
        return values

    return read


def _gather(
    read: Callable[[int, int, int], NDArray[np.float32] | None], t: int, blocks: list[tuple[int, int]]
) -> NDArray[np.float32] | None:
    """Rows of a tensor as a matrix, or None where there are none to read."""
    found = [part for part in (read(t, first, last) for first, last in blocks) if part is not None]
    return np.concatenate(found).reshape(sum(map(len, found)), -1) if found else None
