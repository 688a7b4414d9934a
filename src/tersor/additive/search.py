"""Codes given codebooks, with the rate in the cost of every choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import torch

from tersor import kernels

_LEAST_WEIGHT = 1e-12
"""Of the highest weight: below it a vector's error counts for nothing and its codes are simply the cheapest."""


@dataclass(frozen=True)
class Search:
    """How hard to look for codes.

    Attributes:
        width: partial sums kept by the beam search; 0 for none where there are codes to improve on.
        sweeps: of ICM at most, per descent.
        restarts: perturbations of the iterated local search.
    """

    width: int
    sweeps: int = 4
    restarts: int = 0


class _Terms(TypedDict):
    weights: torch.Tensor | None
    scale: torch.Tensor | None
    bias: torch.Tensor | None
    table: torch.Tensor | None


def encode(
    vectors: torch.Tensor,
    codebooks: torch.Tensor,
    search: Search,
    *,
    codes: torch.Tensor | None = None,
    weights: torch.Tensor | None = None,
    lam: float = 0.0,
    bits: torch.Tensor | None = None,
    table: torch.Tensor | None = None,
    seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes that minimise `w |x - sum_m C_m[i_m]|^2 + lam * sum_m bits[table, m, i_m]`, vector by vector.

    A beam search, then ICM with perturbations; given `codes` to start from, no vector's cost rises.

    Args:
        vectors: float32 [N, d].
        codebooks: float32 [M, K, d].
        search: how hard to look.
        codes: int32 [N, M] to improve on.
        weights: float32 [N] or [N, d], of the squared error; 1 without.
        lam: squared error a bit is worth; 0 leaves the rate out.
        bits: float32 [T, M, K], the bits of each codeword in each table.
        table: int32 [N], each vector's table; 0 without.
        seed: of the perturbations.

    Returns:
        codes int32 [N, M] and costs float32 [N].
    """
    terms = _terms(weights, lam, bits, table)
    if codes is None or search.width > 0:
        codes, cost = kernels.beam_search(vectors, codebooks, width=max(search.width, 1), codes=codes, **terms)
    if search.sweeps > 0 or search.width == 0:
        codes, cost = kernels.local_search(
            vectors,
            codebooks,
            codes,
            sweeps=search.sweeps,
            restarts=search.restarts,
            changes=max(1, codebooks.shape[0] // 2),
            seed=seed,
            **terms,
        )
    if weights is not None and weights.ndim == 1:
        cost = cost * _positive(weights)
    return codes, cost


def _terms(weights: torch.Tensor | None, lam: float, bits: torch.Tensor | None, table: torch.Tensor | None) -> _Terms:
    """The kernels' arguments. One weight per vector becomes a scale of its rate, which costs nothing."""
    per_vector = weights is not None and weights.ndim == 1
    rated = lam > 0 and bits is not None
    scale = None
    if per_vector and rated and weights is not None:
        scale = lam / _positive(weights)
    bias = None
    if rated and bits is not None:
        bias = bits if per_vector else lam * bits
    return {
        "weights": None if per_vector else weights,
        "scale": scale,
        "bias": bias,
        "table": table if rated else None,
    }


def _positive(weights: torch.Tensor) -> torch.Tensor:
    """Weights per vector, kept off zero so that the rate's scale stays finite."""
    highest = float(weights.max()) if len(weights) else 0.0
    return weights.clamp(min=_LEAST_WEIGHT * highest) if highest > 0 else torch.ones_like(weights)
