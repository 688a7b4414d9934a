"""The weakest output channels removed at once, then retraining.

Source: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017 (norms of filters, one shot, retraining); Liu et
al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017 (gammas of batch norms, one
threshold for the network). Ours: L2 in place of their L1 norms, norms over a layer's mean where layers are compared,
and channels coupled to others are judged and removed with them.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tersor.passes.coupling import removable, remove_all
from tersor.passes.dependency import Coupled
from tersor.passes.flow import tell_left
from tersor.passes.sites import TRANSPOSED
from tersor.passes.step import Stage, Trained
from tersor.passes.work import Work


class Channels(Trained, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Removes output channels of layers, for good.

    Args:
        share: of the channels, how many go; one of a layer stays always.
        criterion: norm (of a channel's weights in all layers that make it), or bn (size of its batch norm's gamma).
        scope: layer (the share of each), or global (the weakest of the network).
    """

    name: ClassVar[str] = "channels"
    stage: ClassVar[Stage] = Stage.SHRINK
    about: ClassVar[str] = "removes the weakest output channels, with all that is coupled to them, and retrains"

    share: float = 0.5
    criterion: Literal["norm", "bn"] = "norm"
    scope: Literal["layer", "global"] = "layer"

    def check(self) -> None:
        """The share."""
        super().check()
        self.need(0 <= self.share <= 1, "share is from 0 to 1")

    @property
    def needs_data(self) -> bool:
        """Always: what is coupled to what is seen on a batch."""
        return True

    def run(self, work: Work) -> None:
        """Remove, then retrain."""
        judged, left = [], {}
        for group in removable(work):
            strengths = strength(work.network, group, self.criterion)
            if strengths is None:
                left[group.root] = "there is no batch norm to judge them by"
            else:
                judged.append((group, strengths))
        tell_left(work, "channels stay", left)
        chosen = {}
        for (group, _), weakest in zip(judged, self._choose([s for _, s in judged]), strict=True):
            if len(weakest) >= group.count:
                weakest = weakest[: group.count - 1]
                work.tell(f"{group.root}: all of its channels are among the weakest; the strongest one stays")
            chosen[group.root] = weakest
        left = remove_all(work, chosen)
        tell_left(work, "channels stay", left)
        removed = sum(len(weakest) for path, weakest in chosen.items() if path not in left)
        work.tell(
            f"{removed} of {sum(group.count for group, _ in judged)} channels removed, those coupled counted once"
        )
        work.train(self)

    def _choose(self, strengths: list[torch.Tensor]) -> list[list[int]]:
        """The channels to remove in each group, weakest first."""
        orders = [s.argsort(stable=True).tolist() for s in strengths]
        if self.scope == "layer" or not strengths:
            return [order[: _part(self.share, len(order))] for order in orders]
        everything = torch.cat(strengths)
        chosen = torch.zeros(len(everything), dtype=torch.bool)
        chosen[everything.argsort(stable=True)[: _part(self.share, len(everything))]] = True
        parts = chosen.split([len(s) for s in strengths])
        return [[c for c in order if part[c]] for order, part in zip(orders, parts, strict=True)]


def _part(share: float, count: int) -> int:
    return int(share * count + 1e-9)


@torch.no_grad()
def strength(network: nn.Module, group: Coupled, criterion: str) -> torch.Tensor | None:
    """How strong each channel of a group is, [count], float64; None if there is nothing to judge by.

    `norm`: root of the sum of squares of its weights in all layers that make it, over the mean of the group's channels,
    so that layers can be compared. `bn`: mean size of gamma in its batch norms, as it is.
    """
    total = torch.zeros(group.count, dtype=torch.float64)
    found = 0
    for member in group.of("out") if criterion == "norm" else group.of("through"):
        module: Any = network.get_submodule(member.path)
        if criterion == "bn" and (not isinstance(module, _BatchNorm) or module.weight is None):
            continue
        weight = module.weight.transpose(0, 1) if isinstance(module, TRANSPOSED) else module.weight
        each = weight.double().reshape(len(weight), -1).square().sum(1).cpu()
        each = each if criterion == "norm" else each.sqrt()
        total.index_add_(0, torch.tensor(member.roots), each[list(member.channels)])
        found += 1
    if not found:
        return None
    if criterion == "bn":
        return total / found
    total = total.sqrt()
    return total / total.mean().clamp(min=torch.finfo(torch.float64).tiny)
