"""Low rank after training: weights become products of thin factors, of ranks that are chosen over all layers together.

Source: Denil et al., "Predicting parameters in deep learning", NIPS 2013, where both factors are learned, in its usual
post-hoc form, the truncated SVD; for kernels Denton et al. 2014 and Kim et al. 2016 (`truncation`). How ranks are
chosen over all layers is ours (`rank_choice`), and so is the fit of the last factors to the layers' outputs.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from tersor.errors import TersorError
from tersor.passes.dictionaries import damped, fit
from tersor.passes.factors import Left, candidates, install, matrix
from tersor.passes.layer_inputs import inputs_of
from tersor.passes.rank_choice import by_energy, by_share
from tersor.passes.sites import Site
from tersor.passes.step import Stage, Trained
from tersor.passes.truncation import Ranks, curve, truncated_svd, tucker2
from tersor.passes.work import Work
from tersor.recipe import parse_size
from tersor.structure.factored import product

_NAMED = 8


class LowRank(Trained, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`lowrank(share=0.5, steps=500)`, `lowrank(energy=0.9)`, `lowrank(rank=8, layers=['fc1'])`.

    Exactly one of `share`, `size`, `energy` and `rank`. Where there are data, the last factor of each layer is the
    least-squares fit of the layer's outputs on them, also without training.

    Args:
        share: of the parameters that remain, in all layers it works on together; ranks are chosen over all of them.
        size: the same, as the bytes that the weights of all these layers take at `bits` each: 60_000, or "60kB".
        bits: of a weight, for `size`: what the coding step spends on one (8 for int8, 16 for bf16).
        energy: share of a layer's squared weights (of its squared singular values) that its ranks must keep.
        rank: of every layer; of both modes with method='tucker'.
        method: of kernels larger than one element: svd (k x k, then 1 x 1), tucker (1 x 1, k x k, 1 x 1), or auto, what
            loses less for its parameters (with `rank`: svd). Everything else is an SVD always.
        layers: patterns of the names of layers it works on; none is all.
        batches: of the data that layers' outputs are fitted on; 0 leaves the factors of the weights.
        steps: batches to learn from afterwards.
    """

    name: ClassVar[str] = "lowrank"
    stage: ClassVar[Stage] = Stage.FACTOR
    about: ClassVar[str] = "replace weights by products of thin factors (truncated SVD, Tucker-2), then retrain"

    share: float | None = None
    size: int | str | None = None
    bits: float = 8.0
    energy: float | None = None
    rank: int | None = None
    method: Literal["auto", "svd", "tucker"] = "auto"
    layers: tuple[str, ...] = ()
    batches: int = 16

    def check(self) -> None:
        """Ranges, and one of share, size, energy and rank."""
        super().check()
        given = [value for value in (self.share, self.size, self.energy, self.rank) if value is not None]
        self.need(len(given) == 1, "give one of share (0 to 1), size (like 60kB), energy (0 to 1) and rank (1 or more)")
        self.need(self.size is None or parse_size(self.size, "lowrank: size") > 0, "size is above 0")
        self.need(0 < self.bits <= 64, "bits are above 0, up to 64")
        self.need(self.share is None or 0 < self.share < 1, "share is above 0 and below 1")
        self.need(self.energy is None or 0 < self.energy <= 1, "energy is above 0 up to 1")
        self.need(self.rank is None or self.rank >= 1, "rank is 1 or more")
        self.need(self.batches >= 0, "batches is 0 or more")

    def run(self, work: Work) -> None:
        """Choose ranks, put factors in place, retrain."""
        left = Left()
        found = candidates(work, self.layers, left)
        if not found:
            raise TersorError(f"there is no layer to factorize ({str(left) or 'none has a name that layers says'})")
        parts: dict[str, tuple[torch.Tensor, ...]] = {}
        told, total, saved, energy, lost = [], 0, 0, 0.0, 0.0
        for site, ranks in zip(found, self._ranks(found), strict=True):
            total += site.weight.numel()
            energy += float(matrix(site.weight).square().sum())
            if not ranks:
                left.add(site.path, "factors would not be smaller, or lose more there than they save elsewhere")
                continue
            made = parts[site.path] = factors_of(site.weight, ranks)
            saved += site.weight.numel() - sum(part.numel() for part in made)
            lost += float((product(made) - site.weight).detach().square().sum())
            told.append(f"{site.path} {'x'.join(map(str, ranks))}")
        replaced = [site for site in found if site.path in parts]
        if work.data is not None and self.batches:
            batches = list(work.batches(self.batches))
            for site, inputs in inputs_of(work.network, replaced, batches, seed=work.seed):
                if inputs.count:
                    parts[site.path] = fitted(parts[site.path], site.weight, inputs.second)
        for site in replaced:
            install(work, site, parts[site.path])
        left.tell(work)
        rest = f" and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
        work.tell(
            f"ranks {', '.join(told[:_NAMED]) or 'nowhere'}{rest}: {total - saved:,} of {total:,} weights remain "
            f"({1 - saved / total:.1%}), {lost / max(energy, 1e-300):.2%} of the squared weights are lost"
        )
        work.train(self)

    def _ranks(self, found: list[Site]) -> list[Ranks]:
        """Of each layer; () where it stays dense."""
        if self.rank is not None:
            return [self._capped(site.weight, self.rank) for site in found]
        curves = [curve(site.weight, self.method) for site in found]
        share = self.share
        if self.size is not None:
            share = 8 * parse_size(self.size) / (self.bits * sum(site.weight.numel() for site in found))
        if share is not None:
            return [c.at(i) for c, i in zip(curves, by_share(curves, min(share, 1.0)), strict=True)]
        assert self.energy is not None
        return [c.at(by_energy(c, self.energy)) for c in curves]

    def _capped(self, weight: torch.Tensor, rank: int) -> Ranks:
        """The given rank, at most what the weight can have; () where that is not smaller than dense."""
        outputs, inputs, size = weight.shape[0], weight.shape[1], weight[0, 0].numel()
        if self.method == "tucker" and size > 1:
            r, s = min(rank, outputs), min(rank, inputs)
            return (r, s) if outputs * r + r * s * size + s * inputs < weight.numel() else ()
        r = min(rank, outputs, inputs * size)
        return (r,) if r * (outputs + inputs * size) < weight.numel() else ()


def factors_of(weight: torch.Tensor, ranks: Ranks) -> tuple[torch.Tensor, ...]:
    """The factors of a weight [O, C, *k], first to last, as the layers of a chain have them, in float64.

    Args:
        weight: of a linear layer or a convolution.
        ranks: one for an SVD, two (outputs, inputs) for Tucker-2.
    """
    if len(ranks) == 2:
        return tucker2(weight, *ranks)
    first, second = truncated_svd(weight.flatten(1), *ranks)
    return first.reshape(-1, *weight.shape[1:]), second.reshape(*second.shape, *(1,) * (weight.ndim - 2))


def fitted(parts: tuple[torch.Tensor, ...], weight: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Factors with the last one made the least-squares fit of the layer's outputs.

    Args:
        parts: as `factors_of` gives them.
        weight: that they stand for.
        second: of the layer's inputs x, E[x x^T], float64 [n, n].
    """
    *first, last = parts
    eye = torch.eye(last.shape[1]).to(last).reshape(*last.shape[1:2], *last.shape[1:])
    return (*first, fit(product((*first, eye)).flatten(1), matrix(weight), damped(second)).reshape(last.shape))
