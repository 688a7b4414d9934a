"""What tuning minimises: the divergence from the original network, optionally labels and features.

Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015 (temperature, its square as a
factor); Romero et al., "FitNets", 2015 (features).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tersor.errors import TersorError
from tersor.tune.batches import Batch, class_dim, logits
from tersor.tune.tunable import Tunable, unwrapped

_LEAST = torch.finfo(torch.float32).min  # logarithms of probabilities; lower ones would give NaN times zero


@dataclass(frozen=True)
class Objective:
    """A loss of one batch.

    Attributes:
        temperature: of both distributions; their divergence counts `temperature ** 2` times, so that gradients keep
            their size.
        label_weight: share of the cross-entropy with the labels; the rest is the divergence.
        features: names of submodules whose outputs are matched too.
        feature_weight: of their squared error over the energy of the original's.
        dim: of the classes in the output; None for 1 in outputs of four dimensions and more, else the last.
        loss: the user's own, from both outputs and the batch, in place of divergence and cross-entropy.
    """

    temperature: float = 2.0
    label_weight: float = 0.0
    features: tuple[str, ...] = ()
    feature_weight: float = 1.0
    dim: int | None = None
    loss: Callable[[Any, Any, Batch], torch.Tensor] | None = None

    def __call__(self, net: nn.Module, teacher: nn.Module | None, batch: Batch) -> torch.Tensor:
        """The loss, float32 []."""
        theirs: dict[str, torch.Tensor] = {}
        target = None
        if teacher is not None:
            with torch.no_grad(), outputs_of(teacher, self.features) as theirs:
                target = batch.call(teacher)
        with outputs_of(net, self.features) as mine:
            output = batch.call(net)
        if self.features and teacher is None:
            raise TersorError("distill: features are matched with a teacher's; give one, or no features")
        total = self.loss(output, target, batch) if self.loss is not None else self._divergence(output, target, batch)
        for name, other in theirs.items():
            error = (mine[name].float() - other.float()).square().mean()
            total = total + self.feature_weight * error / other.float().square().mean().clamp(min=1e-12)
        return total

    def _divergence(self, output: Any, target: Any, batch: Batch) -> torch.Tensor:
        student = logits(output).float()
        dim = class_dim(student) if self.dim is None else self.dim
        total = student.new_zeros(())
        if self.label_weight < 1:
            if target is None:
                raise TersorError("distill: without a teacher there are only labels to learn from; set label_weight=1")
            teacher = logits(target).float()
            if teacher.shape != student.shape:
                raise TersorError(f"distill: outputs differ in shape, {list(student.shape)} and {list(teacher.shape)}")
            total = (1 - self.label_weight) * divergence(student, teacher, self.temperature, dim)
        if self.label_weight > 0:
            if batch.labels is None:
                raise TersorError("distill: label_weight needs labels; give labelled=True and labels in every batch")
            total = total + self.label_weight * F.cross_entropy(student.movedim(dim, 1), batch.labels)
        return total


def divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float, dim: int) -> torch.Tensor:
    """Kullback-Leibler divergence of the student's softmax from the teacher's, times the squared temperature.

    Summed over classes (dimension `dim`), averaged over everything else; in nats. Classes that both rule out (scores
    of minus infinity) count nothing.
    """
    mine, theirs = (F.log_softmax(scores / temperature, dim).clamp(min=_LEAST) for scores in (student, teacher))
    each = (theirs.exp() * (theirs - mine)).sum(dim)
    return temperature**2 * each.mean()


@contextmanager
def outputs_of(net: nn.Module, names: Sequence[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Outputs of the named submodules, as they come in whatever forward runs inside the block."""
    inner = unwrapped(net)
    inner = inner.network if isinstance(inner, Tunable) else inner
    found: dict[str, torch.Tensor] = {}
    hooks = []
    try:
        for name in names:
            try:
                module = inner.get_submodule(name)
            except AttributeError as error:
                raise TersorError(f"distill: the network has no submodule {name!r} to match features of") from error
            hooks.append(module.register_forward_hook(partial(_note, found, name)))
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _note(found: dict[str, torch.Tensor], name: str, module: nn.Module, inputs: Any, output: Any) -> None:
    if not isinstance(output, torch.Tensor):
        kind = type(output).__name__
        raise TersorError(f"distill: the output of {name!r} is a {kind}; match modules that give a tensor")
    found[name] = output
