"""Tuning of what was coded: codebooks, palettes, scales, kept tensors, and codes where they may move. Comes last."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from tersor.passes.step import Stage, Trained
from tersor.passes.work import Work
from tersor.tune.distill import distill
from tersor.tune.settings import Status
from tersor.tune.tunable import Tunable

if TYPE_CHECKING:
    from tersor.archive import Archive


class Tune(Trained, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`tune(steps=600)`: the file is trained towards the original's answers, at the same size (`tersor tune`).

    Args:
        fixed: codes stay as they are; by default they move where they can.
    """

    name: ClassVar[str] = "tune"
    stage: ClassVar[Stage] = Stage.TUNE
    about: ClassVar[str] = "train what the file holds, towards the original's answers; comes last"

    lr: float = 2e-3
    fixed: bool = False

    def check(self) -> None:
        """One step at least."""
        super().check()
        self.need(self.steps >= 1, "steps is 1 or more")

    def after(self, work: Work, archive: Archive) -> Archive:
        """The archive, trained; `work.network` is what it holds."""
        assert work.data is not None
        moving = not self.fixed and bool(archive.index.groups) and not archive.index.scalars
        net = Tunable(work.network, archive, moving=moving, importance=work.importance)

        parameters = dict(net.network.named_parameters())
        held = [(parameters[name], mask) for name, mask in work.masks.items() if name in parameters]

        @torch.no_grad()
        def hold(step: int) -> None:
            for parameter, mask in held:  # of kept tensors; zeros of coded ones are no parameters
                parameter.mul_(mask)

        def shown(status: Status) -> None:
            if work.progress is not None:
                work.progress("tuning", status.step, status.steps)

        done = distill(
            net, work.original, work.data, steps=self.steps, lr=self.lr, labelled=work.labelled,
            label_weight=self.label_weight, loss=work.loss, precision=self.precision, after_step=hold, progress=shown,
        )  # fmt: skip
        self.need(not done.failed, done.stopped or "training broke down")
        hold(self.steps)
        made = net.freeze()
        work.network = made.apply_(work.network)
        return made
