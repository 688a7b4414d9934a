"""Weights under a group lasso, and the optimizer made to feel it.

Source: Wen et al., NeurIPS 2016, and the authors' code (see `ssl.py`). Ours: hooks on the optimizer's steps, the
proximal step, and the measure by which groups of different sizes are compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from tersor.passes.penalty import are_zero, gradient, norms, prox
from tersor.passes.sites import Site

_SMALL = 1e-4  # the authors' threshold


@dataclass(frozen=True)
class Target:
    """A weight under one penalty; groups as `penalty.groups_of` gives them."""

    kind: str
    site: Site
    groups: torch.Tensor

    def zero(self) -> torch.Tensor:
        """Which groups are zero, bool [groups]."""
        return are_zero(self.site.weight.detach(), self.groups)


@contextmanager
def penalised(targets: list[Target], strength: float, update: str) -> Iterator[None]:
    """Every optimizer that steps meanwhile meets the penalty on those targets that it trains.

    The optimizer is `Work.train`'s own: hooks on its steps see gradients without the scale of fp16, and the rate of
    this very step, which the threshold of the proximal step is times the strength. Several kinds take their turns.
    """

    def trained(optimizer: torch.optim.Optimizer) -> Iterator[tuple[Target, float]]:
        rates = {id(p): float(group["lr"]) for group in optimizer.param_groups for p in group["params"]}
        for target in targets:
            if id(target.site.weight) in rates:
                yield target, rates[id(target.site.weight)]

    @torch.no_grad()
    def before(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for target, _rate in trained(optimizer):
            weight = target.site.weight
            if update == "gradient" and weight.grad is not None:
                weight.grad.add_(gradient(weight, target.groups), alpha=strength)

    @torch.no_grad()
    def after(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for target, rate in trained(optimizer):
            weight = target.site.weight
            if update == "gradient":
                weight[weight.abs() < _SMALL] = 0
            else:
                weight.copy_(prox(weight, target.groups, rate * strength))

    hooks = [register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def strengths_of(target: Target) -> torch.Tensor:
    """How strong each group is among all of its kind, float64 on the CPU; infinite for zeros.

    Filters and channels: the place in their own layer, from 0 to 1, so that all layers lose alike (by size alone whole
    layers went, measured on digits). Shapes and depth: the root mean square. But for depth, the strongest group of a
    layer is infinite.
    """
    found = (norms(target.site.weight.detach().double(), target.groups) / target.groups.shape[1] ** 0.5).cpu()
    strongest = int(found.argmax())
    if target.kind in ("filters", "channels"):
        found = found.argsort(stable=True).argsort().double() / len(found)
    if target.kind != "depth":
        found[strongest] = torch.inf
    found[target.zero().cpu()] = torch.inf
    return found
