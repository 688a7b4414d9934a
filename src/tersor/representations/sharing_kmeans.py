"""K-means of numbers: clusters are intervals of the sorted line, so running sums give any cluster's error at once.

Lloyd's steps then cost O(k log n) after one sort, and are exact. They end in a local optimum, so they start from a
good one: the optimum among partitions that cut the line only between some hundreds of cells, by dynamic programming.
Where all values have cells of their own this is the global optimum. The authors' quantiles are no such start: they put
nearly all centers where values are dense, and with many clusters of few values each Lloyd's steps soon stop there.

Sources: Lloyd, "Least squares quantization in PCM", 1957/1982; the dynamic program as in Bruce, "Optimum quantization",
1965, and Wang and Song, "Ckmeans.1d.dp", R Journal 2011; cells as in Panter and Dite, "Quantization distortion in
pulse-count modulation with nonuniform spacing of levels", 1951.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CELLS = 512
_MOST_CLUSTERS = 256  # more start from as many cells: the program's work grows with the cube of their number
_ROUNDS = 1000

Floats = NDArray[np.float64]


class Points:
    """Numbers in ascending order, each with a weight, and their running sums.

    Sums are taken of distances from the mean, so that errors of numbers far from 0 keep their digits.

    Args:
        values: finite numbers [n], n >= 1.
        weights: not negative, not all zero [n]; None for ones.

    Attributes:
        x: the numbers, float64 ascending.
        mass: running sum of weights [n + 1], the first 0.
    """

    def __init__(self, values: Floats, weights: Floats | None = None) -> None:
        if weights is None:
            self.x, w = np.sort(values), np.ones(values.size)
        else:
            order = np.argsort(values, kind="stable")
            self.x, w = values[order], weights[order]
        self._middle = float(self.x.mean())
        y = self.x - self._middle
        self.mass, self._first, self._second = (np.concatenate([[0.0], np.cumsum(v)]) for v in (w, w * y, w * y * y))

    def edges(self, borders: Floats) -> NDArray[np.int64]:
        """Edges of the intervals between ascending borders, from 0 to n; a number on a border lies behind it."""
        return np.concatenate([[0], np.searchsorted(self.x, borders), [self.x.size]])

    def means(self, edges: NDArray[np.int64]) -> Floats:
        """Mean of each interval from an edge to the next, ascending; intervals without weight are left out."""
        mass, first = np.diff(self.mass[edges]), np.diff(self._first[edges])
        alive = mass > 0
        means = first[alive] / mass[alive] + self._middle
        # What running sums lose beside one huge number must not put means out of order.
        return np.clip(means, self.x[edges[:-1][alive]], self.x[edges[1:][alive] - 1])

    def error(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> Floats:
        """Weighted squared error of intervals, each replaced by its mean; arrays that broadcast."""
        mass, first = self.mass[high] - self.mass[low], self._first[high] - self._first[low]
        second = self._second[high] - self._second[low]
        return np.maximum(second - first**2 / np.where(mass > 0, mass, 1), 0)

    def cuts(self) -> NDArray[np.int64]:
        """Where a number is greater than the one before it."""
        return np.flatnonzero(self.x[1:] > self.x[:-1]) + 1


def centers(points: Points, k: int) -> Floats:
    """At most k numbers, ascending, with a small weighted squared error to the nearest; all distinct ones if so few."""
    cuts = points.cuts()
    if cuts.size < k:
        return points.x[np.concatenate([[0], cuts])]
    if k > _MOST_CLUSTERS:
        edges = _cells(points, cuts, k)
    else:
        edges = _best_edges(points, _cells(points, cuts, max(_CELLS, 2 * k)), k)
    return _lloyd(points, points.means(edges))


def borders(found: Floats) -> Floats:
    """Halfway points between ascending centers."""
    return (found[1:] + found[:-1]) / 2


def _lloyd(points: Points, found: Floats) -> Floats:
    """Centers become the means of the numbers nearest to them, until nothing changes."""
    last = np.zeros(0, dtype=np.int64)
    for _ in range(_ROUNDS):
        edges = points.edges(borders(found))
        if np.array_equal(edges, last):
            break
        found, last = points.means(edges), edges
    return found


def _cells(points: Points, cuts: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Edges of at most `count` cells, from 0 to n, at all cuts or at some.

    They lie as dense as the cube root of the density of values, as the borders of good quantizers do.
    """
    if cuts.size >= count:
        mass = np.diff(points.mass[np.concatenate([[0], cuts, [points.x.size]])])
        gaps = points.x[cuts] - points.x[cuts - 1]
        share = np.cbrt((mass[1:] + mass[:-1]) * gaps * gaps)
        for _ in range(_ROUNDS):  # until no gap is worth more than one edge
            most = share.sum() / count
            if share.max() <= most * (1 + 1e-3):
                break
            share = np.minimum(share, most)
        measure = np.cumsum(share)
        cuts = cuts[np.unique(np.searchsorted(measure, np.linspace(0, measure[-1], count + 1)[1:-1]))]
    return np.concatenate([[0], cuts, [points.x.size]])


def _best_edges(points: Points, cells: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Edges of the k intervals of whole cells with the smallest error, or of all cells if they are fewer."""
    ends = np.arange(cells.size)
    error = points.error(cells[None, :], cells[:, None])  # of an interval that ends at the row, begins at the column
    error[ends[:, None] <= ends[None, :]] = np.inf
    best, begins = error[:, 0], []
    for _ in range(min(k, cells.size - 1) - 1):
        total = best + error
        begins.append(total.argmin(axis=1))
        best = total[ends, begins[-1]]
    edges = [cells.size - 1]
    for begin in reversed(begins):
        edges.append(int(begin[edges[-1]]))
    return cells[[0, *reversed(edges)]]
