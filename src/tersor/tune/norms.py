"""Batch-norm statistics, re-estimated for the weights as they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from tersor.tune.batches import split, to_device


def has_statistics(net: nn.Module) -> bool:
    """Whether any layer of the network keeps running statistics of its input."""
    return any(_keeps(layer) for layer in net.modules())


def _keeps(layer: nn.Module) -> bool:
    return isinstance(layer, nn.modules.batchnorm._NormBase) and layer.running_mean is not None


@torch.no_grad()
def reestimate(net: nn.Module, batches: Iterable[object], *, labelled: bool = False) -> int:
    """Set running means and variances to their averages over the batches; returns how many batches there were.

    Only normalization layers are in training mode meanwhile; modes and momenta are as before afterwards. Without
    batches nothing changes.

    Args:
        net: any module; where it is on a GPU, batches are brought there.
        batches: of inputs, as for `distill`.
        labelled: whether the last item of a batch is labels.
    """
    layers: list[Any] = [layer for layer in net.modules() if _keeps(layer)]
    modes = {layer: layer.training for layer in net.modules()}
    momenta = [layer.momentum for layer in layers]
    counts = [layer.num_batches_tracked for layer in layers]
    before = [None if count is None else count.clone() for count in counts]
    net.eval()
    device = next(iter(net.parameters())).device
    done = 0
    try:
        for done, batch in enumerate(batches, 1):
            for layer in layers:
                layer.train()
                layer.momentum = 1.0 / done  # a cumulative average; the first batch replaces what was there
            to_device(split(batch, labelled), device).call(net)
    finally:
        for layer, momentum, count, old in zip(layers, momenta, counts, before, strict=True):
            layer.momentum = momentum
            if count is not None and old is not None:
                count.copy_(old)
        for layer, mode in modes.items():
            layer.training = mode
    return done
