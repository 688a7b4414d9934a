"""Where passes work: the weights of linear, convolution and embedding layers, by name; and why others are left."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from torch import nn

from tersor.structure.factored import CONVOLUTIONS, Columns

if TYPE_CHECKING:
    from tersor.passes.work import Work

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LEAST = 64
"""Weights with fewer elements are left alone: there is nothing to gain."""


@dataclass(frozen=True)
class Site:
    """A layer's weight.

    Attributes:
        name: of the parameter, `layer1.0.conv1.weight`.
        module: that has it as `weight`.
        path: name of the module.
        rows: which dimension of the weight counts output channels.
    """

    name: str
    module: nn.Module
    path: str
    rows: int

    @property
    def weight(self) -> nn.Parameter:
        """The weight as it is now."""
        found = self.module.weight
        assert isinstance(found, nn.Parameter)
        return found


def sites(network: nn.Module, exclude: Sequence[str] = (), least: int = LEAST) -> Iterator[Site]:
    """Weights of linear, convolution, transposed convolution and embedding layers, a tied one once, in order.

    Left out: what `exclude` names, what has fewer than `least` elements, what is no float.
    """
    seen = set()
    for path, module in network.named_modules():
        if not isinstance(module, (nn.Linear, nn.Embedding, Columns, *CONVOLUTIONS, *TRANSPOSED)):
            continue
        weight, name = module.weight, f"{path}.weight" if path else "weight"
        if not isinstance(weight, nn.Parameter) or id(weight) in seen or not weight.is_floating_point():
            continue
        seen.add(id(weight))
        if prod(weight.shape) >= least and not any(fnmatch.fnmatchcase(name, pattern) for pattern in exclude):
            yield Site(name, module, path, 1 if isinstance(module, TRANSPOSED) else 0)


def tell_others(work: Work, found: Sequence[Site], what: str) -> None:
    """Name parameters of two dimensions and more that are no sites."""
    mine = {id(site.weight) for site in found}
    others = [
        name for name, p in work.network.named_parameters()
        if p.ndim > 1 and p.numel() >= LEAST and id(p) not in mine and name not in work.fixed
    ]  # fmt: skip
    if others:
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        work.tell(f"{what}, being excluded or no weight of a linear, convolution or embedding layer: "
                  f"{', '.join(others[:5])}{more}")  # fmt: skip


def put(network: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module in the place of the one of this name (not the network itself)."""
    owner, _, leaf = path.rpartition(".")
    setattr(network.get_submodule(owner), leaf, module)
