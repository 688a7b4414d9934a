"""Neurons merged with their nearest twins: a smaller network, without data and without training.

Source: Srinivas and Babu, "Data-free Parameter Pruning for Deep Neural Networks", BMVC 2015 (`saliency.py` says what of
it is theirs). Ours: convolutions, batch norms (neurons are compared with them folded in, and keep them), finding the
pairs of layers, and `parallel`.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import nn

from tersor.passes.flow import flow_of, tell_left
from tersor.passes.fold import folded, rows_of
from tersor.passes.pairs import Pair, pair_from
from tersor.passes.saliency import Merges, cutoff, incoming, merged, outgoing, plot
from tersor.passes.sites import CONVOLUTIONS
from tersor.passes.step import Stage, Step
from tersor.passes.work import Work
from tersor.structure.resize import resize_


class Merge(Step, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Merges similar neurons (or filters) of every layer that is followed by just one other.

    Args:
        share: of each layer's neurons, how many go.
        cutoff: "auto": in each layer those of a saliency up to the mode of its histogram; what is done if neither is
            given.
        parallel: ours: neurons count as twins up to a positive factor, where what is behind them allows it (ReLU).
        plot: file for a plot (SVG) of saliencies of successive removals.
    """

    name: ClassVar[str] = "merge"
    stage: ClassVar[Stage] = Stage.SHRINK
    about: ClassVar[str] = "merges neurons that do nearly the same; needs no data"

    share: float | None = None
    cutoff: Literal["auto"] | None = None
    parallel: bool = False
    plot: str | None = None

    def check(self) -> None:
        """One of share and cutoff; a share that leaves something."""
        self.need(self.share is None or self.cutoff is None, "give share or cutoff, not both")
        self.need(self.share is None or 0 <= self.share < 1, "share is from 0 to below 1")

    def run(self, work: Work) -> None:
        """Merge in every pair of layers, first to last."""
        flow = flow_of(work)
        curves: dict[str, torch.Tensor] = {}
        removed, left = 0, {}
        for node in flow.nodes:
            layer = flow.module(node)
            if not isinstance(layer, (nn.Linear, *CONVOLUTIONS)):
                continue
            pair, why = pair_from(flow, node, work.exclude)
            if pair is not None:
                removed += self._merge(work, pair, curves)
            elif why != "it is the last":
                left[str(node.target)] = why
        tell_left(work, "not merged", left)
        work.tell(f"{removed} neurons merged in {len(curves)} layers")
        if self.plot is not None:
            plot(curves, self.plot)

    def _merge(self, work: Work, pair: Pair, curves: dict[str, torch.Tensor]) -> int:
        """Merge in one pair; how many neurons went."""
        layer: Any = work.network.get_submodule(pair.layer)
        following: Any = work.network.get_submodule(pair.following)
        norm = work.network.get_submodule(pair.norm) if pair.norm else None
        neurons = rows_of(layer)
        weight, bias = folded(layer, norm) if norm is not None else (layer.weight, layer.bias)
        rows, columns = incoming(weight, bias), outgoing(following.weight, neurons)
        parallel = self.parallel and pair.homogeneous
        if self.parallel and not parallel:
            work.tell(f"{pair.layer}: what is behind it is not homogeneous; neurons are merged without factors")
        limit, count = math.inf, None if self.share is None else int(self.share * neurons + 1e-9)
        if self.share is None or self.plot is not None:
            curves[pair.layer] = torch.from_numpy(merged(rows, columns, parallel=parallel).saliencies)
        if self.share is None:
            limit = cutoff(curves[pair.layer])
        found = merged(rows, columns, count, limit, parallel)
        curves.setdefault(pair.layer, torch.from_numpy(found.saliencies))
        if found.pairs:
            apply(work, pair, found, neurons)
            most = float(found.saliencies.max())
            work.tell(f"{pair.layer}: {len(found.pairs)} of {neurons} neurons merged, saliency up to {most:.3g}")
        return len(found.pairs)


@torch.no_grad()
def apply(work: Work, pair: Pair, found: Merges, neurons: int) -> None:
    """Make the layers of a pair smaller; masks follow (a merged weight may differ from zero where either could)."""
    following: Any = work.network.get_submodule(pair.following)
    for path in (pair.layer, pair.norm):
        if path:
            keep_rows(work, path, torch.from_numpy(found.keep))
    name = f"{pair.following}.weight"
    mask = work.masks.get(name)
    if mask is not None:
        may = outgoing(mask, neurons) > 0
        for i, j, _ in found.pairs:
            may[i] |= may[j]
        work.masks[name] = spread(may[found.keep], mask)
    put_tensor(following, spread(found.columns, following.weight))


def spread(columns: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """The reverse of `outgoing`: [neurons, ...] as the weight of the next layer, of the type of `like`."""
    made = torch.from_numpy(columns).to(device=like.device, dtype=like.dtype)
    made = made.reshape(len(columns), len(like), -1).transpose(0, 1)
    return made.reshape(len(like), -1, *like.shape[2:]).contiguous()


def keep_rows(work: Work, path: str, keep: torch.Tensor) -> None:
    """Keep only these output channels of a layer, or channels of a batch norm."""
    module = work.network.get_submodule(path)
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    old = {leaf: t.detach().clone() for leaf, t in tensors if t.ndim > 0}
    kept = {leaf: t[keep.to(t.device)] for leaf, t in old.items()}
    resize_(module, {leaf: tuple(t.shape) for leaf, t in kept.items()})
    for leaf, t in kept.items():
        getattr(module, leaf).copy_(t)
        name = f"{path}.{leaf}"
        if name in work.masks:
            work.masks[name] = work.masks[name][keep.to(work.masks[name].device)]


def put_tensor(module: Any, weight: torch.Tensor) -> None:
    """Give a layer a weight of another shape."""
    resize_(module, {"weight": tuple(weight.shape)})
    module.weight.copy_(weight)
