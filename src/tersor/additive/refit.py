"""Codebooks given codes: weighted least squares over all stages at once, and new work for codewords nobody uses."""

from __future__ import annotations

import numpy as np
import torch

from tersor import kernels

DIRECT_LIMIT = 2048
"""Systems of up to this many codewords are solved by Cholesky, larger ones by conjugate gradients."""
_RIDGE = 1e-4
"""Ridge over the mean weight of a vector; it acts on the change of the codebooks, so it cannot raise the error."""
_STEPS = 24


def refit(
    vectors: torch.Tensor, codebooks: torch.Tensor, codes: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """The codebooks that minimise the weighted squared error for fixed codes.

    Solves for the change of the codebooks, `(B^T W B + ridge) delta = B^T W (X - B C)`: the ridge settles what the data
    leave open (a constant moved from one stage to another) by staying close, and the error never rises. Codewords
    without vectors stay as they are. Source: Martinez et al., "Revisiting additive quantization", ECCV 2016.

    Args:
        vectors: float32 [N, d].
        codebooks: float32 [M, K, d].
        codes: int32 [N, M].
        weights: float32 [N] or [N, d]; 1 without. With one weight per element each dimension is a system of its own,
            solved by conjugate gradients.

    Returns:
        float32 [M, K, d].
    """
    stages, size, dims = codebooks.shape
    if len(vectors) == 0:
        return codebooks.clone()
    residuals = vectors - kernels.decode(codes, codebooks)
    mean_weight = 1.0 if weights is None else float(weights.cpu().numpy().mean(dtype=np.float64))
    ridge = _RIDGE * mean_weight if mean_weight > 0 else _RIDGE
    per_element = weights is not None and weights.ndim == 2
    if per_element or stages * size > DIRECT_LIMIT:
        full = weights if weights is None or per_element else weights[:, None].expand_as(vectors).contiguous()
        delta = kernels.conjugate_refit(codes, residuals, size, full, ridge=ridge, steps=_STEPS)
    else:
        matrix = kernels.cooccurrence(codes, size, weights)
        matrix.diagonal().add_(ridge)
        right = kernels.accumulate(codes, residuals, size, weights)
        delta = kernels.solve_spd(matrix, right.view(stages * size, dims)).view(stages, size, dims)
    return (codebooks.double() + delta).float()


def revive(
    vectors: torch.Tensor,
    codebooks: torch.Tensor,
    codes: torch.Tensor,
    cost: torch.Tensor,
    generator: np.random.Generator,
) -> torch.Tensor:
    """Codebooks whose unused codewords take over from the worst-coded vectors.

    A dead codeword of stage m becomes what would code one such vector exactly, its other codes unchanged. Vectors are
    drawn from the worst ones, each at most once, so revived codewords differ.

    Args:
        vectors: float32 [N, d].
        codebooks: float32 [M, K, d].
        codes: int32 [N, M].
        cost: float32 [N], the error of each vector.
        generator: draws among the worst vectors.

    Returns:
        float32 [M, K, d]; with nothing dead, or nothing left to improve, the codebooks themselves.
    """
    size = codebooks.shape[1]
    used = kernels.count_codes(codes, size)[0]
    dead = (used == 0).nonzero().cpu().numpy()
    badness = cost.cpu().numpy()
    candidates = np.flatnonzero(badness > 0)
    if len(dead) == 0 or len(candidates) == 0:
        return codebooks
    worst = candidates[np.argsort(-badness[candidates], kind="stable")[: 4 * len(dead)]]
    dead = dead[: len(worst)]
    drawn = torch.from_numpy(generator.choice(worst, size=len(dead), replace=False)).to(vectors.device)
    stage = torch.from_numpy(dead[:, 0]).to(vectors.device)
    word = torch.from_numpy(dead[:, 1]).to(vectors.device)
    residual = vectors[drawn] - kernels.decode(codes[drawn], codebooks)
    revived = codebooks.clone()
    revived[stage, word] = codebooks[stage, codes[drawn, stage].long()] + residual
    return revived
