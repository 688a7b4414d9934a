"""A layer made to have tensors of other shapes, in place: what a file of a smaller network needs to be loaded into."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from tersor.errors import TersorError

Shape = tuple[int, ...]
Sizes = tuple[dict[str, object], dict[str, Shape]]
"""A module's attributes, and the shapes of all tensors that it may have."""


@torch.no_grad()
def resize_(module: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Change a layer so that its parameters and buffers have these shapes.

    Tensors whose shape changes become zeros (a running variance: ones) of the same type, on the same device; others
    keep their values. Parameters stay the same objects, so that ties hold. Attributes (`in_channels`, `groups` of a
    depthwise convolution, ...) follow. A bias that the layer lacks is added.

    Args:
        module: linear, convolution (transposed too), batch, instance, group or layer norm, PReLU or embedding; any
            other only with the shapes that it has.
        shapes: by name in the module, `weight`, `running_mean`; tensors not named follow those that are.

    Raises:
        TersorError: such a layer cannot have these shapes.
    """
    wanted = {leaf: tuple(int(n) for n in shape) for leaf, shape in shapes.items()}
    have = {leaf: tuple(t.shape) for leaf, t in _own(module).items()}
    kind = next((known for known in _KINDS if isinstance(module, known)), None)
    if kind is None:
        if any(have.get(leaf) != shape for leaf, shape in wanted.items()):
            _refuse(module, "has no known way to change its shapes")
        return
    if "weight" in wanted and "weight" not in module._parameters:
        _refuse(module, "computes its weight (a parametrization)")
    attributes, allowed = _KINDS[kind](module, wanted)
    for leaf, shape in wanted.items():
        if allowed.get(leaf) != shape:
            said = f", but {list(allowed[leaf])}" if leaf in allowed else ""
            _refuse(module, f"cannot have {leaf} of shape {list(shape)}{said}")
    for name, value in attributes.items():
        setattr(module, name, value)
    for leaf, shape in allowed.items():
        if leaf in have or leaf in wanted:
            _give(module, leaf, shape)


def _own(module: nn.Module) -> dict[str, torch.Tensor]:
    found = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return {leaf: tensor for leaf, tensor in found if tensor is not None}


def _refuse(module: nn.Module, why: str) -> None:
    raise TersorError(f"a {type(module).__name__} {why}; give the model that the file was made from")


def _give(module: nn.Module, leaf: str, shape: Shape) -> None:
    tensor = _own(module).get(leaf)
    if tensor is None:
        like = module.weight
        assert isinstance(like, torch.Tensor)
        module.register_parameter(leaf, nn.Parameter(like.new_zeros(shape), requires_grad=like.requires_grad))
    elif tuple(tensor.shape) != shape:
        tensor.grad = None
        tensor.data = (torch.ones if leaf == "running_var" else torch.zeros)(
            shape, dtype=tensor.dtype, device=tensor.device
        )


def _shape(module: nn.Module, shapes: Mapping[str, Shape], leaves: tuple[str, ...], dims: int | None) -> Shape:
    """The shape asked for by the first of these names, or else what the module has; of so many dimensions."""
    own = _own(module)
    for leaf in leaves:
        if leaf in shapes:
            shape = shapes[leaf]
            if (dims is not None and len(shape) != dims) or 0 in shape or not shape:
                _refuse(module, f"cannot have {leaf} of shape {list(shape)}")
            return shape
    return next((tuple(own[leaf].shape) for leaf in leaves if leaf in own), ())


def _linear(module: nn.Linear, shapes: Mapping[str, Shape]) -> Sizes:
    rows, columns = _shape(module, shapes, ("weight",), 2)
    return {"out_features": rows, "in_features": columns}, {"weight": (rows, columns), "bias": (rows,)}


def _convolution(module: _ConvNd, shapes: Mapping[str, Shape]) -> Sizes:
    kernel = tuple(module.kernel_size)
    weight = _shape(module, shapes, ("weight",), 2 + len(kernel))
    if weight[2:] != kernel:
        _refuse(module, f"cannot have weight of shape {list(weight)}: its kernel is {list(kernel)}")
    depthwise = module.groups > 1 and module.groups == module.in_channels
    multiplier = module.out_channels // module.in_channels if depthwise else 1
    groups = module.groups
    if module.transposed:
        groups = weight[0] if depthwise else groups
        inputs, outputs = weight[0], weight[1] * groups
    else:
        groups = weight[0] // multiplier if depthwise else groups
        inputs, outputs = weight[1] * groups, weight[0]
    if groups < 1 or inputs % groups or outputs % groups or (depthwise and outputs != inputs * multiplier):
        _refuse(module, f"in {module.groups} groups cannot have weight of shape {list(weight)}")
    return (
        {"in_channels": inputs, "out_channels": outputs, "groups": groups},
        {"weight": weight, "bias": (outputs,)},
    )


def _batch_norm(module: _NormBase, shapes: Mapping[str, Shape]) -> Sizes:
    found = _shape(module, shapes, ("weight", "running_mean", "bias", "running_var"), 1) or (module.num_features,)
    leaves: dict[str, Shape] = {}
    if module.affine:
        leaves |= {"weight": found, "bias": found}
    if module.track_running_stats:
        leaves |= {"running_mean": found, "running_var": found, "num_batches_tracked": ()}
    return {"num_features": found[0]}, leaves


def _group_norm(module: nn.GroupNorm, shapes: Mapping[str, Shape]) -> Sizes:
    found = _shape(module, shapes, ("weight", "bias"), 1) or (module.num_channels,)
    if found[0] % module.num_groups:
        _refuse(module, f"of {module.num_groups} groups cannot have {found[0]} channels")
    return {"num_channels": found[0]}, {"weight": found, "bias": found} if module.affine else {}


def _layer_norm(module: nn.LayerNorm, shapes: Mapping[str, Shape]) -> Sizes:
    found = _shape(module, shapes, ("weight", "bias"), len(module.normalized_shape)) or tuple(module.normalized_shape)
    return {"normalized_shape": found}, {"weight": found, "bias": found} if module.elementwise_affine else {}


def _prelu(module: nn.PReLU, shapes: Mapping[str, Shape]) -> Sizes:
    found = _shape(module, shapes, ("weight",), 1)
    return {"num_parameters": found[0]}, {"weight": found}


def _embedding(module: nn.Embedding, shapes: Mapping[str, Shape]) -> Sizes:
    rows, columns = found = _shape(module, shapes, ("weight",), 2)
    if module.padding_idx is not None and module.padding_idx >= rows:
        _refuse(module, f"cannot have {rows} rows: its padding is row {module.padding_idx}")
    return {"num_embeddings": rows, "embedding_dim": columns}, {"weight": found}


_KINDS: dict[type[Any], Callable[[Any, Mapping[str, Shape]], Sizes]] = {
    nn.Linear: _linear,
    _ConvNd: _convolution,
    _NormBase: _batch_norm,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _layer_norm,
    nn.PReLU: _prelu,
    nn.Embedding: _embedding,
}
