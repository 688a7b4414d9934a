"""The diagonal of the Fisher information, by labels drawn from the model's own outputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from tersor.errors import TersorError
from tersor.tune import batches
from tersor.tune.batches import Batch, logits, mapped
from tersor.tune.ranks import Ranks

FLOATS = 1 << 26
"""Derivatives held at once: 256 MiB."""

_Parameters = dict[str, torch.Tensor]
_Surprise = Callable[[_Parameters, Sequence[torch.Tensor], torch.Tensor], torch.Tensor]


class Fisher:
    """The mean over items of squared derivatives of each item's log-likelihood.

    The square of a sum is not the sum of squares, so that derivatives are taken item by item: many at once by `vmap`,
    or one after the other where it fails (in-place operations, control flow that asks for values). Both use the same
    labels.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        class_dim: int | None,
        samples: int,
        generator: torch.Generator,
    ) -> None:
        """Of `parameters` of a model in eval mode.

        Args:
            model: its outputs have logits.
            parameters: by the model's names, floating-point, tied ones once.
            class_dim: dimension of the classes in the logits, None for the usual.
            samples: labels drawn per item and position.
            generator: of the labels, on the model's device.
        """
        self._model, self._class_dim, self._samples, self._generator = model, class_dim, samples, generator
        self._parameters = {name: p.detach() for name, p in parameters.items()}
        self._sums = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in self._parameters.items()}
        self._chunk = max(1, FLOATS // max(1, sum(p.numel() for p in parameters.values())))
        self._drawn = 0

    def add(self, batch: Batch) -> None:
        """Take in the items of a batch without labels.

        Raises:
            TersorError: the output has no logits, not one set per item, less than two classes, or NaN.
        """
        with torch.no_grad():
            scores = logits(mapped(batch, _copy).call(self._model)).float()
        dim = self._dimension(scores)
        items, surprise = self._items(batch, scores.shape, dim)
        for labels in self._draw(scores, dim):
            for start in range(0, len(scores), self._chunk):
                part = slice(start, start + self._chunk)
                self._square(surprise, [tensor[part] for tensor in items], labels[part])
        self._drawn += self._samples * len(scores)

    def result(self, ranks: Ranks) -> _Parameters:
        """The diagonal by name, float32 on the CPU, over what all processes took in."""
        drawn = sum(ranks.gather(self._drawn))
        ranks.add_([*self._sums.values()])
        return {name: (total / drawn).cpu() for name, total in self._sums.items()}

    def _dimension(self, scores: torch.Tensor) -> int:
        dim = batches.class_dim(scores) if self._class_dim is None else self._class_dim
        shape = list(scores.shape)
        if not -scores.ndim <= dim < scores.ndim or dim % scores.ndim == 0:
            raise TersorError(f"logits of shape {shape} have no classes in dimension {dim}; set class_dim")
        if shape[dim] < 2:
            raise TersorError(
                f"logits of shape {shape} have {shape[dim]} class in dimension {dim}, which says nothing about "
                "importance; set class_dim, or use kind='activation'"
            )
        return dim % scores.ndim

    def _items(self, batch: Batch, shape: torch.Size, dim: int) -> tuple[list[torch.Tensor], _Surprise]:
        """The tensors that are cut into items, and minus the log-likelihood of one item, given its cuts."""
        leaves: list[Any] = []
        mapped(batch, leaves.append)
        cut = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor) and leaf.shape[:1] == shape[:1]]
        first = next((i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor) and leaf.ndim), None)
        if first not in cut:
            given = "no tensors" if first is None else f"an input of shape {list(leaves[first].shape)}"
            raise TersorError(
                f"logits of shape {list(shape)} come from {given}; Fisher information needs one item per row of both, "
                "else use kind='activation'"
            )

        def surprise(parameters: _Parameters, items: Sequence[torch.Tensor], label: torch.Tensor) -> torch.Tensor:
            own = dict(zip(cut, items, strict=True))
            given = iter([own[i].unsqueeze(0) if i in own else leaf for i, leaf in enumerate(leaves)])
            one = mapped(batch, lambda _: _copy(next(given)))
            scores = logits(functional_call(self._model, parameters, one.args, one.kwargs))
            scores = scores.reshape(1, *shape[1:]).float()  # some models squeeze a batch of one away
            return -scores.log_softmax(dim).gather(dim, label.unsqueeze(0).unsqueeze(dim)).sum()

        return [leaves[i] for i in cut], surprise

    def _draw(self, scores: torch.Tensor, dim: int) -> torch.Tensor:
        """Labels [samples, items, ...positions], each from the softmax of its scores."""
        chances = scores.softmax(dim).movedim(dim, -1)
        if not chances.isfinite().all():
            raise TersorError("the model's logits are NaN or infinite on this data; mend the model or the data")
        drawn = chances.reshape(-1, chances.shape[-1]).multinomial(self._samples, True, generator=self._generator)
        return drawn.T.reshape(self._samples, *chances.shape[:-1])

    def _square(self, surprise: _Surprise, items: list[torch.Tensor], labels: torch.Tensor) -> None:
        """Add the squared derivatives of some items."""
        if self._chunk > 1:
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message="There is a performance drop")
                    slopes = vmap(grad(surprise), in_dims=(None, 0, 0))(self._parameters, items, labels)
            except Exception:  # whatever it was: the loop below can, or says what is wrong with the model itself
                self._chunk = 1
            else:
                for name, slope in slopes.items():
                    self._sums[name] += slope.float().square().sum(0)
                return
        leaves = {name: p.detach().requires_grad_() for name, p in self._parameters.items()}
        for i, label in enumerate(labels):
            with torch.enable_grad(), self._differentiable():
                value = surprise(leaves, [tensor[i] for tensor in items], label)
            if not value.requires_grad:  # no parameter took part
                continue
            slopes = dict(zip(leaves, torch.autograd.grad(value, [*leaves.values()], allow_unused=True), strict=True))
            for name, slope in slopes.items():
                if slope is not None:
                    self._sums[name] += slope.float().square()

    def _differentiable(self) -> AbstractContextManager[None]:
        """Recurrent layers of cuDNN have derivatives in training mode only; torch's own have them always."""
        recurrent = any(isinstance(module, nn.RNNBase) for module in self._model.modules())
        return torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()


def _copy(leaf: Any) -> Any:
    """A model that works in place must not change the user's batch, nor what comes after."""
    return leaf.clone() if isinstance(leaf, torch.Tensor) else leaf
