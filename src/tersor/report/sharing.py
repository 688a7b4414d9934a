"""What layers share: how many of them use a codeword, how alike their histograms are, and what chance alone would give.

Chance: every layer keeps its number of symbols and draws them from the group's common histogram. Where layers are many
symbols long, any codeword turns up in most of them; only beside that number does the one observed say anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_DRAWS = 3
_EXACT_UP_TO = 400  # layers; beyond, a normal law is as good


@dataclass(frozen=True)
class Shares:
    """Of the codewords in use, the share used in at least two layers, and in at least half of them."""

    two: float
    half: float


def observed(users: NDArray[np.int64], layers: int) -> Shares:
    """From the number of layers that use each codeword [M, K]."""
    used = users[users > 0]
    count = max(used.size, 1)
    return Shares(float((used >= 2).sum()) / count, float((used >= math.ceil(layers / 2)).sum()) / count)


def expected(total: NDArray[np.int64], sizes: Iterable[int]) -> Shares:
    """By chance, from the counts of all layers together [M, K] and the number of vectors of each layer."""
    layers = np.array([n for n in sizes if n > 0], dtype=np.float64)
    share = (total / np.maximum(total.sum(axis=1, keepdims=True), 1))[total > 0]
    if not share.size:
        return Shares(0.0, 0.0)
    grid = np.rint(np.log(share) * 100)  # rates within a percent of each other count as one
    rates, weight = np.unique(grid, return_counts=True)
    absent = np.exp(np.log1p(-np.minimum(np.exp(rates / 100), 1 - 1e-12))[:, None] * layers)  # [rates, layers]
    any_, two = (_at_least(absent, k) for k in (1, 2))
    half = _at_least(absent, math.ceil(len(layers) / 2))
    some = max(float(weight @ any_), 1e-300)
    return Shares(float(weight @ two) / some, float(weight @ half) / some)


def _at_least(absent: Floats, least: int) -> Floats:
    """Probability that at least so many layers use a codeword, [rates], from their probabilities not to."""
    if absent.shape[1] > _EXACT_UP_TO and least > 2:
        mean, spread = (1 - absent).sum(axis=1), np.sqrt((absent * (1 - absent)).sum(axis=1))
        z = (least - 0.5 - mean) / np.maximum(spread, 1e-9) / math.sqrt(2)
        return np.array([0.5 * math.erfc(v) for v in z])
    below = np.zeros((len(absent), least))  # probability of 0, 1, ... least - 1 users so far
    if least:
        below[:, 0] = 1.0
    for column in absent.T:
        present = 1 - column
        below[:, 1:] = below[:, 1:] * column[:, None] + below[:, :-1] * present[:, None]
        below[:, 0] *= column
    return 1 - below.sum(axis=1)


def divergence(counts: NDArray[np.int64]) -> Floats:
    """Jensen-Shannon divergence in bits between rows of counts [R, M, K], mean over the M codebooks: [R, R], 0 to 1.

    Rows without symbols are at 0 from everything.
    """
    shares = counts / np.maximum(counts.sum(axis=2, keepdims=True), 1)
    own = _entropy(shares)
    out = np.zeros((len(counts), len(counts)))
    for a in range(len(counts)):
        mixed = _entropy((shares[a] + shares[a:]) / 2) - (own[a] + own[a:]) / 2
        there = (counts[a].sum(axis=1) > 0) & (counts[a:].sum(axis=2) > 0)
        out[a, a:] = out[a:, a] = np.where(there, np.clip(mixed, 0, 1), 0).mean(axis=1)
    return out


def divergence_by_chance(counts: NDArray[np.int64]) -> Floats:
    """The same where every row draws its symbols from the common histogram: mean of a few draws, always the same."""
    rng = np.random.default_rng(0)
    total = counts.sum(axis=0).astype(np.float64)
    shares = total / np.maximum(total.sum(axis=1, keepdims=True), 1)
    drawn = np.zeros((len(counts), len(counts)))
    for _ in range(_DRAWS):
        sample = np.array(
            [[rng.multinomial(n, p) if n else np.zeros_like(p) for n, p in zip(row, shares, strict=True)]
             for row in counts.sum(axis=2)]
        ).astype(np.int64)  # fmt: skip
        drawn += divergence(sample)
    return drawn / _DRAWS


def mean_between(matrix: Floats) -> float:
    """Mean of a matrix [R, R] beside its diagonal; 0 of a single row."""
    n = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (n * (n - 1))) if n > 1 else 0.0


def _entropy(shares: Floats) -> Floats:
    """In bits, over the last axis."""
    return -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=-1)
