"""Batch norms folded into the layers that feed them: fewer tensors, the same network.

Source: the usual arithmetic of inference (Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", 2018, section 3.2). Ours: where it is safe, told by the flow of the network.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from tersor.passes.flow import Flow, flow_of, operation, tell_left
from tersor.passes.sites import put
from tersor.passes.step import Stage, Step
from tersor.passes.work import Work


class Fold(Step, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Folds every batch norm that can be into the linear or convolution layer before it; has no settings."""

    name: ClassVar[str] = "fold"
    stage: ClassVar[Stage] = Stage.SHRINK
    about: ClassVar[str] = "folds batch norms into the layers that feed them; exact, needs no data"

    def run(self, work: Work) -> None:
        """Fold what can be folded; say what not, and why."""
        flow = flow_of(work)
        done, left = 0, {}
        for node in flow.nodes:
            if not isinstance(flow.module(node), _BatchNorm):
                continue
            layer, why = layer_before(flow, node, work.exclude)
            if why:
                left[str(node.target)] = why
                continue
            fold_(work, layer, str(node.target))
            done += 1
        tell_left(work, "not folded", left)
        work.tell(f"{done} batch norms folded into the layers before them")


def layer_before(flow: Flow, node: fx.Node, exclude: tuple[str, ...] = ()) -> tuple[str, str]:
    """The path of the layer that a batch norm can be folded into, and why it cannot, in a few words."""
    path = str(node.target)
    norm = flow.modules[path]
    assert isinstance(norm, _BatchNorm)
    if norm.running_mean is None:
        return "", "it keeps no statistics"
    why = flow.why_not(path, exclude)
    if why:
        return "", why
    before = next(iter(flow.sources(node)), None)
    layer = None if before is None else flow.module(before)
    if before is None or not isinstance(layer, (nn.Linear, _ConvNd)):
        return "", "what it normalizes is not the output of a linear or convolution layer"
    where = str(before.target)
    if any(user is not node for user in flow.readers(before)):
        others = sorted({operation(user) for user in flow.readers(before) if user is not node})
        return "", f"the output of the layer before it goes elsewhere too ({', '.join(others)})"
    why = flow.why_not(where, exclude)
    if why:
        return "", f"the layer before it cannot be changed: {why}"
    if rows_of(layer) != norm.num_features:
        return "", f"it has {norm.num_features} channels, and the layer before it {rows_of(layer)}"
    return where, ""


def rows_of(layer: nn.Module) -> int:
    """Output channels of a linear or convolution layer."""
    return layer.out_features if isinstance(layer, nn.Linear) else int(layer.out_channels)  # type: ignore[arg-type]


def folded(layer: nn.Module, norm: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of a layer that does both: `w gamma / sigma` and `beta + (b - mu) gamma / sigma`.

    Computed in float64. With `sigma = sqrt(var + eps)`; a norm without gamma and beta has ones and zeros.

    Returns:
        A weight like the layer's, and a bias of one number for each output channel, of the weight's type.
    """
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, torch.Tensor) and isinstance(norm, _BatchNorm)
    assert norm.running_mean is not None and norm.running_var is not None
    gain = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        gain = gain * norm.weight.detach().double()
    shift = torch.zeros_like(gain) if norm.bias is None else norm.bias.detach().double()
    start = 0.0 if bias is None else bias.detach().double()  # type: ignore[operator]
    new = weight.detach().double()
    tail = [1] * (new.ndim - 2)
    if isinstance(layer, _ConvNd) and layer.transposed:  # [in, out / groups, ...]: rows of a group share its outputs
        grouped = new.reshape(layer.groups, -1, *new.shape[1:])
        new = (grouped * gain.reshape(layer.groups, 1, -1, *tail)).reshape(new.shape)
    else:
        new = new * gain.reshape(-1, 1, *tail)
    moved = shift + (start - norm.running_mean.double()) * gain
    return new.to(weight.dtype), moved.to(weight.dtype)


@torch.no_grad()
def fold_(work: Work, layer: str, norm: str) -> None:
    """Fold the norm at one path into the layer at another; masks of the norm's bias become the new bias's."""
    taker: Any = work.network.get_submodule(layer)
    weight, bias = folded(taker, work.network.get_submodule(norm))
    taker.weight.copy_(weight)
    if taker.bias is None:
        taker.bias = nn.Parameter(bias, requires_grad=taker.weight.requires_grad)
    else:
        taker.bias.copy_(bias)
    put(work.network, norm, nn.Identity())
    mask = work.masks.pop(f"{norm}.bias", None)
    work.masks.pop(f"{norm}.weight", None)
    work.masks.pop(f"{layer}.bias", None)
    if mask is not None:
        work.masks[f"{layer}.bias"] = mask
    work.fixed -= {f"{norm}.weight", f"{norm}.bias"}
