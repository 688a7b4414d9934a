"""What layers' inputs look like on the user's data: second moments, means and some of the inputs themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tersor.passes.sites import Site
from tersor.structure.factored import CONVOLUTIONS
from tersor.tune.batches import Batch

ROWS = 1 << 13
"""Inputs of a layer that are kept as they are, at most."""

_ELEMENTS = 1 << 22  # of the inputs of one call that moments are taken of; more are sampled
_MOMENTS = 1 << 27  # elements of second moments at once: 1 GiB


@dataclass
class Inputs:
    """Inputs of one layer, n of them at a time: features, or the (channel, row, column) of a kernel's place.

    Attributes:
        second: E[x x^T], float64 [n, n].
        mean: E[x], float64 [n].
        sample: float32 [N, n], N at most `ROWS`; None if not asked for.
        count: inputs that were seen; with 0 the rest says nothing.
    """

    second: torch.Tensor
    mean: torch.Tensor
    sample: torch.Tensor | None
    count: int = 0

    @property
    def covariance(self) -> torch.Tensor:
        """E[x x^T] - E[x] E[x]^T, float64 [n, n]."""
        return self.second - torch.outer(self.mean, self.mean)


@torch.no_grad()
def inputs_of(
    network: nn.Module, sites: Sequence[Site], batches: Sequence[Batch], *, seed: int, sample: bool = False
) -> Iterator[tuple[Site, Inputs]]:
    """Inputs of each layer, over all batches; the network is left as it is and is run as often as memory asks for.

    Args:
        network: in eval mode.
        sites: linear layers and convolutions of it.
        batches: on the network's device.
        seed: which inputs are taken where a call has many.
        sample: keep some inputs as they are.
    """
    for part in _parts(sites):
        found = [_empty(site) for site in part]
        generator = torch.Generator().manual_seed(seed)
        hooks = []
        try:
            for site, inputs in zip(part, found, strict=True):
                share = ROWS // max(len(batches), 1) if sample else 0
                hooks.append(site.module.register_forward_pre_hook(_noting(inputs, generator, share)))
            for batch in batches:
                batch.call(network)
        finally:
            for hook in hooks:
                hook.remove()
        for site, inputs in zip(part, found, strict=True):
            inputs.second /= max(inputs.count, 1)
            inputs.mean /= max(inputs.count, 1)
            yield site, inputs


def _parts(sites: Sequence[Site]) -> Iterator[list[Site]]:
    """Layers whose moments fit in memory together."""
    part: list[Site] = []
    for site in sites:
        if site.weight[0].numel() ** 2 > _MOMENTS:
            continue  # the weights' own factors will do: moments alone would take gigabytes
        if part and sum(s.weight[0].numel() ** 2 for s in [*part, site]) > _MOMENTS:
            yield part
            part = []
        part.append(site)
    if part:
        yield part


def _empty(site: Site) -> Inputs:
    n, device = site.weight[0].numel(), site.weight.device
    zeros = torch.zeros(n, n, dtype=torch.float64, device=device)
    return Inputs(zeros, torch.zeros(n, dtype=torch.float64, device=device), None)


def _noting(inputs: Inputs, generator: torch.Generator, share: int) -> Callable[[nn.Module, Any], None]:
    def note(module: nn.Module, args: Any) -> None:
        x = rows_of(module, args[0].detach(), _ELEMENTS // len(inputs.mean), generator).float()
        inputs.second += (x.T @ x).double()
        inputs.mean += x.double().sum(0)
        inputs.count += len(x)
        if share:
            chosen = x[torch.randperm(len(x), generator=generator)[:share].to(x.device)]
            inputs.sample = chosen if inputs.sample is None else torch.cat([inputs.sample, chosen])[:ROWS]

    return note


def rows_of(module: nn.Module, x: torch.Tensor, most: int, generator: torch.Generator) -> torch.Tensor:
    """Inputs of a layer as the rows that its weight, a matrix, is multiplied with: [N, n]; some of them if many.

    Args:
        module: a linear layer, or a convolution without groups.
        x: its input.
        most: rows, at most (1 at least).
        generator: chooses, on the CPU.
    """
    if not isinstance(module, CONVOLUTIONS):
        rows = x.reshape(-1, x.shape[-1])
        return rows[_some(len(rows), most, generator).to(x.device)]
    size = len(module.kernel_size)
    x = x if x.ndim == size + 2 else x[None]
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = F.pad(x, module._reversed_padding_repeated_twice, mode=mode)
    for i in range(size):
        reach = (module.kernel_size[i] - 1) * module.dilation[i] + 1
        x = x.unfold(2 + i, reach, module.stride[i])[..., :: module.dilation[i]]
    places = x.movedim(1, size + 1)  # [B, *places, C, *kernel]
    lead = places.shape[: size + 1]
    chosen = _some(lead.numel(), most, generator).to(x.device)
    return places[torch.unravel_index(chosen, lead)].flatten(1)


def _some(count: int, most: int, generator: torch.Generator) -> torch.Tensor:
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=generator)[: max(most, 1)]
