"""First codebooks: residual k-means, stage after stage, on what a beam search leaves over."""

from __future__ import annotations

import numpy as np
import torch

from tersor import kernels
from tersor.additive.scheme import Scheme

_LLOYD_ROUNDS = 8
_SEEDING_VECTORS = 1 << 13
_SEEDING_WORDS = 1 << 12


def initial_codebooks(
    vectors: torch.Tensor,
    scheme: Scheme,
    generator: np.random.Generator,
    *,
    weights: torch.Tensor | None = None,
    width: int = 8,
) -> torch.Tensor:
    """Codebooks by residual quantization: k-means on the vectors, then on what the stages so far leave over.

    Source: Chen, Guan and Wang, "Approximate nearest neighbor search by residual vector quantization", 2010, with the
    beam of Babenko and Lempitsky, "Additive quantization", CVPR 2014.

    Args:
        vectors: float32 [N, d].
        scheme: M, K, d.
        generator: of the seeds.
        weights: float32 [N] or [N, d].
        width: of the beam that codes the vectors between stages.

    Returns:
        float32 [M, K, d]; with fewer than K vectors the rest of a codebook is zero.
    """
    books = vectors.new_zeros(scheme.num_codebooks, scheme.codebook_size, scheme.vector_dim)
    element = weights  # of a vector's elements; where they are all alike, they do not matter to the beam
    if weights is not None and weights.ndim == 1:
        element = weights[:, None].expand_as(vectors).contiguous()
    differing = element if weights is not None and weights.ndim == 2 else None
    residual = vectors
    for m in range(scheme.num_codebooks):
        books[m] = kmeans(residual, scheme.codebook_size, generator, weights=element)
        if m + 1 < scheme.num_codebooks:
            codes, _ = kernels.beam_search(vectors, books[: m + 1], width=width, weights=differing)
            residual = vectors - kernels.decode(codes, books[: m + 1])
    return books


def kmeans(
    vectors: torch.Tensor, size: int, generator: np.random.Generator, *, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """`size` centres by Lloyd's rounds from k-means++ seeds (Arthur and Vassilvitskii, 2007).

    Args:
        vectors: float32 [N, d].
        size: centres.
        generator: of the seeds.
        weights: float32 [N, d], of every element's error.

    Returns:
        float32 [size, d]; centres beyond the number of vectors are zero.
    """
    centres = vectors.new_zeros(size, vectors.shape[1])
    if len(vectors) == 0:
        return centres
    count = min(size, len(vectors))
    centres[:count] = _seeds(vectors, count, generator, weights)
    for _ in range(_LLOYD_ROUNDS):
        codes, cost = _assign(vectors, centres[:count], weights)
        sums = kernels.accumulate(codes[:, None], vectors, count, weights)[0]
        mass = torch.ones_like(vectors) if weights is None else weights
        mass = kernels.accumulate(codes[:, None], mass, count)[0]
        means = torch.where(mass > 0, sums / mass.clamp(min=1e-30), centres[:count].double())
        centres[:count] = means.float()
        empty = (kernels.count_codes(codes[:, None], count)[0, 0] == 0).nonzero()[:, 0]
        if len(empty):
            worst = np.argsort(-cost.cpu().numpy(), kind="stable")[: len(empty)]
            centres[empty] = vectors[torch.from_numpy(worst).to(vectors.device)]
    return centres


def _assign(
    vectors: torch.Tensor, centres: torch.Tensor, weights: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    nothing = torch.zeros(len(vectors), 1, dtype=torch.int32, device=vectors.device)
    codes, cost = kernels.local_search(vectors, centres[None].contiguous(), nothing, sweeps=1, weights=weights)
    return codes[:, 0], cost


def _seeds(
    vectors: torch.Tensor, count: int, generator: np.random.Generator, weights: torch.Tensor | None
) -> torch.Tensor:
    """Seeds far from each other, drawn from a sample; many seeds are drawn blindly, which is as good and quick."""
    picked = generator.permutation(len(vectors))[: max(count, min(_SEEDING_VECTORS, 16 * count))]
    sample = vectors[torch.from_numpy(np.sort(picked)).to(vectors.device)].cpu().numpy().astype(np.float64)
    if count > _SEEDING_WORDS or count == len(sample):
        chosen = generator.permutation(len(sample))[:count]
    else:
        element = np.ones(sample.shape)
        if weights is not None:
            element = weights[torch.from_numpy(np.sort(picked)).to(vectors.device)].cpu().numpy().astype(np.float64)
        chosen = np.empty(count, dtype=np.int64)
        distance = np.full(len(sample), np.inf)
        chance = element.mean(axis=1)
        for i in range(count):
            ladder = np.cumsum(chance)
            if not ladder[-1] > 0:
                ladder = np.cumsum(np.ones(len(sample)))
            chosen[i] = min(
                int(np.searchsorted(ladder, generator.random() * ladder[-1], side="right")), len(sample) - 1
            )
            distance = np.minimum(distance, (element * (sample - sample[chosen[i]]) ** 2).sum(axis=1))
            chance = distance
    return torch.from_numpy(sample[chosen].astype(np.float32)).to(vectors.device)
