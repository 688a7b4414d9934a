"""Diagonals of second derivatives of the loss, by which Optimal Brain Damage judges weights, for any module.

The loss is that of LeCun, Denker and Solla's theory where it holds best: the divergence from the network's own
outputs. Its gradient is zero at the network as it is ("extremal"), whatever the network was trained on, and its Hessian
is the Gauss-Newton matrix, never negative. Labels are not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import nn
from torch.func import functional_call

from tersor.errors import TersorError
from tersor.tune.batches import Batch, class_dim, logits, mapped
from tersor.tune.fisher import Fisher
from tersor.tune.objective import divergence
from tersor.tune.ranks import Ranks

_NOTHING = "the data yields no batches to measure second derivatives on"

Kind = Literal["fisher", "gauss-newton", "hutchinson"]


def second_derivatives(
    network: nn.Module,
    names: Sequence[str],
    batches: Iterator[Batch],
    kind: Kind,
    *,
    seed: int = 0,
    samples: int = 1,
) -> dict[str, torch.Tensor]:
    """d2E/du2 of each weight, E the divergence from the network's own outputs, in nats per item.

    Args:
        network: in eval mode, with logits as outputs.
        names: of parameters.
        batches: inputs; labels are not used.
        kind: "gauss-newton" is exact, one backward pass per class; "fisher" draws labels from the outputs and squares
            the derivatives item by item, which has the same mean (`tersor.importance`); "hutchinson" takes products of
            random signs with the Hessian, two backward passes each, and may come out negative where it is small.
        seed: of labels and signs.
        samples: labels or signs drawn per item or batch.

    Returns:
        By name, float32, shaped like the parameters.

    Raises:
        TersorError: there are no batches, or the outputs have no logits.
    """
    every = dict(network.named_parameters(remove_duplicate=False))
    parameters = {name: every[name] for name in names}
    device = next(iter(every.values())).device
    generator = torch.Generator(device)
    generator.manual_seed(seed)
    learns = {name: p.requires_grad for name, p in every.items()}
    try:
        for name, p in every.items():  # no graph through what is not asked for
            p.requires_grad_(kind == "hutchinson" and name in parameters)
        if kind == "hutchinson":
            return _hutchinson(network, parameters, batches, samples, generator)
        measure = (Fisher if kind == "fisher" else _GaussNewton)(network, parameters, None, samples, generator)
        seen = 0
        for batch in batches:
            seen += 1
            measure.add(Batch(batch.args, batch.kwargs))
        if not seen:
            raise TersorError(_NOTHING)
        return {name: value.to(device) for name, value in measure.result(Ranks(False)).items()}
    finally:
        for name, p in every.items():
            p.requires_grad_(learns[name])


class _GaussNewton(Fisher):
    """Exact: the Hessian of the divergence in the logits is sum_c v_c v_c^T, v_c = sqrt(p_c) (e_c - p), p the softmax.

    Where an item has several positions, each gets a random sign: cross terms between positions vanish in the mean.
    """

    def _draw(self, scores: torch.Tensor, dim: int) -> Iterator[torch.Tensor]:  # type: ignore[override]
        chances = scores.softmax(dim)
        if not chances.isfinite().all():
            raise TersorError("the model's logits are NaN or infinite on this data; mend the model or the data")
        flat = chances.movedim(dim, -1)
        for _ in range(self._samples):
            for c in range(flat.shape[-1]):
                vector = -flat[..., c : c + 1].sqrt() * flat
                vector[..., c] += flat[..., c].sqrt()
                if flat.ndim > 2:
                    signs = torch.randint(0, 2, flat.shape[:-1], generator=self._generator, device=flat.device)
                    vector = vector * (2 * signs - 1).unsqueeze(-1)
                yield vector.movedim(-1, dim)

    def _items(
        self, batch: Batch, shape: torch.Size, dim: int
    ) -> tuple[list[torch.Tensor], Callable[..., torch.Tensor]]:
        items, _ = super()._items(batch, shape, dim)
        leaves: list[object] = []
        mapped(batch, leaves.append)
        cut = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor) and leaf.shape[:1] == shape[:1]]

        def along(
            parameters: Mapping[str, torch.Tensor], own: Sequence[torch.Tensor], vector: torch.Tensor
        ) -> torch.Tensor:
            mine = dict(zip(cut, own, strict=True))
            given = iter([mine[i].unsqueeze(0) if i in mine else leaf for i, leaf in enumerate(leaves)])
            one = mapped(batch, lambda _: next(given))
            scores = logits(functional_call(self._model, dict(parameters), one.args, one.kwargs))
            return (scores.reshape(1, *shape[1:]).float() * vector.unsqueeze(0)).sum()

        return items, along


def _hutchinson(
    network: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    batches: Iterator[Batch],
    samples: int,
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """E[z * (H z)] over random signs z (Hutchinson 1990; Bekas, Kokiopoulou and Saad 2007)."""
    sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
    count = 0
    for batch in batches:
        with torch.enable_grad():
            scores = logits(Batch(batch.args, batch.kwargs).call(network)).float()
            dim = class_dim(scores)
            items, positions = len(scores), scores.numel() // scores.shape[dim]
            loss = divergence(scores, scores.detach(), 1.0, dim) * (positions / items)
            leaves = [*parameters.values()]
            slopes = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True)
            for _ in range(samples):
                signs = [2.0 * torch.randint(0, 2, p.shape, generator=generator, device=p.device) - 1 for p in leaves]
                along = [(g * z).sum() for g, z in zip(slopes, signs, strict=True) if g is not None]
                products = torch.autograd.grad(torch.stack(along).sum(), leaves, retain_graph=True, allow_unused=True)
                for name, z, product in zip(parameters, signs, products, strict=True):
                    if product is not None:
                        sums[name] += items * z * product.detach()
                count += items
    if not count:
        raise TersorError(_NOTHING)
    return {name: (total / count).float() for name, total in sums.items()}
