"""A linear layer straight from its codes, for a few inputs: additions of table entries instead of the weights.

A short vector of an input has one inner product with each of the K codewords of a codebook. They make a table, and
every row of the layer looks its own up. The weights are never decoded: M bytes are read for each d of them, which a
layer that waits for memory gains by. With many inputs a dense product of the decoded weights is faster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tersor.kernels.native import array, extension_for
from tersor.kernels.threads import thread_count

if TYPE_CHECKING:
    import torch

_GROUP = 64  # kGroup in csrc/lookup.cpp


def lookup(codes: torch.Tensor, codebooks: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """`y[b, r] = sum over m, j of <C_m[codes[m, j, r]], x_j[b]>`, with `x_j` the j-th short vector of an input.

    All is float32, without gradients. Sums have one order: over the dimensions of a product; from zero over 64
    positions (m, j), j running first; from zero over those sums. So the bits are the same on every machine, at any
    number of threads, and whichever inputs share a call.

    Args:
        codes: uint8 [M, J, R], the rows of the layer last, so that they stream; copied if not contiguous.
        codebooks: float32 [M, K, d], K at most 256.
        x: float32 [B, J * d]. One to eight inputs are what this is for; any number is done, four at a time.

    Returns:
        float32 [B, R].

    Raises:
        ValueError: the shapes disagree, K is 0 or above 256, or codes are not uint8.
        IndexError: a code is outside 0..K-1.
    """
    import torch

    _require_shapes(codes, codebooks, x)
    native = extension_for(codes)
    if native is None:
        return twin(codes, codebooks.detach().float(), x.detach().float())
    out = torch.empty(x.shape[0], codes.shape[2])
    arrays = array(codes, torch.uint8), array(codebooks, torch.float32), array(x, torch.float32)
    native.lookup(*arrays, out.numpy(), thread_count())
    return out


def twin(codes: torch.Tensor, codebooks: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The same in plain torch, for any device and to the same bits; see `lookup`."""
    import torch

    (_, inputs, rows), (_, size, dims) = codes.shape, codebooks.shape
    if codes.numel() and int(codes.max()) >= size:
        raise IndexError(f"code {int(codes.max())} is outside 0..{size - 1}")
    batch = x.shape[0]
    positions, vectors = codes.flatten(0, 1), x.reshape(batch, inputs, dims).permute(1, 2, 0)
    out = x.new_zeros(rows, batch)
    for first in range(0, positions.shape[0], _GROUP):
        group = positions[first : first + _GROUP]
        at = torch.arange(first, first + group.shape[0], device=codes.device)
        words, here = codebooks[at // inputs], vectors[at % inputs]
        tables = words[:, :, 0, None] * here[:, None, 0]
        for i in range(1, dims):
            tables = tables + words[:, :, i, None] * here[:, None, i]
        sums = torch.zeros_like(out)
        for table, chosen in zip(tables, group, strict=True):
            sums = sums + table[chosen.long()]
        out = out + sums
    return out.T.contiguous()


def _require_shapes(codes: torch.Tensor, codebooks: torch.Tensor, x: torch.Tensor) -> None:
    import torch

    if codes.dtype != torch.uint8:
        raise ValueError(f"lookup: codes are {codes.dtype}; they must be torch.uint8")
    fit = (codes.ndim, codebooks.ndim, x.ndim) == (3, 3, 2) and codes.shape[0] == codebooks.shape[0]
    if not fit or codes.shape[1] * codebooks.shape[2] != x.shape[1]:
        shapes = f"codes {list(codes.shape)}, codebooks {list(codebooks.shape)} and x {list(x.shape)}"
        raise ValueError(f"lookup: {shapes} do not fit; they must be [M, J, R], [M, K, d] and [B, J * d]")
    if not 1 <= codebooks.shape[1] <= 256 or codebooks.shape[2] == 0:
        raise ValueError(f"lookup: codebooks {list(codebooks.shape)} need 1 to 256 codewords of a dimension or more")
