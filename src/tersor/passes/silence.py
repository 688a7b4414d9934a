"""Channels made quiet: where all weights of a channel are zero, so is everything that would speak in its place.

Ours: a filter of zeros still sends its bias, and what its batch norm makes of zeros. With these at zero too, a network
without the channel answers as the network with it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tersor.passes.dependency import Coupled
from tersor.passes.flow import Flow
from tersor.passes.fold import layer_before
from tersor.passes.sites import TRANSPOSED
from tersor.passes.work import Work


@torch.no_grad()
def hold_zero(work: Work, name: str, zeros: torch.Tensor) -> None:
    """Set elements of a parameter to zero, in all training to come as well.

    Args:
        work: takes the mask.
        name: of the parameter.
        zeros: bool, shaped like it; or for one dimension of several, like that.
    """
    if not bool(zeros.any()):
        return
    parameter = work.network.get_parameter(name)
    mask = work.masks.get(name, torch.ones_like(parameter, dtype=torch.bool)) & ~zeros
    work.masks[name] = mask
    parameter.mul_(mask)


def silence(work: Work, path: str, channels: torch.Tensor) -> None:
    """Make channels of a layer's bias, or of a batch norm, quiet: bias, gamma, beta and running mean at zero.

    Args:
        work: takes masks for the parameters.
        path: of the layer or norm.
        channels: bool, [channels].
    """
    module: Any = work.network.get_submodule(path)
    leaves = ("weight", "bias") if isinstance(module, _BatchNorm) else ("bias",)
    for leaf in leaves:
        if getattr(module, leaf, None) is not None:
            hold_zero(work, f"{path}.{leaf}", channels)
    if isinstance(module, _BatchNorm) and module.running_mean is not None:
        module.running_mean[channels] = 0


def silence_group(work: Work, group: Coupled) -> None:
    """Silence the channels of a group that all layers making them leave at zero, in every member."""
    gone = mute(work.network, group)
    for member in group.of("out", "through"):
        module: Any = work.network.get_submodule(member.path)
        channels = torch.zeros(len(module.weight) if module.weight is not None else module.num_features).bool()
        if isinstance(module, TRANSPOSED):
            channels = torch.zeros(module.out_channels).bool()
        channels[torch.tensor(member.channels)[gone[torch.tensor(member.roots)]]] = True
        silence(work, member.path, channels.to(work.device))


def norm_behind(flow: Flow, exclude: tuple[str, ...] = ()) -> dict[str, str]:
    """The batch norm right behind each layer and behind nothing else, by the layer's path."""
    found = {}
    for node in flow.nodes:
        if isinstance(flow.module(node), _BatchNorm):
            layer, why = layer_before(flow, node, exclude)
            if not why:
                found[layer] = str(node.target)
    return found


def zero_rows(layer: Any) -> torch.Tensor:
    """Which output channels of a layer have nothing but zero weights, bool [channels]."""
    weight = layer.weight.transpose(0, 1) if isinstance(layer, TRANSPOSED) else layer.weight
    return (weight.reshape(len(weight), -1) == 0).all(1)


def mute(network: nn.Module, group: Coupled) -> torch.Tensor:
    """Which channels of a group all layers that make them leave at zero weights, bool [count]."""
    found = torch.ones(group.count, dtype=torch.bool)
    for member in group.of("out"):
        _and(found, member.roots, member.channels, zero_rows(network.get_submodule(member.path)))
    return found


def quiet(network: nn.Module, group: Coupled) -> torch.Tensor:
    """Which channels of a group send nothing but zeros: mute, and silenced all the way, bool [count]."""
    found = mute(network, group)
    for member in group.of("out", "through"):
        module: Any = network.get_submodule(member.path)
        for leaf in ("weight", "bias") if isinstance(module, _BatchNorm) else ("bias",):
            tensor = getattr(module, leaf, None)
            if tensor is not None and tensor.ndim == 1:
                _and(found, member.roots, member.channels, tensor == 0)
        if isinstance(module, _BatchNorm) and module.bias is None and module.running_mean is not None:
            _and(found, member.roots, member.channels, module.running_mean == 0)
    return found


def unheard(network: nn.Module, group: Coupled) -> torch.Tensor:
    """Which channels of a group all layers behind multiply by zero, bool [count]."""
    found = torch.ones(group.count, dtype=torch.bool)
    for member in group.of("in"):
        module: Any = network.get_submodule(member.path)
        weight = module.weight if isinstance(module, TRANSPOSED) else module.weight.transpose(0, 1)
        zero = (weight.reshape(len(weight), -1) == 0).all(1)
        _and(found, member.roots, member.channels, zero)
    return found


def _and(found: torch.Tensor, roots: tuple[int, ...], channels: tuple[int, ...], holds: torch.Tensor) -> None:
    """`found[root] &= holds[channel]` for every pair."""
    wrong = ~holds.cpu()[list(channels)]
    found[torch.tensor(roots, dtype=torch.long)[wrong]] = False
