"""Searches for codes: one nearest codeword, beam search over stages, iterated local search.

All minimise, for each vector n, with optional weights w, scale s and bias,
`sum_j w[n, j] * (x[n, j] - sum_m C_m[i_m][j])**2 + s[n] * sum_m bias[table[n], m, i_m]`.
Ties go to the lowest index. Inputs must be finite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tersor.kernels.native import array, extension_for
from tersor.kernels.threads import thread_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


def nearest(
    a: torch.Tensor,
    b: torch.Tensor,
    offset: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    table: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`argmin_k offset[k] + a[n] . b[:, k] + scale[n] * bias[table[n], k]` and its value.

    For squared error: `a = x, b = -2 C^T, offset = |c|^2`; with a weight per element: `a = [w x, w]`,
    `b = [-2 C^T; (C^2)^T]`, `offset = 0`. The value lacks the constant `|x|^2`.

    Args:
        a: float32 [N, D].
        b: float32 [D, K].
        offset: float32 [K].
        bias: float32 [T, K].
        table: int32 [N] in 0..T-1; without it every vector uses row 0.
        scale: float32 [N]; without it 1.

    Returns:
        codes int32 [N] and scores float32 [N].
    """
    import torch

    native = extension_for(a)
    if native is None:
        from tersor.kernels import twins

        return twins.nearest(a, b, offset, bias=bias, table=table, scale=scale)
    codes = torch.empty(a.shape[0], dtype=torch.int32)
    score = torch.empty(a.shape[0])
    native.nearest(
        array(a, torch.float32),
        array(b, torch.float32),
        array(offset, torch.float32),
        array(bias, torch.float32),
        array(table, torch.int32),
        array(scale, torch.float32),
        codes.numpy(),
        score.numpy(),
        thread_count(),
    )
    return codes, score


def beam_search(
    vectors: torch.Tensor,
    codebooks: torch.Tensor,
    *,
    width: int,
    order: Sequence[int] | None = None,
    codes: torch.Tensor | None = None,
    weights: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    table: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes by beam search: stage after stage, the `width` best partial sums are kept.

    Args:
        vectors: float32 [N, d].
        codebooks: float32 [M, K, d].
        width: partial sums kept per vector.
        order: the stages to choose, in this order; all, ascending, by default. The others keep their `codes`.
        codes: int32 [N, M] to improve on: a vector's codes change only if its cost falls. A partial `order` needs them.
        weights: float32 [N, d].
        scale: float32 [N].
        bias: float32 [T, M, K].
        table: int32 [N].

    Returns:
        codes int32 [N, M] and costs float32 [N].
    """
    import torch

    stages = codebooks.shape[0]
    chosen = list(range(stages)) if order is None else [int(m) for m in order]
    if codes is None and sorted(chosen) != list(range(stages)):
        raise ValueError("beam_search needs codes for the stages that `order` leaves out")
    native = extension_for(vectors)
    if native is None:
        from tersor.kernels import twins

        return twins.beam_search(vectors, codebooks, width, chosen, codes, weights, scale, bias, table)
    count = vectors.shape[0]
    out = (
        torch.zeros(count, stages, dtype=torch.int32)
        if codes is None
        else codes.to(torch.int32, copy=True).contiguous()
    )
    cost = torch.empty(count)
    native.beam_search(
        array(vectors, torch.float32),
        array(codebooks, torch.float32),
        array(weights, torch.float32),
        array(scale, torch.float32),
        array(bias, torch.float32),
        array(table, torch.int32),
        chosen,
        min(width, codebooks.shape[1] ** len(chosen)),
        codes is not None,
        out.numpy(),
        cost.numpy(),
        thread_count(),
    )
    return out, cost


def local_search(
    vectors: torch.Tensor,
    codebooks: torch.Tensor,
    codes: torch.Tensor,
    *,
    sweeps: int,
    restarts: int = 0,
    changes: int = 1,
    seed: int = 0,
    weights: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    table: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Iterated local search around ICM (Martinez et al., ECCV 2016): no vector's cost ever rises.

    ICM sets one stage at a time to its best code given the others, until a whole sweep changes nothing. Each restart
    sets `changes` random stages to random codes, runs ICM again, and keeps the result only where the cost fell.

    Args:
        vectors: float32 [N, d].
        codebooks: float32 [M, K, d].
        codes: int32 [N, M], where the search starts.
        sweeps: sweeps over the stages at most.
        restarts: perturbations after the first descent.
        changes: stages changed by a perturbation.
        seed: of the perturbations; a vector's depend on the seed and its index alone.
        weights: float32 [N, d].
        scale: float32 [N].
        bias: float32 [T, M, K].
        table: int32 [N].

    Returns:
        codes int32 [N, M] and costs float32 [N].
    """
    import torch

    native = extension_for(vectors)
    if native is None:
        from tersor.kernels import twins

        return twins.local_search(
            vectors, codebooks, codes, sweeps, restarts, changes, seed, weights, scale, bias, table
        )
    out = codes.to(torch.int32, copy=True).contiguous()
    cost = torch.empty(vectors.shape[0])
    native.local_search(
        array(vectors, torch.float32),
        array(codebooks, torch.float32),
        array(weights, torch.float32),
        array(scale, torch.float32),
        array(bias, torch.float32),
        array(table, torch.int32),
        sweeps,
        restarts,
        changes,
        seed % (1 << 64),
        out.numpy(),
        cost.numpy(),
        thread_count(),
    )
    return out, cost
