"""A ready training loop: the compressed network learns to answer as the original does."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from tersor.errors import TersorError
from tersor.tune.batches import Batch, Data
from tersor.tune.objective import Objective
from tersor.tune.precision import Precision
from tersor.tune.ranks import Ranks
from tersor.tune.run import Run
from tersor.tune.settings import Settings, Status, Tuned

_CHECKS = 10


def distill(
    net: nn.Module,
    teacher: nn.Module | None,
    data: Data,
    *,
    steps: int,
    lr: float = 2e-3,
    temperature: float = 2.0,
    labelled: bool = False,
    label_weight: float = 0.0,
    features: Sequence[str] = (),
    feature_weight: float = 1.0,
    class_dim: int | None = None,
    loss: Callable[[Any, Any, Batch], torch.Tensor] | None = None,
    share: float = 1.0,
    every: int = 1,
    optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer] = torch.optim.Adam,
    clip: float | None = None,
    precision: Precision = "fp32",
    norm_batches: int = 50,
    held_out: Data | None = None,
    patience: int | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    checks: int = _CHECKS,
    after_step: Callable[[int], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    distributed: bool = False,
    progress: Callable[[Status], None] | None = None,
) -> Tuned:
    """Train `net` towards `teacher` on the user's data; at the end `net` holds the best state, in eval mode.

    Codes that move (`tunable(..., moving=True)`) are chosen again after every step, and settle for the last 30 % of the
    steps. The rate of learning warms up and falls along a cosine. Batch-norm statistics are re-estimated at the end.

    Args:
        net: what `tunable` made, or any module.
        teacher: the original network; None to learn from labels alone. Put in eval mode.
        data: batches: a list, a DataLoader, or a function that gives a fresh iterable for each pass. A batch is a
            tensor (the network's one input), a mapping (keyword arguments), or a tuple (positional arguments).
        steps: batches to learn from.
        lr: the highest rate; see `Tunable.parameter_groups` for what it means where.
        temperature: of the divergence from the teacher's output.
        labelled: whether the last item of a batch (`"labels"` of a mapping) is its labels.
        label_weight: share of the cross-entropy with labels in the loss.
        features: names of submodules whose outputs are matched as well, `feature_weight` times.
        class_dim: dimension of the classes; by default 1 in outputs of four dimensions and more, else the last.
        loss: a loss of your own, from the network's output, the teacher's, and the batch.
        share: of the vectors, the part whose codes may move at a time.
        every: steps between choices of codes.
        optimizer: makes one from parameter groups.
        clip: the norm that gradients are clipped to.
        precision: fp32; bf16, or fp16 with dynamic loss scaling, both with float32 master weights.
        norm_batches: of the data, for batch-norm statistics; 0 leaves them.
        held_out: batches never trained on; the state with the least loss on them is kept, and training ends when
            `patience` checks in a row brought nothing better.
        evaluate: gives a score of the network, for progress and the result.
        checks: times that held-out loss and score are measured.
        after_step: called with the number of steps done, after each; for schedules of your own.
        checkpoint: file that the run is saved to at every check; `resume` continues from it.
        distributed: every process of torch.distributed's group takes its share of the batches, so that a step learns
            from as many batches as there are processes; all end with the same network. Codes may move, unlike with
            DistributedDataParallel around `net`. The first process saves checkpoints; all resume from them.
        progress: called after every step.

    Raises:
        TersorError: data yields nothing or does not fit the network; a checkpoint of another run; nothing to train.
    """
    if steps < 1:
        raise TersorError(f"distill: steps is {steps}; give 1 or more")
    if not (temperature > 0 and 0 <= label_weight <= 1 and 0 < share <= 1):
        raise TersorError(
            f"distill: temperature {temperature}, label_weight {label_weight} and share {share} must be above 0, "
            "from 0 to 1, and above 0 up to 1"
        )
    objective = Objective(temperature, label_weight, tuple(features), feature_weight, class_dim, loss)
    interval = max(1, math.ceil(steps / max(checks, 1)))
    settings = Settings(
        steps, lr, labelled, share, max(every, 1), optimizer, clip, precision, norm_batches, held_out, patience,
        evaluate, interval, after_step, checkpoint, progress, Ranks(distributed),
    )  # fmt: skip
    run = Run(net, teacher, data, objective, settings)
    if resume:
        run.restore()
    run.train()
    run.finish()
    return run.result()
