"""What a tuning run is asked for, where it is, and how it ended: plain data."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tersor.tune.batches import Data
from tersor.tune.precision import Precision
from tersor.tune.ranks import Ranks


@dataclass(frozen=True)
class Status:
    """Where a run is.

    Attributes:
        step, steps: done, and in all.
        loss: of training, smoothed.
        held_out: loss on the held-out part when it was last measured; None before, or without one.
        score: the user's, when it was last measured; None before, or without one.
        seconds: since the start.
    """

    step: int
    steps: int
    loss: float
    held_out: float | None
    score: float | None
    seconds: float


@dataclass(frozen=True)
class Tuned:
    """How a run ended; the network holds the best state.

    Attributes:
        step: of the state that was kept.
        loss: of training, smoothed, at the end.
        held_out, score: of the network as it is now; None where not asked for.
        failed: whether training broke down (NaN).
        stopped: why it ended before all steps, in one line; None if it did not.
    """

    step: int
    loss: float
    held_out: float | None
    score: float | None
    failed: bool
    stopped: str | None


@dataclass(frozen=True)
class Settings:
    """What `distill` was asked for; see there. `interval`: steps between checks."""

    steps: int
    lr: float
    labelled: bool
    share: float
    every: int
    optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
    clip: float | None
    precision: Precision
    norm_batches: int
    held_out: Data | None
    patience: int | None
    evaluate: Callable[[nn.Module], float] | None
    interval: int
    after_step: Callable[[int], None] | None
    checkpoint: str | os.PathLike[str] | None
    progress: Callable[[Status], None] | None
    ranks: Ranks = field(default_factory=Ranks)
