"""Ranks for all layers together: to a share of the parameters with the least sum of relative errors.

A layer may stop at any point of its curve. On the lower convex hull of a curve every step to a smaller rank costs at
least as much error per parameter as the step before, so that taking the cheapest step of all layers, again and again,
is optimal for every number of parameters at which it stops (Shoham and Gersho 1988, for bits; here for parameters).
That a layer stays dense is a point like others. Errors count relative to a layer's own squared weights: the scale of a
weight says nothing about its layer's part in the output, least of all before a batch norm.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tersor.errors import TersorError
from tersor.passes.truncation import Curve


def by_share(curves: Sequence[Curve], share: float) -> list[int]:
    """A position on each curve, so that all together have at most that share of the dense parameters.

    Raises:
        TersorError: rank 1 everywhere has more.
    """
    total, least = sum(int(c.cost[-1]) for c in curves), sum(int(c.cost[0]) for c in curves)
    target, now = share * total, total
    if least > target:
        raise TersorError(f"share={share} is less than the lowest ranks have ({least / total:.4f}); give more")
    at = [len(c.cost) - 1 for c in curves]
    hulls = [hull(c.cost, c.error) for c in curves]
    steps = [step for k in range(len(curves)) for step in _steps(k, curves[k], hulls[k])]
    heapq.heapify(steps)
    while now > target:
        _, k, _, after = heapq.heappop(steps)
        cost = curves[k].cost
        if now - int(cost[at[k]] - cost[after]) <= target:  # the last step: no more of it than is needed
            room = target - now + int(cost[at[k]])
            after = int(np.searchsorted(cost, room, side="right")) - 1
        now -= int(cost[at[k]] - cost[after])
        at[k] = after
    return at


def _steps(k: int, c: Curve, corners: Sequence[int]) -> list[tuple[float, int, int, int]]:
    """Error per parameter saved (never falling along a hull), curve, count of the step, and where it leads."""
    out: list[tuple[float, int, int, int]] = []
    for i, (here, after) in enumerate(pairwise(corners)):
        slope = (c.error[after] - c.error[here]) / float(c.cost[here] - c.cost[after]) / max(c.energy, 1e-300)
        out.append((max(slope, out[-1][0] if out else 0.0), k, i, after))
    return out


def hull(cost: NDArray[np.int64], error: NDArray[np.float64]) -> list[int]:
    """Corners of the lower convex hull of a falling curve, from the last point to the first."""
    corners: list[int] = []
    for i in range(len(cost) - 1, -1, -1):
        while len(corners) > 1:
            a, b = corners[-2], corners[-1]
            if (error[b] - error[a]) * (cost[a] - cost[i]) < (error[i] - error[a]) * (cost[a] - cost[b]):
                break
            corners.pop()
        corners.append(i)
    return corners


def by_energy(c: Curve, energy: float) -> int:
    """The first position on a curve that keeps that share of the squared weights."""
    return int(np.argmax(c.error <= (1 - energy + 1e-12) * c.energy))
