"""Linear layers straight from codes: few rows of input look their products up instead of decoding the weights.

For an input cut like the weights, the product with every codeword is computed once (`kernels.lookup`); each output is
then a sum of table entries, one per code. Where a code escapes, the nearest codeword stands in, and a sparse
correction adds what it lacks. `python -m benchmarks lookup`
measures from which size on that is faster.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from tersor.kernels.lookup import lookup
from tersor.kernels.native import extension
from tersor.lazy.coded import CodedSum, CodedTensor, unpacked

MOST_ROWS = 4
"""Rows of input up to which tables are faster than decoding and multiplying."""


@dataclass(frozen=True)
class Tables:
    """A matrix [R, C] ready for look-ups.

    Attributes:
        codes: uint8 [M, J, R].
        codebooks: float32 [M, K, d].
        fixes: int32 rows, int32 columns, float32 differences [e] from what the codes say, or None.
        scales: float32 [1] or [R], or None.
        columns: C, at most J * d.
    """

    codes: torch.Tensor
    codebooks: torch.Tensor
    fixes: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None
    scales: torch.Tensor | None
    columns: int

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """`x @ W.T`, float32 [B, R], for x [B, C]."""
        short = self.codes.shape[1] * self.codebooks.shape[2] - self.columns
        y = lookup(self.codes, self.codebooks, F.pad(x, (0, short)) if short else x.contiguous())
        if self.fixes is not None:
            rows, columns, differences = self.fixes
            y = y.index_add(1, rows, x[:, columns] * differences)
        return y if self.scales is None else y * self.scales


def tables_of(coded: CodedTensor) -> Tables | None:
    """Tables for a matrix that is codes alone, or lattice points in rows of one class; None for any other."""
    if not isinstance(coded, CodedSum) or len(coded.shape) != 2 or coded.where is not None or coded.basis is not None:
        return None
    if coded.stored != "float32" or coded.dtype != torch.float32:
        return None  # weights are rounded once more
    rows, columns = coded.shape
    scales = None if coded.scales is None else coded.scales.reshape(-1)
    if coded.vectors[0] != rows or coded.vectors[1] * coded.vectors[2] != columns:
        return None
    if coded.levels is None:
        if any(size > 256 for size, _, _ in coded.words):
            return None
        data = [unpacked(coded.get_buffer(f"codes{m}"), *word).byte() for m, word in enumerate(coded.words)]
        each = [codes.reshape(rows, -1).T for codes in data]
        books = [coded.get_buffer(f"codebook{m}") for m in range(len(coded.words))]
        return Tables(torch.stack(each).contiguous(), torch.stack(books), None, scales, columns)
    if coded.words or coded.vectors[2] != 1:
        return None
    found = coded.levels.matrix()
    if found is None:
        return None
    codes, book, escapes = found
    fixes = None
    if escapes is not None:
        places, words = escapes
        codes = codes.clone()
        near = _nearest(words, book)
        codes.view(-1)[places] = near.to(torch.uint8)
        differences = words - book[near]
        which, digit = differences.nonzero(as_tuple=True)
        line, position = places[which] // codes.shape[1], places[which] % codes.shape[1]
        at = position * book.shape[1] + digit
        inside = at < columns  # what fills the last tuple of a row counts for nothing
        fixes = line[inside].int(), at[inside].int(), differences[which, digit][inside]
    return Tables(codes.T.contiguous()[None], book[None], fixes, scales, columns)


def _nearest(words: torch.Tensor, book: torch.Tensor) -> torch.Tensor:
    """The codeword that has the most entries of each word [e, d] right, int64 [e]."""
    parts = [(part[:, None] != book).sum(dim=2).argmin(dim=1) for part in words.split(2048)]
    return torch.cat(parts)


def linear_forward(self: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """What `nn.Linear` computes; from tables where there are few rows of input."""
    if _plain(x) and x.numel() <= MOST_ROWS * x.shape[-1] and extension() is not None:
        tables = held(self._modules["tersor_codes"]._modules["weight_"])  # type: ignore[union-attr,arg-type]
        if tables is not None:
            y = tables.multiply(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], self.out_features)
            return y if self.bias is None else y + self.bias
    return F.linear(x, self.weight, self.bias)


def _plain(x: torch.Tensor) -> bool:
    """Whether the kernel may read x: on the CPU in float32, and nothing records, traces, transforms or casts."""
    return (
        not torch.compiler.is_compiling()
        and type(x) is torch.Tensor
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not (torch.is_grad_enabled() and x.requires_grad)
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
        and _get_current_dispatch_mode() is None
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
    )


def held(coded: CodedTensor) -> Tables | None:
    """The tables of a tensor, made at first use; beside its codes they take as much again."""
    if not hasattr(coded, "_tables"):
        coded._tables = tables_of(coded)  # type: ignore[assignment]
    return coded._tables  # type: ignore[return-value]
