"""Which layers can be replaced by factors, why others are left, and how a layer is replaced."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from tersor.passes.sites import TRANSPOSED, Site, put, sites
from tersor.passes.work import Work
from tersor.structure.factored import CONVOLUTIONS, Factored, chain_like, fill, type_of

_NAMED = 4


class Left:
    """Layers that stay as they are, by reason."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, name: str, reason: str) -> None:
        """Note one."""
        self._names.setdefault(reason, []).append(name)

    def tell(self, work: Work) -> None:
        """A line per reason, which names the first few layers."""
        for reason, names in self._names.items():
            rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            work.tell(f"left as it is, {reason}: {', '.join(names[:_NAMED])}{rest}")

    def __str__(self) -> str:
        return "; ".join(f"{reason}: {', '.join(names[:_NAMED])}" for reason, names in self._names.items())


def candidates(work: Work, layers: Sequence[str], left: Left) -> list[Site]:
    """Linear layers and convolutions without groups that may become chains; others are noted, except those not meant.

    Args:
        work: of the pass.
        layers: patterns (shell style) of the layers that are meant; none is all.
        left: takes the others.
    """
    owners = Counter(id(p) for module in work.network.modules() for p in module._parameters.values() if p is not None)
    chains = {id(part) for m in work.network.modules() if isinstance(m, Factored) for part in m.modules()}
    found = []
    for site in sites(work.network, work.exclude):
        if layers and not any(fnmatch.fnmatchcase(site.path, pattern) for pattern in layers):
            continue
        reason = "a factor already" if id(site.module) in chains else _reason(site, work, owners[id(site.weight)])
        if reason:
            left.add(site.path or "the network", reason)
        else:
            found.append(site)
    return found


def _reason(site: Site, work: Work, owners: int) -> str:
    """Why a layer is left; empty if it is not."""
    module = site.module
    if isinstance(module, nn.Embedding):
        return "an embedding, which is looked up and not multiplied"
    if isinstance(module, TRANSPOSED):
        return "a transposed convolution"
    if isinstance(module, CONVOLUTIONS) and module.groups > 1:
        return "a convolution in groups"
    if not site.path:
        return "the network is this one layer"
    if owners > 1:
        return "its weight is another layer's too"
    if type(module).forward is not type_of(module).forward:
        return "its class has a forward of its own"
    if module._forward_hooks or module._forward_pre_hooks:
        return "it has hooks"
    if site.name in work.masks or site.name in work.fixed or site.name in work.made:
        return "its weight must stay as an earlier pass made it"
    if not site.weight.isfinite().all():
        return "it has weights that are no numbers"
    return ""


def matrix(weight: torch.Tensor) -> torch.Tensor:
    """A weight as a matrix [outputs, inputs], inputs being (channel, row, column) of a kernel; float64, detached."""
    return weight.detach().double().flatten(1)


def install(work: Work, site: Site, factors: Sequence[torch.Tensor]) -> Factored:
    """Put a chain in a layer's place, wherever the network has it; the bias goes to the last factor.

    Args:
        work: the network, and what is said of the layer's bias in it.
        site: the layer.
        factors: the weights, first to last, of the shapes that `tersor.structure.factored` says; any float dtype.
    """
    tensors = {f"{i}.weight": factor for i, factor in enumerate(factors)}
    last = f"{len(factors) - 1}.bias"
    bias = site.module.bias
    if bias is not None:
        assert isinstance(bias, torch.Tensor)
        tensors[last] = bias.detach()
    chain = chain_like(site.module, {name: tuple(t.shape) for name, t in tensors.items()})
    fill(chain, tensors)
    for path, module in list(work.network.named_modules(remove_duplicate=False)):
        if module is site.module:
            put(work.network, path, chain)
    _renamed(work, f"{site.path}.bias", f"{site.path}.{last}")
    return chain


def _renamed(work: Work, old: str, new: str) -> None:
    """What was said of a parameter is said of its new name."""
    for facts in (work.masks, work.made):
        _moved(facts, old, new)
    if old in work.fixed:
        work.fixed.remove(old)
        work.fixed.add(new)


def _moved(facts: Mapping[str, object], old: str, new: str) -> None:
    assert isinstance(facts, dict)
    if old in facts:
        facts[new] = facts.pop(old)
