"""Entropy-constrained scalar quantization: centers for values whose codes will be entropy-coded.

A value w of weight h goes to the center c of share p with the least h (w - c)^2 - lam ln p, then centers become means
and shares are counted again. Neither step raises the cost, the sum of h (w - c)^2 - lam ln p. Rare centers become dear
and lose their last values, so the number of centers shrinks by itself.

Among values of equal weight those of a center are an interval, found without looking at every value. So weights are
rounded to quarter octaves, and values of one weight are a group.

Sources: Chou, Lookabaugh and Gray, "Entropy-constrained vector quantization", 1989; as used for weights by Marinò et
al., "Compact representations of convolutional neural networks via weight pruning and quantization", 2021.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tersor.representations.sharing_kmeans import Floats, Points

_ROUNDS = 300
_GAIN = 1e-6  # of the cost; the authors stop at a gain of 1e-3, which the cost of small weights never reaches
_LEAST = 2.0**-20  # weights below count as this


class Centers(NamedTuple):
    """What `fit` finds.

    Attributes:
        values: centers [k'], ascending.
        rates: -lam ln p of each [k'].
        codes: the center of each value [n]; a few may have none.
        costs: mean cost of a value after each round.
    """

    values: Floats
    rates: Floats
    codes: NDArray[np.int64]
    costs: list[float]


def rounded(weights: Floats) -> Floats:
    """Weights in quarter octaves, none below 2**-20."""
    levels: Floats = 2.0 ** (np.rint(4 * np.log2(np.maximum(weights, _LEAST))) / 4)
    return levels


def fit(values: Floats, weights: Floats | None, start: Floats, lam: float) -> Centers:
    """Centers from a start (strictly ascending, taken as equally frequent), and the codes of the values.

    Args:
        values: finite [n], n >= 1.
        weights: of their squared errors, about 1 [n]; None for ones.
        start: centers [k].
        lam: what a nat costs, in squared error.
    """
    members = _members(weights)
    groups = [(weight, Points(values[which])) for weight, which in members]
    found, rates, costs = start, np.zeros(start.size), []
    for _ in range(_ROUNDS):
        counts, found, error = _round(groups, found, rates)
        rates = -lam * np.log(counts / values.size)
        costs.append(float(error + counts @ rates) / values.size)
        if len(costs) > 1 and costs[-2] - costs[-1] <= _GAIN * costs[-1]:
            break
    codes = np.empty(values.size, dtype=np.int64)
    for weight, which in members:
        kept, borders = _winners(found, rates / weight)
        codes[which] = kept[np.searchsorted(borders, values[which], side="right")]
    return Centers(found, rates, codes, costs)


def _members(weights: Floats | None) -> list[tuple[float, slice | NDArray[np.int64]]]:
    """Each weight, and which values have it."""
    if weights is None:
        return [(1.0, slice(None))]
    distinct, places = np.unique(rounded(weights), return_inverse=True)
    order = np.argsort(places, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(places))[:-1])
    return list(zip(distinct.tolist(), parts, strict=True))


def _round(groups: list[tuple[float, Points]], found: Floats, rates: Floats) -> tuple[NDArray[np.int64], Floats, float]:
    """Counts and means of the clusters that have values, and the squared error."""
    counts, mass, first = np.zeros(found.size, dtype=np.int64), np.zeros(found.size), np.zeros(found.size)
    inner, outer = 0.0, []
    for weight, points in groups:
        kept, borders = _winners(found, rates / weight)
        edges = points.edges(borders)
        sizes = np.diff(edges)
        which, sizes, edges = kept[sizes > 0], sizes[sizes > 0], np.unique(edges)
        means = points.means(edges)
        counts[which] += sizes
        mass[which] += weight * sizes
        first[which] += weight * sizes * means
        inner += weight * float(points.error(edges[:-1], edges[1:]).sum())
        outer.append((which, weight * sizes, means))
    centers = first / np.where(counts > 0, mass, 1)
    error = inner + sum(float(part @ (means - centers[which]) ** 2) for which, part, means in outer)
    alive = counts > 0
    # Means of several groups need not be in the order of the old centers.
    distinct, places = np.unique(centers[alive], return_inverse=True)
    return np.bincount(places, counts[alive]).astype(np.int64), distinct, error


def _winners(found: Floats, rates: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Centers that are the best for some value of weight 1, and the borders between these.

    Beside w^2, which all share, the cost of a center is a line in w; the least cost is the lines' lower envelope.
    """
    c, rate = found.tolist(), rates.tolist()
    kept, borders = [0], [-np.inf]
    for i in range(1, len(c)):
        while True:
            last = kept[-1]
            border = (c[last] + c[i]) / 2 + (rate[i] - rate[last]) / (2 * (c[i] - c[last]))
            if border > borders[-1]:
                break
            kept.pop()
            borders.pop()
        kept.append(i)
        borders.append(border)
    return np.array(kept), np.array(borders[1:])
