"""Mean squares of what weights are multiplied by: how much an error of a weight moves its layer's output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tersor.errors import TersorError
from tersor.tune.batches import Batch
from tersor.tune.ranks import Ranks

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Activation:
    """E[x^2] of each weight's input feature in linear, convolution and embedding layers, seen by hooks."""

    def __init__(self, model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
        """Of the weights among `parameters` (by name) of a model in eval mode."""
        self._model = model
        names = {id(p): name for name, p in parameters.items()}
        self._layers: dict[nn.Module, str] = {
            module: names[id(module.weight)]
            for module in model.modules()
            if isinstance(module, (nn.Linear, *_CONVS, *_TRANSPOSED, nn.Embedding)) and id(module.weight) in names
        }
        self._order = list(parameters)
        self._sums: dict[nn.Module, torch.Tensor] = {}
        self._counts: dict[nn.Module, int] = {}

    def add(self, batch: Batch) -> None:
        """Run a batch without labels through the model."""
        handles = [layer.register_forward_pre_hook(self._see, with_kwargs=True) for layer in self._layers]
        try:
            with torch.no_grad():
                batch.call(self._model)
        finally:
            for handle in handles:
                handle.remove()

    def result(self, ranks: Ranks) -> dict[str, torch.Tensor]:
        """Mean squares by name, shaped like the weights, float32 on the CPU, over what all processes took in.

        Raises:
            TersorError: none of the layers was called.
        """
        found: dict[str, torch.Tensor] = {}
        for layer in self._layers:
            shares = ranks.gather((self._sums.get(layer), self._counts.get(layer, 0)))
            seen = [total for total, _ in shares if total is not None]
            if seen:
                self._sums[layer] = torch.stack(seen).sum(0)
                self._counts[layer] = sum(count for _, count in shares)
        for layer, total in self._sums.items():
            name, mean = self._layers[layer], _shaped(layer, (total / max(self._counts[layer], 1)).float())
            found[name] = found[name] + mean if name in found else mean
        if not found:
            raise TersorError("no linear, convolution or embedding layer was called; use kind='fisher'")
        return {name: found[name] for name in self._order if name in found}

    def _see(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = (args[0] if args else kwargs["input"]).detach()
        if isinstance(layer, nn.Embedding):
            total = torch.bincount(x.reshape(-1), minlength=layer.num_embeddings)
            count = x.numel()
        else:
            channel = -1 if isinstance(layer, nn.Linear) else -1 - len(layer.kernel_size)  # type: ignore[arg-type]
            x = x.movedim(channel, -1)
            x = x.reshape(-1, x.shape[-1])
            total, count = x.float().square().sum(0), len(x)
        total = total.cpu().double()
        self._sums[layer] = self._sums[layer] + total if layer in self._sums else total
        self._counts[layer] = self._counts.get(layer, 0) + count


def _shaped(layer: nn.Module, feature: torch.Tensor) -> torch.Tensor:
    """A value per input feature [in] as one per weight."""
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    if isinstance(layer, nn.Embedding):
        feature = feature[:, None]
    elif isinstance(layer, _TRANSPOSED):  # [in, out / groups, ...]
        feature = feature.reshape(-1, *[1] * (weight.ndim - 1))
    elif isinstance(layer, _CONVS):  # [out, in / groups, ...]: a group's outputs see a group's inputs
        groups = feature.reshape(layer.groups, -1).repeat_interleave(len(weight) // layer.groups, 0)
        feature = groups.reshape(*groups.shape, *[1] * (weight.ndim - 2))
    return feature.expand(weight.shape)
