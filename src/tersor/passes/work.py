"""What passes work on: the network as it is so far, the original, the user's data, and what must stay as it is."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tersor.errors import TersorError
from tersor.passes.step import Trained
from tersor.tune.batches import Batch, Data, once, split, to_device
from tersor.tune.distill import distill
from tersor.tune.settings import Status, Tuned

if TYPE_CHECKING:
    from tersor.representations.affine import Grid
    from tersor.representations.made import Made

_MOMENTUM = 0.9


@dataclass
class Work:
    """The state of a chain of passes.

    Attributes:
        network: what passes change, in place or by putting modules in place of others; in eval mode between passes.
        original: the network as it came; never changed.
        data: the user's batches, or None.
        labelled: batches end with labels.
        loss: of the user's own, from the network's output, the original's and the batch; None for the usual.
        seed: of everything random in a pass: make a generator of it.
        exclude: patterns (shell style) of names of tensors that no pass touches.
        masks: by parameter name, where weights may differ from zero; what is False stays zero in all training.
        fixed: names of parameters that no training changes.
        made: tensors that follow from a rule, by name; the file holds the rule.
        grids: of tensors that are on a grid of integers already, by name.
        importance: weights of errors by name, for codes that move in tuning; None for equal.
        tell: takes lines for a person.
        progress: takes a stage's name, steps done and steps expected.
    """

    network: nn.Module
    original: nn.Module
    data: Data | None = None
    labelled: bool = False
    loss: Callable[[Any, Any, Batch], torch.Tensor] | None = None
    seed: int = 0
    exclude: tuple[str, ...] = ()
    masks: dict[str, torch.Tensor] = field(default_factory=dict)
    fixed: set[str] = field(default_factory=set)
    made: dict[str, Made] = field(default_factory=dict)
    grids: dict[str, Grid] = field(default_factory=dict)
    importance: dict[str, torch.Tensor] | None = None
    tell: Callable[[str], None] = lambda line: None
    progress: Callable[..., None] | None = None

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(iter(self.network.parameters())).device

    def batches(self, count: int | None = None) -> Iterator[Batch]:
        """One pass over the user's batches, at most so many, on the network's device.

        Raises:
            TersorError: there are none.
        """
        if self.data is None:
            raise TersorError("needs data: batches of what the network takes")
        for raw in itertools.islice(once(self.data), count):
            yield to_device(split(raw, self.labelled), self.device)

    def example(self) -> Batch:
        """The first batch."""
        return next(self.batches(1))

    @torch.no_grad()
    def hold(self) -> None:
        """Set to zero what masks say."""
        for name, mask in self.masks.items():
            self.network.get_parameter(name).mul_(mask)

    def train(
        self, settings: Trained, *, after_step: Callable[[int], None] | None = None, steps: int | None = None
    ) -> Tuned | None:
        """Train the network as it is: masks and fixed parameters hold. Does nothing for 0 steps.

        Args:
            settings: how.
            after_step: called with the number of steps done, after each; masks are held after that.
            steps: in place of those of the settings.

        Raises:
            TersorError: there are no data, they do not fit, or training broke down.
        """
        count = settings.steps if steps is None else steps
        if count == 0:
            return None
        if self.data is None:
            raise TersorError("needs data to train on: batches of what the network takes")
        learns = {name: p.requires_grad for name, p in self.network.named_parameters()}
        optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam
        if settings.optimizer == "sgd":
            optimizer = partial(torch.optim.SGD, momentum=_MOMENTUM)

        def held(step: int) -> None:
            if after_step is not None:
                after_step(step)
            self.hold()

        def shown(status: Status) -> None:
            if self.progress is not None:
                self.progress("training", status.step, status.steps)

        for name, p in self.network.named_parameters():
            p.requires_grad_(learns[name] and name not in self.fixed)
        try:
            done = distill(
                self.network, self.original, self.data, steps=count, lr=settings.lr, labelled=self.labelled,
                label_weight=settings.label_weight, loss=self.loss, optimizer=optimizer, precision=settings.precision,
                after_step=held, progress=shown,
            )  # fmt: skip
        finally:
            for name, p in self.network.named_parameters():
                p.requires_grad_(learns.get(name, True))
        self.hold()
        if done.failed:
            raise TersorError(done.stopped or "training broke down")
        return done

    @torch.no_grad()
    def loss_of(self, batches: int | None = None) -> float:
        """Mean divergence of the network from the original on the user's batches."""
        from tersor.tune.objective import Objective

        objective = Objective(temperature=1.0)
        values = [float(objective(self.network, self.original, batch)) for batch in self.batches(batches)]
        return sum(values) / max(len(values), 1)
