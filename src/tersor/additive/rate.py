"""The rate model: what a code costs in bits, from how often it is used.

Every vector belongs to a table (one per tensor, say). A table's frequencies are its counts plus a Dirichlet prior
towards the frequencies of all tables together, so small tables borrow from the rest and no codeword is ever free of
use: an unused codeword costs many bits, not infinitely many.
"""

from __future__ import annotations

import numpy as np
import torch

from tersor import kernels

PRIOR = 64.0
"""Vectors' worth of belief in the pooled frequencies."""
_POOLED_PRIOR = 0.5
"""Uses granted to every codeword in the pooled frequencies."""


def code_counts(
    codes: torch.Tensor, codebook_size: int, table: torch.Tensor | None = None, num_tables: int | None = None
) -> torch.Tensor:
    """How often each table uses each codeword: int64 [T, M, K].

    Args:
        codes: int32 [N, M].
        codebook_size: K.
        table: int32 [N]; all 0 without.
        num_tables: T; by default one more than the highest table in use.
    """
    if num_tables is None:
        num_tables = 1 if table is None or len(table) == 0 else int(table.max()) + 1
    return kernels.count_codes(codes, codebook_size, table, num_tables)


def code_bits(counts: torch.Tensor, prior: float = PRIOR) -> torch.Tensor:
    """Bits of every codeword in every table, float32 [T, M, K], from counts [T, M, K]."""
    seen = counts.cpu().numpy().astype(np.float64)  # numpy: one thread, one order
    pooled = seen.sum(axis=0) + _POOLED_PRIOR
    pooled /= pooled.sum(axis=1, keepdims=True)
    chance = (seen + prior * pooled) / (seen.sum(axis=2, keepdims=True) + prior)
    return torch.from_numpy((-np.log2(chance)).astype(np.float32)).to(counts.device)


def total_bits(counts: torch.Tensor, bits: torch.Tensor) -> float:
    """The length of codes with these counts [T, M, K] under these bits [T, M, K], tables not included."""
    return float((counts.cpu().numpy() * bits.cpu().numpy().astype(np.float64)).sum())
