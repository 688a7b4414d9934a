"""Training between passes, towards the original's answers or labels; zeros and fixed factors stay as they are."""

from __future__ import annotations

from typing import ClassVar

from tersor.passes.step import Stage, Trained
from tersor.passes.work import Work


class Train(Trained, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`train(steps=500, lr=0.001, precision='bf16')`: knowledge distillation, the loop of `tersor.distill`."""

    name: ClassVar[str] = "train"
    stage: ClassVar[Stage] = Stage.SPARSIFY
    about: ClassVar[str] = "train the network as it is, towards the original's answers or towards labels"
    free: ClassVar[bool] = True

    def check(self) -> None:
        """One step at least."""
        super().check()
        self.need(self.steps >= 1, "steps is 1 or more")

    def run(self, work: Work) -> None:
        """Train."""
        done = work.train(self)
        assert done is not None
        work.tell(f"trained {done.step} steps, loss {done.loss:.4g}")
