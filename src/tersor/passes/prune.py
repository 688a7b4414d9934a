"""Pruning of single weights: by magnitude, by Optimal Brain Damage, or at random; one-shot or in rounds; N of every M.

Sources: LeCun, Denker and Solla, "Optimal Brain Damage", NIPS 1989 (saliency h u^2 / 2; delete, freeze, retrain,
repeat); Han et al., "Learning both Weights and Connections", 2015 (magnitude); Zhu and Gupta, "To prune, or not to
prune", 2017 (the cubic schedule of rounds); Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021 (N:M).
"""

from __future__ import annotations

import re
from math import ceil
from typing import ClassVar, Literal

import torch

from tersor.passes.curvature import second_derivatives
from tersor.passes.sites import CONVOLUTIONS, Site, sites, tell_others
from tersor.passes.step import Stage, Trained
from tersor.passes.work import Work

LEFT = 0.01
"""The share of a layer's weights, and one at least, that pruning of all layers together leaves to each."""

FLAT = 0.1
"""Nats: a network whose weights are all deleted should lose more than this by the sum of saliencies, else second
derivatives say nothing (networks that fit their training data perfectly)."""


class Prune(Trained, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`prune(sparsity=0.8, criterion='obd', rounds=4, steps=200)`.

    Args:
        sparsity: share of the weights of the layers it works on that become zero.
        pattern: in place of sparsity, "2:4": two of every four neighbouring inputs stay.
        criterion: magnitude |u|; obd, h u^2 / 2 with h as `curvature` gives it; random.
        scope: the weakest of all layers together (global), or the same share of each (layer).
        rounds: times that some weights are deleted and the rest retrained; the share grows by the cubic schedule.
        curvature: how second derivatives are measured (`tersor.passes.curvature`).
        batches: of the data that they are measured on.
        steps: batches to learn from after each round.
    """

    name: ClassVar[str] = "prune"
    stage: ClassVar[Stage] = Stage.SPARSIFY
    about: ClassVar[str] = "set single weights to zero: by magnitude, Optimal Brain Damage, or N of every M"

    sparsity: float | None = None
    pattern: str | None = None
    criterion: Literal["magnitude", "obd", "random"] = "magnitude"
    scope: Literal["global", "layer"] = "global"
    rounds: int = 1
    curvature: Literal["fisher", "gauss-newton", "hutchinson"] = "fisher"
    batches: int = 16

    def check(self) -> None:
        """Ranges, and one of sparsity and pattern."""
        super().check()
        self.need((self.sparsity is None) != (self.pattern is None), "give sparsity (0 to 1) or a pattern like '2:4'")
        self.need(self.sparsity is None or 0 < self.sparsity < 1, "sparsity is above 0 and below 1")
        self.need(self.rounds >= 1 and self.batches >= 1, "rounds and batches are 1 or more")
        if self.pattern is not None:
            found = re.fullmatch(r"(\d+):(\d+)", self.pattern)
            fits = found is not None and 0 < int(found[1]) < int(found[2]) <= 32
            self.need(fits, "a pattern is like '2:4': how many of how many stay, at most 32")

    @property
    def needs_data(self) -> bool:
        """Training and second derivatives do."""
        return self.steps > 0 or self.criterion == "obd"

    def run(self, work: Work) -> None:
        """Delete, freeze, retrain, in rounds."""
        found = [site for site in sites(work.network, work.exclude) if site.name not in work.fixed]
        self.need(bool(found), "the network has no linear, convolution or embedding layer to prune")
        tell_others(work, found, "not pruned")
        if self.pattern is not None:
            found = _divisible(found, *self._pattern(), work)
            self.need(bool(found), "no layer has inputs in such runs; use sparsity")
        for done in range(1, self.rounds + 1):
            scores = self._scores(work, found, done)
            if self.pattern is not None:
                chosen = {s.name: keep_pattern(scores[s.name], *self._pattern()) for s in found}
            else:
                assert self.sparsity is not None
                share = self.sparsity * (1 - (1 - done / self.rounds) ** 3)
                chosen = keep_best(scores, share, self.scope)
                _tell_spared(work, scores, chosen, share)
            gone = torch.cat([scores[n][~keep] for n, keep in chosen.items()])
            predicted = float(gone[gone.isfinite()].sum())  # what is zero already costs nothing more
            before = self._loss(work)
            for name, keep in chosen.items():
                work.masks[name] = keep & work.masks[name] if name in work.masks else keep
            work.hold()
            if self.criterion == "obd":
                work.tell(
                    f"{1 - _density(work, found):.1%} zeros: predicted {predicted:.4g} nats, "
                    f"measured {self._loss(work) - before:.4g}"
                )
            work.train(self)

    def _pattern(self) -> tuple[int, int]:
        assert self.pattern is not None
        n, _, m = self.pattern.partition(":")
        return int(n), int(m)

    def _scores(self, work: Work, found: list[Site], round_: int) -> dict[str, torch.Tensor]:
        """What deleting each weight costs; what is zero already costs less than anything."""
        if self.criterion == "obd":
            batches = work.batches(self.batches)
            h = second_derivatives(work.network, [s.name for s in found], batches, self.curvature, seed=work.seed)
            scores = {s.name: saliency(s.weight.detach(), h[s.name]) for s in found}
            total = sum(float(s.sum()) for s in scores.values())
            if total < FLAT:
                work.tell(
                    f"second derivatives are nearly zero (deleting everything would cost {total:.2g} nats by them): "
                    "the network fits this data too well for Optimal Brain Damage; use other data, or magnitude"
                )
        elif self.criterion == "random":
            generator = torch.Generator().manual_seed(work.seed + round_)
            scores = {s.name: torch.rand(s.weight.shape, generator=generator).to(s.weight.device) for s in found}
        else:
            scores = {s.name: s.weight.detach().abs().float() for s in found}
        for s in found:
            if s.name in work.masks:
                scores[s.name] = scores[s.name].masked_fill(~work.masks[s.name], -torch.inf)
        return scores

    def _loss(self, work: Work) -> float:
        return work.loss_of(self.batches) if self.criterion == "obd" else 0.0


def saliency(u: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """h u^2 / 2: by how much the loss rises when a weight is deleted, to second order (Optimal Brain Damage, eq. 5)."""
    return h * u.float().square() / 2


def keep_best(scores: dict[str, torch.Tensor], sparsity: float, scope: str) -> dict[str, torch.Tensor]:
    """Masks of what stays: all but the lowest scores, among all tensors together or in each; ties by position.

    Each tensor keeps its best `LEFT` at least.
    """
    if scope == "layer":
        return {n: _all_but(s, min(round(sparsity * s.numel()), s.numel() - _least(s))) for n, s in scores.items()}
    flat = torch.cat([score.reshape(-1) for score in scores.values()])
    kept = _all_but(flat, round(sparsity * flat.numel()))
    out, at = {}, 0
    for name, score in scores.items():
        mask = kept[at : at + score.numel()].view(score.shape)
        at += score.numel()
        out[name] = mask if int(mask.sum()) >= _least(score) else _all_but(score, score.numel() - _least(score))
    return out


def _least(score: torch.Tensor) -> int:
    """How many weights a layer keeps whatever they are."""
    return max(1, ceil(LEFT * score.numel()))


def _all_but(scores: torch.Tensor, count: int) -> torch.Tensor:
    """True but for the `count` lowest."""
    keep = torch.ones(scores.numel(), dtype=torch.bool, device=scores.device)
    keep[scores.reshape(-1).sort(stable=True).indices[:count]] = False
    return keep.view(scores.shape)


def keep_pattern(scores: torch.Tensor, n: int, m: int) -> torch.Tensor:
    """The n highest scores of every m neighbouring inputs (dimension 1): [out, in, ...], in divisible by m."""
    turned = scores.movedim(1, -1)
    blocks = turned.reshape(*turned.shape[:-1], -1, m)
    rank = blocks.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1, stable=True)
    return (rank < n).reshape(turned.shape).movedim(-1, 1)


def _divisible(found: list[Site], n: int, m: int, work: Work) -> list[Site]:
    """Sites whose inputs come in runs of m; tells of the others."""
    fits = [s for s in found if s.weight.shape[1] % m == 0]
    for site in found:
        if site.weight.shape[1] % m:
            kind = "depthwise" if isinstance(site.module, CONVOLUTIONS) and site.weight.shape[1] == 1 else "a layer"
            work.tell(f"{site.name}: left, {kind} of {site.weight.shape[1]} inputs has no runs of {m}")
    return fits


def _density(work: Work, found: list[Site]) -> float:
    return sum(int(work.masks[s.name].sum()) for s in found) / sum(s.weight.numel() for s in found)


def _tell_spared(work: Work, scores: dict[str, torch.Tensor], chosen: dict[str, torch.Tensor], share: float) -> None:
    """Say which layers would have lost nearly all of their weights."""
    for name, keep in chosen.items():
        count, least = scores[name].numel(), _least(scores[name])
        if int(keep.sum()) == least and least < (1 - share) * count:
            work.tell(f"{name}: would have lost nearly all of its weights; its best {least} of {count} stay")
