"""Structured sparsity learning: training under a group lasso, until whole filters, channels or branches are zero.

Source: Wen et al., "Learning Structured Sparsity in Deep Neural Networks", NeurIPS 2016, and the authors' code (branch
scnn of their Caffe): three phases, a baseline (the network as it comes), training under the penalty, and training
without it while zero groups stay. `update="gradient"` is theirs: the gradient of the penalty is added, and weights
below 1e-4 become zero after each step. Ours: the proximal step; `share`; which batch norms and biases go silent with a
filter; finding what hangs together; the physical removal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from torch import nn

from tersor.errors import TersorError
from tersor.passes.branches import Branch, branches
from tersor.passes.coupling import removable, remove_all
from tersor.passes.dependency import Coupled
from tersor.passes.flow import flow_of, tell_left
from tersor.passes.lasso import Target, penalised, strengths_of
from tersor.passes.penalty import groups_of
from tersor.passes.silence import hold_zero, norm_behind, quiet, silence, silence_group, unheard, zero_rows
from tersor.passes.sites import put, sites
from tersor.passes.step import Stage, Trained
from tersor.passes.work import Work
from tersor.structure.gone import gone

Kind = Literal["filters", "channels", "shapes", "depth"]


class GroupLasso(Trained, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Trains under a penalty on the norms of groups of weights; groups at zero are removed where that can be.

    Args:
        over: what groups are: filters (output channels), channels (input channels), shapes (a weight of all filters;
            they stay in place as zeros), depth (layers in branches bridged by an identity); one or a list.
        strength: of the penalty; the larger, the more groups end at zero.
        update: proximal (exact zeros), or gradient (as published).
        steps: batches to learn from under the penalty.
        tune_steps: batches to learn from afterwards, without it, zeros held.
        share: of the groups of each kind that are zero at least: if training leaves fewer, the weakest are set to zero.
    """

    name: ClassVar[str] = "ssl"
    stage: ClassVar[Stage] = Stage.SHRINK
    about: ClassVar[str] = "trains under a group lasso until filters, channels or branches vanish, and removes them"

    over: Kind | tuple[Kind, ...] = "filters"
    strength: float
    update: Literal["proximal", "gradient"] = "proximal"
    tune_steps: int = 0
    share: float | None = None

    def check(self) -> None:
        """Ranges; something must happen."""
        super().check()
        self.need(bool(self.kinds) and len(set(self.kinds)) == len(self.kinds), "over names kinds, each once")
        self.need(self.strength >= 0, "strength is 0 or more")
        self.need(self.tune_steps >= 0, "tune_steps is 0 or more")
        self.need(self.share is None or 0 < self.share < 1, "share is between 0 and 1")
        self.need(self.steps > 0 or self.share is not None, "without steps to train, give a share")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of groups, in order."""
        return (self.over,) if isinstance(self.over, str) else self.over

    @property
    def needs_data(self) -> bool:
        """To train, and to see which channels hang together."""
        return self.steps > 0 or self.tune_steps > 0 or bool({"filters", "channels"} & set(self.kinds))

    def run(self, work: Work) -> None:
        """Phase 2, zeros fixed, phase 3, what is zero removed."""
        flow = flow_of(work)
        groups = removable(work) if {"filters", "channels"} & set(self.kinds) else []
        bridged = branches(flow, work.exclude) if "depth" in self.kinds else []
        behind = norm_behind(flow, work.exclude)
        targets = list(self._targets(work, groups, bridged))
        if not targets:
            raise TersorError(f"no layer has {' or '.join(self.kinds)} that could go; try over=shapes")
        with penalised(targets, self.strength, self.update):
            work.train(self)
        for kind in self.kinds:
            self._reach_share(work, [target for target in targets if target.kind == kind])
        dead = _fix_zeros(work, targets, groups, bridged, behind)
        work.train(self, steps=self.tune_steps)
        for branch in dead:
            _take_out(work, branch)
        if groups:
            _shrink(work, removable(work, tell=False) if dead else groups)

    def _targets(self, work: Work, groups: list[Coupled], bridged: list[Branch]) -> Iterator[Target]:
        """Weights and their groups. Filters are those that could go; layers in groups (depthwise) have none."""
        makers = {member.path for group in groups for member in group.of("out")}
        inside = {path for branch in bridged for path in branch.layers}
        for site in sites(work.network, work.exclude):
            if site.name in work.fixed or isinstance(site.module, nn.Embedding):
                continue
            whole = getattr(site.module, "groups", 1) == 1
            for kind in self.kinds:
                wanted = {"filters": site.path in makers, "channels": whole, "depth": site.path in inside}
                if wanted.get(kind, True):
                    yield Target(kind, site, groups_of(site.weight.detach(), kind, site.rows))

    def _reach_share(self, work: Work, targets: list[Target]) -> None:
        """Tell how many groups of a kind are zero; zero the weakest until enough are. A layer keeps one (not depth).

        Weak is what `strengths_of` says; the strongest group of each layer is never taken.
        """
        if not targets:
            return
        kind, total = targets[0].kind, sum(len(target.groups) for target in targets)
        zero = sum(int(target.zero().sum()) for target in targets)
        said = f"{kind}: {zero} of {total} became zero in training"
        missing = 0 if self.share is None else int(self.share * total + 1e-9) - zero
        if missing > 0:
            strengths = [strengths_of(target) for target in targets]
            every = torch.cat(strengths)
            order = every.argsort(stable=True)[:missing]
            chosen = torch.zeros(len(every), dtype=torch.bool)
            chosen[order[every[order].isfinite()]] = True
            for target, part in zip(targets, chosen.split([len(s) for s in strengths]), strict=True):
                _zero(work, target, part.to(target.groups.device))
            said += f", the {int(chosen.sum())} weakest others were set to zero"
        work.tell(said)


def _zero(work: Work, target: Target, which: torch.Tensor) -> None:
    """Hold some groups of a target at zero."""
    weight = target.site.weight
    zeros = torch.zeros(weight.shape, dtype=torch.bool, device=weight.device)  # in storage order, whatever the weight's
    zeros.view(-1)[target.groups[which].reshape(-1)] = True
    hold_zero(work, target.site.name, zeros)


def _fix_zeros(
    work: Work, targets: list[Target], groups: list[Coupled], bridged: list[Branch], behind: dict[str, str]
) -> list[Branch]:
    """Hold zero groups, and silence what stands behind them; gives the branches that are dead."""
    dead_layers = set()
    for target in targets:
        zero = target.zero()
        _zero(work, target, zero)
        path = target.site.path
        if target.kind == "filters":
            silence(work, path, zero)
            if path in behind:
                silence(work, behind[path], zero)
        if target.kind == "depth" and bool(zero.all()):
            dead_layers.add(path)
    for group in groups:
        silence_group(work, group)
    dead = [branch for branch in bridged if dead_layers & set(branch.layers)]
    for branch in dead:
        for path in branch.modules:
            module = work.network.get_submodule(path)
            for leaf, parameter in module.named_parameters():
                hold_zero(work, f"{path}.{leaf}", torch.ones_like(parameter, dtype=torch.bool))
            mean = getattr(module, "running_mean", None)
            if mean is not None:
                mean.zero_()
    return dead


def _take_out(work: Work, branch: Branch) -> None:
    """Put what stands for removed modules in a branch's place."""
    for path in branch.modules:
        module = work.network.get_submodule(path)
        for leaf, _ in module.named_parameters():
            work.masks.pop(f"{path}.{leaf}", None)
            work.fixed.discard(f"{path}.{leaf}")
        put(work.network, path, gone(module))
    work.tell(f"the branch of {', '.join(branch.layers)} is removed; its shortcut stays")


def _shrink(work: Work, groups: list[Coupled]) -> None:
    """Remove the channels that say nothing, or that nothing hears."""
    chosen = {}
    for group in groups:
        dead = (quiet(work.network, group) | unheard(work.network, group)).nonzero().flatten().tolist()
        if len(dead) == group.count:
            work.tell(f"all channels of {group.root} are zero; one stays, or the network would have no way through")
            dead = dead[1:]
        chosen[group.root] = dead
    left = remove_all(work, chosen, exact=True)
    tell_left(work, "channels stay as zeros", left)
    removed = sum(len(dead) for path, dead in chosen.items() if path not in left)
    makers = [work.network.get_submodule(member.path) for group in groups for member in group.of("out")]
    stay = sum(int(zero_rows(maker).sum()) for maker in makers)
    work.tell(f"{removed} channels removed, those coupled counted once; {stay} filters of zeros stay where they are")
