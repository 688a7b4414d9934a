"""One tuning run: its steps, its checks, the best state so far, and how it ends."""

from __future__ import annotations

import copy
import hashlib
import itertools
import math
import os
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tersor.errors import TersorError
from tersor.tune import norms
from tersor.tune import resume as resuming
from tersor.tune.batches import Batch, Data, once, passes, split, to_device
from tersor.tune.objective import Objective
from tersor.tune.precision import Mixed
from tersor.tune.settings import Settings, Status, Tuned
from tersor.tune.tunable import Tunable, unwrapped

SETTLED = 0.3
"""Share of the steps, at the end, in which codes do not move any more and everything else adapts to them."""

_WARM = 0.03  # share of the steps in which the rate of learning rises
_JUDGES = 8  # batches


class Run:
    """The state of one call of `distill`.

    Raises:
        TersorError: the network cannot be trained, or not in the way asked for.
    """

    def __init__(
        self, net: nn.Module, teacher: nn.Module | None, data: Data, objective: Objective, settings: Settings
    ) -> None:
        self.net, self.teacher, self.data, self.objective, self.settings = net, teacher, data, objective, settings
        inner = unwrapped(net)
        self.tunable = inner if isinstance(inner, Tunable) else None
        self.ranks = settings.ranks
        self.origin = "" if self.tunable is None else hashlib.sha256(self.tunable.archive.to_bytes()).hexdigest()
        self.check_inputs()
        self.device = next(iter(net.parameters())).device
        self.mixed = Mixed(settings.precision, self.device.type, self.ranks)
        steps = settings.steps
        self.settling = steps - math.ceil(SETTLED * steps) if self.tunable and self.tunable.moving else 0
        if teacher is not None:
            teacher.eval()
        self.optimizer = self.new_optimizer()
        self.step, self.smooth, self.started = 0, math.nan, time.perf_counter()
        self.best: dict[str, Any] | None = None
        self.best_loss, self.best_step, self.since = math.inf, 0, 0
        self.held_loss: float | None = None
        self.score: float | None = None
        self.stopped: str | None = None
        self.failed = False

    def check_inputs(self) -> None:
        """Refuse what would fail later, or silently go wrong."""
        trained = [p for p in self.net.parameters() if p.requires_grad]
        if not trained:
            raise TersorError("distill: the network has no parameters to train")
        small = {str(p.dtype).removeprefix("torch.") for p in trained if p.dtype in (torch.float16, torch.bfloat16)}
        if small:
            raise TersorError(
                f"distill: parameters are {' and '.join(sorted(small))}, too coarse for small updates; "
                "give net.float() and precision='bf16' or 'fp16'"
            )
        if isinstance(self.settings.held_out, Iterator):
            raise TersorError("distill: held_out serves only once; give a list, a DataLoader or a function")
        if self.tunable is not None and self.tunable.moving and isinstance(self.net, DistributedDataParallel):
            raise TersorError(
                "distill: codes that move end as other parameters, which DistributedDataParallel would not notice; "
                "give a network whose codes stay"
            )

    def new_optimizer(self) -> torch.optim.Optimizer:
        """An optimizer of what there is to train now."""
        if self.tunable is not None:
            groups = self.tunable.parameter_groups(self.settings.lr)
        else:
            groups = [{"params": [p for p in self.net.parameters() if p.requires_grad], "lr": self.settings.lr}]
        made = self.settings.optimizer([group for group in groups if group["params"]])
        for group in made.param_groups:
            group.setdefault("initial_lr", group["lr"])
        return made

    def schedule(self) -> None:
        """Set the rates for the coming step."""
        warm = max(1, math.ceil(_WARM * self.settings.steps))
        factor = min(1.0, (self.step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * self.step / self.settings.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def batches(self) -> Iterator[Batch]:
        """Batches on the network's device, endlessly; those that a resumed run has seen are passed over."""
        for batch in self.ranks.share(passes(self.data), self.step):
            yield to_device(split(batch, self.settings.labelled), self.device)

    def train(self) -> None:
        """All steps, or as many as it takes."""
        batches = self.batches()
        if self.best is None:
            self.keep(self.standing())
        while self.step < self.settings.steps and not self.stopped:
            batch = next(batches)
            if self.tunable is not None and self.tunable.moving and self.step >= self.settling:
                if not self.sound():
                    self.break_down(self.step)
                    return
                self.tunable.settle()
                self.optimizer = self.new_optimizer()
                self.keep(self.standing())
            if not self.advance(batch):
                return
            if self.settings.progress is not None:
                seconds = time.perf_counter() - self.started
                self.settings.progress(
                    Status(self.step, self.settings.steps, self.smooth, self.held_loss, self.score, seconds)
                )
            if self.step % self.settings.interval == 0 or self.step == self.settings.steps:
                self.check(batch)

    def advance(self, batch: Batch) -> bool:
        """One step; False if the loss, or every gradient for a while, is no number."""
        self.net.train()
        self.schedule()
        with self.mixed.autocast():
            loss = self.objective(self.net, self.teacher, batch)
        value = self.ranks.mean(float(loss.detach()))  # no number for one is none for all
        finite = math.isfinite(value) and (self.mixed.step(loss, self.optimizer, self.settings.clip) or self.scaled)
        if not finite:
            return self.break_down(self.step + 1)
        self.step += 1
        self.smooth = value if math.isnan(self.smooth) else 0.95 * self.smooth + 0.05 * value
        if self.tunable is not None and self.tunable.moving and self.step % self.settings.every == 0:
            if not self.sound():
                return self.break_down(self.step)
            self.tunable.choose(self.settings.share)
        if self.settings.after_step is not None:
            self.settings.after_step(self.step)
        return True

    @property
    def scaled(self) -> bool:
        """Whether losses are scaled: then gradients may overflow, and the scale is on its way down."""
        return self.mixed.scaler.is_enabled() and self.mixed.scaler.get_scale() > 1e-4

    def break_down(self, step: int) -> bool:
        """The loss of that step, or what it left, is no number any more: go back to the best state."""
        self.failed = True
        self.stopped = (
            f"the loss became NaN or infinite at step {step}; "
            f"the best state, of step {self.best_step}, was kept; lower the rate (lr)"
        )
        return False

    def sound(self) -> bool:
        """Whether all parameters are finite, and make a file."""
        if self.tunable is not None:
            return self.tunable.sound()
        return all(bool(p.isfinite().all()) for p in self.net.parameters())

    def standing(self) -> float:
        """The held-out loss to beat; infinite where there is none, or where codes are still to settle."""
        if self.settings.held_out is None or (self.tunable is not None and self.tunable.moving):
            return math.inf
        self.held_loss = self.mean_loss(self.settings.held_out)
        return self.held_loss

    @torch.no_grad()
    def check(self, batch: Batch) -> None:
        """Measure, keep the state if it is the best, save the run; the batch shows whether it is sound at all."""
        self.net.eval()
        self.ranks.same_(self.net)
        with self.mixed.autocast():
            loss = self.ranks.mean(float(self.objective(self.net, self.teacher, batch)))
        if not (math.isfinite(loss) and self.sound()):
            self.break_down(self.step)
            return
        if self.settings.held_out is not None:
            self.held_loss = self.mean_loss(self.settings.held_out)
        if self.settings.evaluate is not None:
            self.net.eval()
            self.score = float(self.settings.evaluate(self.net))
        moving = self.tunable is not None and self.tunable.moving
        judged = self.smooth if self.held_loss is None else self.held_loss
        if moving or self.settings.held_out is None or judged < self.best_loss:
            self.keep(math.inf if moving else judged)
        else:
            self.since += 1
            if self.settings.patience is not None and self.since >= self.settings.patience:
                self.stopped = f"no better held-out loss in {self.since} checks; ended at step {self.step}"
        if self.settings.checkpoint is not None and self.ranks.rank == 0:
            resuming.save(self.settings.checkpoint, self)

    def keep(self, loss: float) -> None:
        """Remember the state as the best so far."""
        self.best_loss, self.best_step, self.since = loss, self.step, 0
        self.best = copy.deepcopy(self.net.state_dict())

    @torch.no_grad()
    def mean_loss(self, data: Data) -> float:
        """Mean loss over batches, in eval mode."""
        self.net.eval()
        losses = []
        for batch in once(data):
            with self.mixed.autocast():
                losses.append(float(self.objective(self.net, self.teacher, self.bring(batch))))
        return sum(losses) / len(losses)

    def bring(self, batch: Any) -> Batch:
        """A batch of the user's on the network's device."""
        return to_device(split(batch, self.settings.labelled), self.device)

    def finish(self) -> None:
        """The best state, settled, with statistics of its own, rounded as the file will have it, and measured."""
        self.ranks.same_(self.net)
        if self.best is not None and (self.failed or self.best_step != self.step):
            self.net.load_state_dict(self.best)
        else:
            self.best_step = self.step
        if self.tunable is not None and self.tunable.moving:
            self.tunable.settle()
        self.statistics(self.settings.norm_batches)
        self.net.eval()
        if self.tunable is not None:
            self.tunable.round_()
        if self.settings.held_out is not None:
            self.held_loss = self.mean_loss(self.settings.held_out)
        if self.settings.evaluate is not None:
            self.score = float(self.settings.evaluate(self.net))

    def statistics(self, count: int) -> None:
        """Re-estimate batch-norm statistics, unless those from training do better (held out, or on some batches)."""
        if not count or self.failed or not norms.has_statistics(self.net):
            return
        before = copy.deepcopy(self.net.state_dict())
        try:
            judges = self.settings.held_out
            if judges is None:
                judges = list(itertools.islice(once(self.data), _JUDGES))
            loss = self.mean_loss(judges)
            norms.reestimate(self.net, itertools.islice(once(self.data), count), labelled=self.settings.labelled)
            better = self.mean_loss(judges) <= loss
        except TersorError:  # data that could be gone through only once: the statistics from training stay
            better = False
        if not better:
            self.net.load_state_dict(before)

    def restore(self) -> None:
        """Continue where the checkpoint is."""
        if self.settings.checkpoint is None:
            raise TersorError("distill: resume needs the file to continue from; give checkpoint=")
        if os.path.exists(self.settings.checkpoint):
            resuming.load(self.settings.checkpoint, self)

    def result(self) -> Tuned:
        """What the call returns."""
        return Tuned(self.best_step, self.smooth, self.held_loss, self.score, self.failed, self.stopped)
