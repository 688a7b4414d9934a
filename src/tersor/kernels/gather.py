"""Decoding: gather codewords and add them, in the order of the stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tersor.kernels.native import array, extension_for
from tersor.kernels.threads import thread_count

if TYPE_CHECKING:
    import torch


def decode(codes: torch.Tensor, codebooks: torch.Tensor) -> torch.Tensor:
    """Vectors from codes: `((C_0[i_0] + C_1[i_1]) + C_2[i_2]) + ...`, the same bits on every machine and backend.

    Args:
        codes: int32 [N, M].
        codebooks: float32 [M, K, d].

    Returns:
        float32 [N, d].

    Raises:
        IndexError: a code is outside 0..K-1.
    """
    import torch

    native = extension_for(codes)
    if native is None:
        from tersor.kernels import twins

        return twins.decode(codes, codebooks)
    out = torch.empty(codes.shape[0], codebooks.shape[2])
    native.decode(array(codes, torch.int32), array(codebooks, torch.float32), out.numpy(), thread_count())
    return out
