"""Sums and solvers for the least-squares refit of codebooks, in double precision.

B is the one-hot matrix of the codes, [N, M * K]; column m * K + k stands for codeword k of stage m. On the CPU every
sum runs in a fixed order, so results are the same bits at any thread count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tersor.kernels.native import array, extension, extension_for
from tersor.kernels.threads import thread_count

if TYPE_CHECKING:
    import torch


def count_codes(
    codes: torch.Tensor, codebook_size: int, table: torch.Tensor | None = None, num_tables: int = 1
) -> torch.Tensor:
    """How often each table uses each codeword: int64 [T, M, K] for codes int32 [N, M] and table int32 [N] (0 without).

    Raises:
        IndexError: a code is outside 0..K-1, or a table outside 0..T-1.
    """
    import torch

    native = extension_for(codes)
    if native is None:
        from tersor.kernels import twins

        return twins.count_codes(codes, codebook_size, table, num_tables)
    out = torch.zeros(num_tables, codes.shape[1], codebook_size, dtype=torch.int64)
    native.count_codes(array(codes, torch.int32), array(table, torch.int32), out.numpy())
    return out


def cooccurrence(codes: torch.Tensor, codebook_size: int, weights: torch.Tensor | None = None) -> torch.Tensor:
    """`B^T W B`, float64 [M * K, M * K], for codes int32 [N, M] and weights float32 [N] (1 without).

    Raises:
        IndexError: a code is outside 0..K-1.
    """
    import torch

    native = extension_for(codes)
    if native is None:
        from tersor.kernels import twins

        return twins.cooccurrence(codes, codebook_size, weights)
    side = codes.shape[1] * codebook_size
    out = torch.empty(side, side, dtype=torch.float64)
    native.cooccurrence(
        array(codes, torch.int32), array(weights, torch.float32), codebook_size, out.numpy(), thread_count()
    )
    return out


def accumulate(
    codes: torch.Tensor, values: torch.Tensor, codebook_size: int, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """`B^T (W * V)`, float64 [M, K, d]: per codeword, the weighted sum of the values of the vectors that use it.

    Args:
        codes: int32 [N, M].
        values: float32 [N, d].
        codebook_size: K.
        weights: float32 [N] or [N, d]; 1 without.

    Raises:
        IndexError: a code is outside 0..K-1.
    """
    import torch

    if weights is not None and weights.ndim == 1:
        weights = weights[:, None]
    native = extension_for(codes)
    if native is None:
        from tersor.kernels import twins

        return twins.accumulate(codes, values, codebook_size, weights)
    out = torch.empty(codes.shape[1], codebook_size, values.shape[1], dtype=torch.float64)
    native.accumulate(
        array(codes, torch.int32),
        array(values, torch.float32),
        array(weights, torch.float32),
        out.numpy(),
        thread_count(),
    )
    return out


def conjugate_refit(
    codes: torch.Tensor,
    residuals: torch.Tensor,
    codebook_size: int,
    weights: torch.Tensor | None,
    *,
    ridge: float,
    steps: int,
) -> torch.Tensor:
    """The change of the codebooks that best fits residuals r for fixed codes, with a weight per element.

    Minimises `sum_nj w[n, j] * (r[n, j] - sum_m delta_m[i_m][j])**2 + ridge * |delta|^2`: one system
    per dimension, since weights differ, by conjugate gradients with a Jacobi preconditioner; the matrices are never
    formed. Starts at zero, so the value falls however few the steps.

    Args:
        codes: int32 [N, M].
        residuals: float32 [N, d].
        codebook_size: K.
        weights: float32 [N, d]; 1 without.
        ridge: positive.
        steps: at most.

    Returns:
        float64 [M, K, d].
    """
    import torch

    native = extension_for(codes)
    if native is None:
        from tersor.kernels import twins

        return twins.conjugate_refit(codes, residuals, codebook_size, weights, ridge, steps)
    delta = torch.empty(codes.shape[1], codebook_size, residuals.shape[1], dtype=torch.float64)
    native.conjugate_refit(
        array(codes, torch.int32),
        array(residuals, torch.float32),
        array(weights, torch.float32),
        ridge,
        steps,
        delta.numpy(),
        thread_count(),
    )
    return delta


def solve_spd(matrix: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Solves `matrix @ x = right` for a symmetric positive definite matrix by Cholesky; always on the CPU.

    Args:
        matrix: float64 [n, n].
        right: float64 [n, d].

    Returns:
        float64 [n, d] on the device of `right`.

    Raises:
        ValueError: the matrix is not positive definite.
    """
    import torch

    native = extension()
    factor = matrix.to("cpu", torch.float64, copy=True).contiguous()
    out = right.to("cpu", torch.float64, copy=True).contiguous()
    if native is None:
        from tersor.kernels import twins

        return twins.solve_spd(factor, out).to(right.device)
    native.solve_spd(factor.numpy(), out.numpy(), thread_count())
    return out.to(right.device)
