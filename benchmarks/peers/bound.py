"""How few bits any coder can spend on these weights, if each tensor is a memoryless heavy-tailed source.

Model: the weights of a tensor are independent draws from a zero-mean Gaussian scale mixture,
`p(x) = sum_c w_c N(x; 0, v_c)`, fitted by expectation maximisation. Two lower bounds on its rate at squared error D:

1. Known component. A coder told for free which component each weight came from faces Gaussians, for which reverse
   water-filling is exact (Cover & Thomas, Elements of Information Theory, 10.3.3):
   `R = sum_c w_c max(0, log2(v_c / t) / 2)` at `D = sum_c w_c min(t, v_c)`. Tight at low rates.
2. Shannon's: `R >= h(X) - log2(2 pi e D) / 2`, with h(X) the mean code length of the weights under the mixture.
   Tight at high rates.

The larger of the two holds for every tensor; bits are then shared between the tensors at equal slope, which no coder
of the model can beat. No side information (tables, names, steps) is counted.

What the model leaves out: dependence between weights. Neighbours inside a kernel, rows and columns do depend on each
other, so a coder that uses it may pass this curve; a coder of single weights can't.

`gaussian` is the same with one component: the limit for Gaussian tensors of these variances, for comparison.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.points import Point
from benchmarks.weights import Weights, count, flat

Vector = npt.NDArray[np.float64]

COMPONENTS = 4
ITERATIONS = 40
RANGE = (0.1, 4.5)
"""Bits per weight worth reporting."""

FLOOR = 1e-6
"""Smallest variance of a component, relative to the tensor's: exact zeros would else have infinite density."""


class Mixture(NamedTuple):
    """Zero-mean Gaussian scale mixture: weights (C,), variances (C,), differential entropy in bits."""

    weights: Vector
    variances: Vector
    entropy: float


def run(weights: Weights, quick: bool = False) -> list[Point]:
    """Both curves as points; `bytes` is the bound itself, rounded up, and the times are zero."""
    points = []
    spread, number = float(flat(weights).astype(np.float64).var()), count(weights)
    for coder, components in (("bound", COMPONENTS), ("gaussian", 1)):
        mixtures = [fit(v, components) for v in weights.values()]
        rates, errors = bound(mixtures, np.array([v.size for v in weights.values()]), 20 if quick else 80)
        pairs = zip(rates, 10 * np.log10(spread / errors), strict=True)
        points += [_point(coder, rate, snr, number) for rate, snr in pairs if RANGE[0] <= rate <= RANGE[1]]
    return points


def fit(values: npt.ArrayLike, components: int = COMPONENTS) -> Mixture:
    """Expectation maximisation from variances spread evenly over four octaves on both sides of the tensor's."""
    squares = np.asarray(values, dtype=np.float64).ravel() ** 2
    energy = max(float(squares.mean()), np.finfo(np.float64).tiny / FLOOR)
    shares = np.full(components, 1 / components)
    variances = energy * 4.0 ** np.linspace(-2, 2, components) if components > 1 else np.array([energy])
    for _ in range(ITERATIONS if components > 1 else 0):
        density = _densities(squares, shares, variances)
        posterior = density / density.sum(axis=0)
        mass = posterior.sum(axis=1)
        shares = mass / mass.sum()
        variances = np.maximum(posterior @ squares / np.maximum(mass, 1e-9), FLOOR * energy)
    entropy = -float(np.log2(_densities(squares, shares, variances).sum(axis=0)).mean())
    return Mixture(shares, variances, entropy)


def tensor_bound(mixture: Mixture, errors: Vector) -> Vector:
    """Bits per weight that a squared error of `errors` (ascending, at most the variance) costs at least."""
    levels = np.geomspace(errors[0] * 1e-3, mixture.variances.max(), 2000)
    water = np.minimum(levels[:, None], mixture.variances)
    known_error = water @ mixture.weights
    known_rate = 0.5 * np.log2(mixture.variances / water) @ mixture.weights
    shannon = mixture.entropy - 0.5 * np.log2(2 * np.pi * np.e * errors)
    return np.maximum(np.maximum(np.interp(errors, known_error, known_rate), shannon), 0)


def bound(mixtures: list[Mixture], sizes: npt.NDArray[np.int64], steps: int = 80) -> tuple[Vector, Vector]:
    """(bits per weight, squared error per weight) of all tensors together, the error allotted at equal slope."""
    energies = np.array([m.weights @ m.variances for m in mixtures])
    grids = energies[:, None] * np.geomspace(1e-7, 1, 1200)
    rates = np.stack([tensor_bound(m, grid) for m, grid in zip(mixtures, grids, strict=True)])
    part = sizes / sizes.sum()
    found = []
    for level in np.geomspace(2 * energies.max(), 1e-4 * float(part @ energies), steps):
        # At equal slope every tensor minimises rate + error / (2 ln 2 level), whose Gaussian solution is error = level.
        best = np.argmin(rates + grids / (2 * np.log(2) * level), axis=1)
        rows = np.arange(len(mixtures))
        found.append((part @ rates[rows, best], part @ grids[rows, best]))
    curve = np.array(found)
    return curve[:, 0], curve[:, 1]


def _densities(squares: Vector, shares: Vector, variances: Vector) -> Vector:
    """Weighted density of every component (C,) at every weight (N,)."""
    v = variances[:, None]
    return shares[:, None] * np.exp(-squares / (2 * v)) / np.sqrt(2 * np.pi * v) + np.finfo(np.float64).tiny


def _point(coder: str, rate: float, snr: float, number: int) -> Point:
    return {
        "coder": coder,
        "setting": "lower bound of the model, not a coder",
        "bytes": int(np.ceil(rate * number / 8)),
        "bpw": round(float(rate), 5),
        "snr_db": round(float(snr), 4),
        "encode_s": 0.0,
        "decode_s": 0.0,
    }
