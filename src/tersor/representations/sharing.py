"""Weight sharing: values are replaced by few shared ones, a palette, and a code for each.

Four ways to choose them, as compared by Marinò et al. They see the values that are not zero, k at most; the zeros of a
pruned network stay zero and have a palette entry of their own beside those k.

Source: Marinò, Petrini, Malchiodi and Frasca, "Compact representations of convolutional neural networks via weight
pruning and quantization", 2021, and the ICPR 2020 paper before it, section III (CWS, PWS, UQ, ECSQ).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tersor.representations import sharing_entropy, sharing_kmeans
from tersor.representations.sharing_kmeans import Floats, Points

_HALVINGS = 24  # of the interval that a step is searched in

_Find = Callable[[Floats, Floats | None], tuple[Floats, NDArray[np.int64]]]


class Shared(NamedTuple):
    """Values as codes of a palette.

    Attributes:
        palette: the distinct values, float32 [k'] ascending, each used by a code; never -0.0.
        codes: places in the palette, int32 in the shape of the values.
    """

    palette: NDArray[np.float32]
    codes: NDArray[np.int32]

    def values(self) -> NDArray[np.float32]:
        """What the codes stand for, in their shape."""
        return self.palette[self.codes]


class Quantizer(Protocol):
    """One of `QUANTIZERS`."""

    def __call__(
        self, values: ArrayLike, k: int, *, seed: int, weights: ArrayLike | None = None, keep_zero: bool = True
    ) -> Shared:
        """Share values; what a quantizer has no use for (seed, weights) it ignores."""


def kmeans(values: ArrayLike, k: int, *, weights: ArrayLike | None = None, keep_zero: bool = True) -> Shared:
    """CWS: the means of k clusters; see `sharing_kmeans`. Values that are at most k distinct ones stay as they are.

    Args:
        values: float32, any shape, finite.
        k: most shared values.
        weights: importance of each value's squared error, non-negative; None for equal.
        keep_zero: zeros stay zero, with an entry beside the k; else they are values like others.

    Raises:
        ValueError: k below 1, values not finite, or weights negative or of another shape.
    """

    def find(v: Floats, w: Floats | None) -> tuple[Floats, NDArray[np.int64]]:
        found = np.unique(sharing_kmeans.centers(Points(v, w), k).astype(np.float32)).astype(np.float64)
        return found, np.searchsorted(sharing_kmeans.borders(found), v, side="right")

    return _shared(values, k, weights, keep_zero, find)


def probabilistic(values: ArrayLike, k: int, generator: np.random.Generator, *, keep_zero: bool = True) -> Shared:
    """PWS: each value goes to the quantile below or above it, at random, so that its expectation is the value.

    The quantiles are i / (k - 1), those that repeat taken once. With k = 1 there is only the mean, which is not
    unbiased value by value. Arguments and errors as `kmeans`.
    """

    def find(v: Floats, _: Floats | None) -> tuple[Floats, NDArray[np.int64]]:
        ends = np.quantile(v, np.linspace(0, 1, k)) if k > 1 else v.mean(keepdims=True)
        grid = np.unique(ends.astype(np.float32)).astype(np.float64)
        if grid.size == 1:
            return grid, np.zeros(v.size, dtype=np.int64)
        below = np.clip(np.searchsorted(grid, v, side="right") - 1, 0, grid.size - 2)
        share = (v - grid[below]) / (grid[below + 1] - grid[below])
        return grid, below + (generator.random(v.size) < share)

    return _shared(values, k, None, keep_zero, find)


def uniform(values: ArrayLike, k: int, *, keep_zero: bool = True) -> Shared:
    """UQ: the nearest multiple of a step, the smallest step that gives at most k distinct values.

    The authors raise the step by 5e-4 until it does; here it is found by bisection, for weights of any size. How many
    values a step gives does not fall all the way as the step grows, so bisection may pass over a smaller step that
    would do as well. Their offset d is 0, as in their experiments. Arguments and errors as `kmeans`.
    """

    def find(v: Floats, _: Floats | None) -> tuple[Floats, NDArray[np.int64]]:
        x = np.sort(v)
        step = _step(x, k)
        if step == 0:
            grid = np.unique(x)
            return grid, np.searchsorted(grid, v)
        grid = np.unique(np.rint(x / step))
        return grid * step, np.searchsorted(grid, np.rint(v / step))

    return _shared(values, k, None, keep_zero, find)


def entropy_constrained(
    values: ArrayLike,
    k: int,
    lam: float | None = None,
    *,
    weights: ArrayLike | None = None,
    keep_zero: bool = True,
) -> Shared:
    """ECSQ: at most k values for codes that will be entropy-coded; see `sharing_entropy`. Starts from `kmeans`.

    Args:
        values: float32, any shape, finite.
        k: most shared values; a large lam leaves fewer.
        lam: what a nat costs, in squared error. None takes twice the mean squared error of the k-means start: the
            slope there of the distortion of good codes, which falls as exp(-2 * nats).
        weights: importance of each value's squared error; scaled to the mean 1, then rounded to quarter octaves.
        keep_zero: zeros stay zero, with an entry beside the k; else they are values like others.

    Raises:
        ValueError: as `kmeans`, or lam below 0.
    """
    if lam is not None and not lam >= 0:
        raise ValueError("lam is not negative")

    def find(v: Floats, w: Floats | None) -> tuple[Floats, NDArray[np.int64]]:
        points = Points(v, w)
        start = sharing_kmeans.centers(points, k)
        price = lam
        if price is None:
            edges = points.edges(sharing_kmeans.borders(start))
            price = 2 * float(points.error(edges[:-1], edges[1:]).sum() / points.mass[-1])
        found = sharing_entropy.fit(v, w, start, price)
        return found.values, found.codes

    return _shared(values, k, weights, keep_zero, find)


def _shared(values: ArrayLike, k: int, weights: ArrayLike | None, keep_zero: bool, find: _Find) -> Shared:
    """What `find` makes of the values that are to be shared, and zeros for the others."""
    v = np.asarray(values, dtype=np.float32)
    if k < 1 or not np.isfinite(v).all():
        raise ValueError("values to share are finite, and shared ones at least one")
    flat, w = v.ravel(), _scaled(weights, v.shape)
    alive = flat != 0 if keep_zero else np.ones(flat.size, dtype=np.bool_)
    palette, codes = np.zeros(1), np.zeros(flat.size, dtype=np.int64)
    if alive.any():
        found, own = find(flat[alive].astype(np.float64), w[alive] if w is not None and w[alive].any() else None)
        palette = np.concatenate([palette, found])
        codes[alive] = own + 1
    used = np.bincount(codes, minlength=palette.size) > 0
    final, places = np.unique(palette[used].astype(np.float32) + np.float32(0), return_inverse=True)
    return Shared(final, places.astype(np.int32)[np.cumsum(used)[codes] - 1].reshape(v.shape))


def _scaled(weights: ArrayLike | None, shape: tuple[int, ...]) -> Floats | None:
    """Weights with the mean 1, flat; None where they do not differ."""
    if weights is None:
        return None
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != shape or not np.isfinite(w).all() or (w < 0).any():
        raise ValueError("weights are finite, not negative, and one for each value")
    return None if w.size == 0 or w.min() == w.max() else w.ravel() / w.mean()


def _step(x: Floats, k: int) -> float:
    """The smallest step that leaves at most k values of ascending ones, as far as bisection finds; 0 if so few are."""

    def too_many(numbers: Floats) -> bool:
        return bool(np.count_nonzero(np.diff(numbers)) >= k)

    if not too_many(x):
        return 0.0
    high = low = 2 * float(np.abs(x).max())
    while not too_many(np.rint(x / low)):
        high, low = low, low / 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if too_many(np.rint(x / middle)) else (low, middle)
    return high


def _by_kmeans(
    values: ArrayLike, k: int, *, seed: int, weights: ArrayLike | None = None, keep_zero: bool = True
) -> Shared:
    return kmeans(values, k, weights=weights, keep_zero=keep_zero)


def _by_chance(
    values: ArrayLike, k: int, *, seed: int, weights: ArrayLike | None = None, keep_zero: bool = True
) -> Shared:
    return probabilistic(values, k, np.random.default_rng(seed), keep_zero=keep_zero)


def _by_step(
    values: ArrayLike, k: int, *, seed: int, weights: ArrayLike | None = None, keep_zero: bool = True
) -> Shared:
    return uniform(values, k, keep_zero=keep_zero)


def _by_entropy(
    values: ArrayLike, k: int, *, seed: int, weights: ArrayLike | None = None, keep_zero: bool = True
) -> Shared:
    return entropy_constrained(values, k, weights=weights, keep_zero=keep_zero)


QUANTIZERS: dict[str, Quantizer] = {
    "kmeans": _by_kmeans,
    "probabilistic": _by_chance,
    "uniform": _by_step,
    "entropy": _by_entropy,
}
"""Ways to share values, by name, with one signature."""
