"""Differentiable decoding: torch operations that give, bit for bit, what a reader of the file computes.

Forward follows the written order of `docs/format.md` (float32, every product and sum rounded by itself); what a file
stores as integers is rounded in the forward pass and passed straight through in the backward pass.

What backward needs stays on `ctx` itself: tensors saved by `save_for_backward` are freed by the first backward pass,
but under reentrant checkpointing every segment of a network brings its gradients in a pass of its own. No output is
kept, so that nothing refers to itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from tersor.archive import restore
from tersor.lattice.basis import SCALE
from tersor.representations.codes_stage import LIMIT
from tersor.representations.control import LARGEST_STEP, SMALLEST_STEP
from tersor.representations.lattice_stage import SHIFT_UNIT
from tersor.representations.scales import MAX_LEVEL, STEPS, scale_of

_LN2 = 0.6931471805599453


class RoundCodebooks(torch.autograd.Function):
    """Codebooks [M, K, d] to integers in -127..127 times their units [M], gradient straight through."""

    @staticmethod
    def forward(ctx: Any, codebooks: torch.Tensor, units: torch.Tensor) -> torch.Tensor:
        """The stored form of `codebooks`."""
        return codebook_integers(codebooks, units) * units[:, None, None]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        """The gradient as it is."""
        return gradient, None


class RoundBasis(torch.autograd.Function):
    """A basis [D, D] to integers over 127, gradient straight through."""

    @staticmethod
    def forward(ctx: Any, basis: torch.Tensor) -> torch.Tensor:
        """The stored form of `basis`."""
        return basis_integers(basis) / torch.full_like(basis, SCALE)  # a divisor that is no scalar: GPUs divide by it

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        """The gradient as it is."""
        return gradient


class SumCodewords(torch.autograd.Function):
    """Vectors [N, d] from codes int32 [N, M] and codebooks [M, K, d]: codewords added in the order of the codebooks."""

    @staticmethod
    def forward(ctx: Any, codes: torch.Tensor, codebooks: torch.Tensor) -> torch.Tensor:
        """The sum."""
        ctx.codes, ctx.size = codes, codebooks.shape[1]
        total = F.embedding(codes[:, 0], codebooks[0])
        for m in range(1, codes.shape[1]):
            total = total + F.embedding(codes[:, m], codebooks[m])
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, torch.Tensor]:
        """The gradient of a codeword is the sum of the gradients of all vectors that use it."""
        back = torch.ops.aten.embedding_dense_backward
        columns = ctx.codes.unbind(1)
        return None, torch.stack([back(gradient, column, ctx.size, -1, False) for column in columns])


class Points(torch.autograd.Function):
    """Coefficients [N, D] of lattice points given in 128th steps, from the logarithm of the step over `unit`."""

    @staticmethod
    def forward(ctx: Any, points: torch.Tensor, gain: torch.Tensor, unit: float) -> torch.Tensor:
        """Points times the step's 128th part."""
        ctx.points, ctx.part = points, step_of(gain, unit) / SHIFT_UNIT
        return points * ctx.part

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, torch.Tensor, None]:
        """By the chain rule, the gradient along the coefficients themselves."""
        return None, (gradient * ctx.points).sum() * ctx.part, None


class Synthesise(torch.autograd.Function):
    """Vectors `basis @ v` [N, D] of coefficients [N, D]: products added in the order of the coefficients."""

    @staticmethod
    def forward(ctx: Any, coefficients: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
        """The sum, each product and each addition rounded by itself (a matrix product would round otherwise)."""
        ctx.coefficients, ctx.basis = coefficients, basis
        out = coefficients[:, :1] * basis[:, 0]
        for j in range(1, basis.shape[1]):
            out += coefficients[:, j : j + 1] * basis[:, j]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Ordinary matrix products: gradients need no written order."""
        return gradient @ ctx.basis, gradient.T @ ctx.coefficients


class Scale(torch.autograd.Function):
    """Vectors [N, D] times the scales [n] of their tensors or rows, which are given as logarithms (base 2)."""

    @staticmethod
    def forward(
        ctx: Any, vectors: torch.Tensor, logs: torch.Tensor, table: torch.Tensor, owner: torch.Tensor
    ) -> torch.Tensor:
        """`table` holds every scale that a file can hold, `owner` [N] says whose scale a vector has."""
        scales = table[scale_levels(logs) + MAX_LEVEL]
        ctx.vectors, ctx.scales, ctx.owner = vectors, scales, owner
        return vectors * scales[owner][:, None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        """By the chain rule; the derivative of 2**x is ln 2 times the scale."""
        along = (gradient * ctx.vectors).sum(dim=1)
        sums = torch.zeros_like(ctx.scales).index_put((ctx.owner,), along, accumulate=True)
        return gradient * ctx.scales[ctx.owner][:, None], sums * ctx.scales * _LN2, None, None


class Cut(torch.autograd.Function):
    """Tensors from vectors [N, D], each in memory of its own as a parameter is; the gradient is dense.

    `sizes` are numbers of vectors, `where` the places [n] of what survives in each tensor of a sparse group: all other
    elements are zero, and no parameters, so that they stay zero whatever an optimizer does.
    """

    @staticmethod
    def forward(
        ctx: Any, vectors: torch.Tensor, sizes: Sequence[int], shapes: Sequence[tuple[int, ...]], *where: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Tensors in order and in their shapes."""
        ctx.set_materialize_grads(False)
        ctx.sizes, ctx.where, ctx.dim = sizes, where, vectors.shape[1]
        out = []
        for t, part in enumerate(vectors.split(sizes)):
            count = math.prod(shapes[t])
            if where:
                whole = vectors.new_zeros(shapes[t])
                whole.view(-1)[where[t]] = part.reshape(-1)[: len(where[t])]
            else:
                whole = part.reshape(-1)[:count].view(shapes[t]).clone()
            out.append(whole)
        return tuple(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        """Gradients of the vectors: joined as the tensors are, nothing where padding is or no gradient came."""
        given = next(g for g in gradients if g is not None)
        out = torch.zeros(sum(ctx.sizes), ctx.dim, dtype=given.dtype, device=given.device)
        for t, (gradient, part) in enumerate(zip(gradients, out.split(ctx.sizes), strict=True)):
            if gradient is not None:
                flat = dense(gradient).reshape(-1)
                flat = flat[ctx.where[t]] if ctx.where else flat
                part.view(-1)[: len(flat)] = flat
        return out, None, None, *(None for _ in ctx.where)


class Stored(torch.autograd.Function):
    """A float32 tensor in the file's type and then the model's, gradient straight through."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, stored: str, dtype: torch.dtype) -> torch.Tensor:
        """What a reader gives, and `load_state_dict` makes of it."""
        return restore(value, stored).to(dtype)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """The gradient in float32."""
        return dense(gradient).float(), None, None


def dense(gradient: torch.Tensor) -> torch.Tensor:
    """The gradient as a plain tensor: an embedding may give a sparse one, which decoded weights have no use for."""
    return gradient.to_dense() if gradient.is_sparse else gradient


def codebook_integers(codebooks: torch.Tensor, units: torch.Tensor) -> torch.Tensor:
    """Integers (as floats) [M, K, d] in -127..127, for codebooks in units [M]; a unit of 0 has none but 0."""
    safe = torch.where(units > 0, units, torch.inf)
    return (codebooks / safe[:, None, None]).round().clamp(-LIMIT, LIMIT)


def basis_integers(basis: torch.Tensor) -> torch.Tensor:
    """Integers (as floats) [D, D] in -127..127."""
    return (basis * SCALE).round().clamp(-SCALE, SCALE)


def step_of(gain: torch.Tensor, unit: float) -> torch.Tensor:
    """The step, float32 [], from the logarithm (natural) of the step over `unit`; within what a file can hold."""
    return (unit * gain.exp()).clamp(SMALLEST_STEP, LARGEST_STEP)


def scale_levels(logs: torch.Tensor) -> torch.Tensor:
    """Levels, int64, of scales given as logarithms (base 2)."""
    return (logs.double() * STEPS).round().clamp(-MAX_LEVEL, MAX_LEVEL).long()


def scale_table() -> np.ndarray:
    """The scales of all levels, float32, the lowest first."""
    return scale_of(np.arange(-MAX_LEVEL, MAX_LEVEL + 1))
