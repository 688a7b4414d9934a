"""A layer as a chain of smaller ones, built from the names and shapes of its factors alone; and back to a dense weight.

A factorized layer `fc` has the tensors `fc.0.weight`, `fc.1.weight` (and `fc.2.weight`), and `fc.<last>.bias`:

| layer | factors | chain |
|---|---|---|
| linear [n_h, n_v] | [J n_a, n_v], [n_h, n_a] | linear, then linear (J = 1) or `Columns` |
| convolution [O, C, k, k] | [J r, C, k, k], [O, r, 1, 1] | k x k, strided and padded as the layer; 1 x 1 in J groups |
| convolution [O, C, k, k] | [s, C, 1, 1], [r, s, k, k], [O, r, 1, 1] | 1 x 1, k x k as above, 1 x 1 (Tucker-2) |

The number of columns J follows from the shapes. Only the last layer has a bias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from tersor.errors import TersorError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

_READ_LINEAR = ("in_features", "out_features")
_READ_CONVOLUTION = (
    "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode",
    "output_padding", "transposed",
)  # fmt: skip

Shapes = list[tuple[int, ...]]


class Columns(nn.Module):
    """A linear layer in groups, as a grouped convolution is one: each group of outputs sees its own part of the input.

    Denil et al. 2013, section 3.1, "columns": W = [U_1 V_1, ..., U_J V_J]; the V's lie one above the other here.
    """

    def __init__(
        self,
        columns: int,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Zeros.

        Args:
            columns: J, divides out_features.
            in_features: n_a, of each column.
            out_features: n_h, of all columns.
            bias: whether there is one.
            device, dtype: of the parameters.
        """
        super().__init__()
        self.columns, self.in_features, self.out_features = columns, in_features, out_features
        self.weight = nn.Parameter(torch.zeros(out_features, in_features, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(out_features, device=device, dtype=dtype)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., J n_a] to [..., n_h]."""
        weight = self.weight.view(self.columns, -1, self.in_features)
        y = torch.einsum("...ja,jha->...jh", x.unflatten(-1, (self.columns, self.in_features)), weight).flatten(-2)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"columns={self.columns}, in_features={self.in_features}, out_features={self.out_features}"


class Factored(nn.Sequential):
    """The layers of a factorized layer, one after the other.

    Sizes that code reads of the layer (`in_features`, `stride`, ...) are there as they were; so are `weight` and
    `bias`, for code that takes them past `forward` (`nn.MultiheadAttention`, functional calls): the weight is
    multiplied out then, with gradients, which saves no work.
    """

    @property
    def weight(self) -> torch.Tensor:
        """The dense weight; not part of the state dict."""
        return dense(self)[0]

    @property
    def bias(self) -> torch.Tensor | None:
        """The last layer's."""
        return dense(self)[1]


def chain_like(module: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> Factored:
    """The chain that takes a layer's place, of zeros; dtype, device, mode and whether it learns are the layer's.

    Sizes of channels are those of the shapes, which may differ from the layer's (it may have been shrunk before);
    kernel size, stride, padding and dilation are the layer's. The global random state is left alone.

    Args:
        module: a linear layer, or a convolution without groups.
        shapes: of all tensors under the layer's name, as in the file: "0.weight", "1.weight", "1.bias".

    Raises:
        TersorError: the module is another one, or the shapes make no such chain.
    """
    sizes = _weights(module, shapes)
    bias = f"{len(sizes) - 1}.bias" in shapes
    made = None
    if isinstance(module, nn.Linear):
        made = _linear(module, sizes, bias)
    elif isinstance(module, CONVOLUTIONS) and module.groups == 1:
        made = _convolution(module, sizes, bias)
    if made is None:
        raise _misfit(module, shapes)
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    made.to_empty(device=weight.device).train(module.training).requires_grad_(weight.requires_grad)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
    return made


@torch.no_grad()
def fill(chain: Factored, tensors: Mapping[str, torch.Tensor]) -> None:
    """Set a chain's parameters, rounded to its dtype; all of them must be there."""
    for name, parameter in chain.named_parameters():
        parameter.copy_(tensors[name])


def dense(chain: nn.Sequential) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The weight and bias of the layer that a chain stands for; differentiable, in the chain's dtype.

    Returns:
        [n_h, n_v] or [O, C, k, k], and [n_h] or None.
    """
    bias = chain[-1].bias
    assert bias is None or isinstance(bias, torch.Tensor)
    return product([layer.get_parameter("weight") for layer in chain]), bias


def product(weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """The weight that two factors (of one column or more) or three stand for, first to last as a chain has them."""
    first, last = weights[0], weights[-1].flatten(1)
    if len(weights) == 3:
        return torch.einsum("or,rs...,si->oi...", last, weights[1], first.flatten(1))
    rank = last.shape[1]
    u, v = first.reshape(-1, rank, first[0].numel()), last.reshape(first.shape[0] // rank, -1, rank)
    return torch.bmm(v, u).reshape(last.shape[0], *first.shape[1:])


def _weights(module: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> Shapes:
    """Shapes of the factors in order; what is there beside them and a bias of the last one's is a misfit."""
    count = sum(name.endswith(".weight") for name in shapes)
    names = [f"{i}.weight" for i in range(count)]
    beside = set(shapes) - set(names)
    if count not in (2, 3) or not set(names) <= set(shapes) or not beside <= {f"{count - 1}.bias"}:
        raise _misfit(module, shapes)
    sizes = [tuple(shapes[name]) for name in names]
    if not all(sizes) or not all(n > 0 for size in sizes for n in size):
        raise _misfit(module, shapes)
    if any(tuple(shapes[name]) != (sizes[-1][0],) for name in beside):
        raise _misfit(module, shapes)
    return sizes


def _columns(sizes: Shapes) -> int:
    """J of two factors, 0 where they do not go together."""
    (rows, *_), (outputs, rank, *_) = sizes[0], sizes[1]
    return rows // rank if rows % rank == 0 and outputs % (rows // rank) == 0 else 0


def _linear(module: nn.Linear, sizes: Shapes, bias: bool) -> Factored | None:
    if [len(size) for size in sizes] != [2, 2] or not _columns(sizes):
        return None
    (rows, inputs), (outputs, rank) = sizes
    dtype, columns = module.weight.dtype, _columns(sizes)
    second: nn.Module
    if columns == 1:
        second = nn.Linear(rank, outputs, bias=bias, device="meta", dtype=dtype)
    else:
        second = Columns(columns, rank, outputs, bias, "meta", dtype)
    made = Factored(nn.Linear(inputs, rows, bias=False, device="meta", dtype=dtype), second)
    return _readable(made, module, _READ_LINEAR, in_features=inputs, out_features=outputs)


def _convolution(module: nn.Module, sizes: Shapes, bias: bool) -> Factored | None:
    assert isinstance(module, CONVOLUTIONS)
    kernel = tuple(module.kernel_size)
    ones = (1,) * len(kernel)
    kernels = [kernel, ones] if len(sizes) == 2 else [ones, kernel, ones]
    if [size[2:] for size in sizes] != kernels:
        return None
    groups = [1] * len(sizes)
    if len(sizes) == 2:
        groups[1] = _columns(sizes)
    elif any(size[1] != before[0] for before, size in pairwise(sizes)):
        return None
    if not all(groups):
        return None
    layers = []
    for i, (rows, cols, *_) in enumerate(sizes):
        how: dict[str, Any] = {"groups": groups[i], "bias": bias and i == len(sizes) - 1}
        if i == len(sizes) - 2:
            how |= {name: getattr(module, name) for name in ("stride", "padding", "dilation", "padding_mode")}
        made = type_of(module)(cols * groups[i], rows, kernels[i], **how, device="meta", dtype=module.weight.dtype)
        layers.append(made)
    return _readable(Factored(*layers), module, _READ_CONVOLUTION, in_channels=sizes[0][1], out_channels=sizes[-1][0])


def type_of(module: nn.Module) -> type[nn.Module]:
    """The class of torch's own that a linear layer or convolution is one of."""
    return next(kind for kind in (nn.Linear, *CONVOLUTIONS) if isinstance(module, kind))


def _readable(made: Factored, module: nn.Module, names: tuple[str, ...], **changed: int) -> Factored:
    for name in names:
        setattr(made, name, changed.get(name, getattr(module, name)))
    return made


def _misfit(module: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> TersorError:
    told = ", ".join(f"{name} {list(shape)}" for name, shape in list(shapes.items())[:6])
    return TersorError(
        f"the tensors {told} are no factors of a {type(module).__name__} layer; "
        "give the network that was compressed, with this layer as it was"
    )
