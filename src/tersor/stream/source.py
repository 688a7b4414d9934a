"""Rows of tensors, and of their importance, read from a checkpoint without reading the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tersor.checkpoint import Checkpoint
from tersor.checkpoint.survey import to_float32
from tersor.lattice.planes import Shape
from tersor.plan import Plan
from tersor.values import checked


@dataclass(frozen=True)
class Importance:
    """Weights of errors that are read when needed.

    Attributes:
        checkpoint: holds them.
        names: the name there of each coded tensor that has some.
        mean: what they are divided by.
    """

    checkpoint: Checkpoint
    names: Mapping[str, str]
    mean: float


class Source:
    """Where the values of one group's tensors come from.

    Args:
        checkpoint: the tensors.
        names: of the group's tensors.
        shapes: how they stand as vectors.
        importance: of their errors, or None.
    """

    def __init__(
        self, checkpoint: Checkpoint, names: Sequence[str], shapes: Sequence[Shape], importance: Importance | None
    ) -> None:
        self.checkpoint, self.names, self.shapes, self.importance = checkpoint, names, shapes, importance
        self._sizes = {entry.name: entry.numel for entry in checkpoint.entries}

    def rows(self, t: int, first: int, last: int) -> NDArray[np.float32]:
        """Vectors [rows, cols, dim] of rows [first, last) of a tensor, zeros at its end where they do not fit."""
        values = self.checkpoint.read_part(self.names[t], *self._elements(t, first, last))
        return self._filled(t, first, last, checked(self.checkpoint.source, self.names[t], values))

    def weights(self, t: int, first: int, last: int) -> NDArray[np.float32] | None:
        """Importance of the same values; None where the tensor has none of its own."""
        given = self.importance
        if given is None or self.names[t] not in given.names:
            return None
        name = given.names[self.names[t]]
        values = given.checkpoint.read_part(name, *self._elements(t, first, last))
        weight = to_float32(values) / np.float32(given.mean)
        return self._filled(t, first, last, weight)

    def _elements(self, t: int, first: int, last: int) -> tuple[int, int]:
        width, size = self.shapes[t].cols * self.shapes[t].dim, self._sizes[self.names[t]]
        return min(first * width, size), min(last * width, size)

    def _filled(self, t: int, first: int, last: int, values: NDArray[np.float32]) -> NDArray[np.float32]:
        _, cols, dim = self.shapes[t]
        missing = (last - first) * cols * dim - values.size
        if missing:
            values = np.concatenate([values, np.zeros(missing, dtype=np.float32)])
        return values.reshape(last - first, cols, dim)


def read_all(plan: Plan, g: int, importance: Importance | None) -> dict[str, NDArray[np.float32]] | None:
    """Importance of all tensors of the g-th group, in memory."""
    if importance is None:
        return None
    entries = [plan.entries[i] for i in plan.groups[g].tensors]
    return {
        e.name: to_float32(importance.checkpoint.read(importance.names[e.name])) / np.float32(importance.mean)
        for e in entries
        if e.name in importance.names
    }
