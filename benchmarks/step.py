"""Time of a tuning step against the same step on the dense network: forward, backward, Adam, choice of codes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import tersor
from benchmarks import store
from benchmarks.environment import environment
from benchmarks.options import Options
from benchmarks.tasks import TASKS, Task
from tersor.tune.batches import logits, split

log = logging.getLogger("benchmarks")

NAME = "step"
RATIO = 16
ROUNDS = 15


def run(options: Options) -> None:
    """Every labelled network of the options."""
    results = store.read(NAME)
    for name, task in TASKS.items():
        if name in options.checkpoints:
            log.info("%s: time of a step", name)
            results[name] = {"environment": environment(), "quick": options.quick, **measure(task, options.quick)}
            store.write(NAME, results)


def measure(task: Task, quick: bool = False) -> dict[str, Any]:
    """Median seconds of a step of each kind, taken in turns so that all see the same machine, and ratios to dense."""
    net = task.load()
    archive = tersor.compress(net, tersor.Recipe(ratio=RATIO, keep="bf16"))
    fixed, moving = tersor.tunable(net, archive), tersor.tunable(net, archive, moving=True)
    batch = split(next(iter(task.data(0)())), False)
    steps = {"dense": _step(task.load(), batch), "fixed": _step(fixed, batch), "moving": _step(moving, batch, moving)}
    seconds: dict[str, list[float]] = {kind: [] for kind in steps}
    for round_number in range(3 if quick else ROUNDS):
        for kind, step in steps.items():
            started = time.perf_counter()
            step()
            if round_number:  # the first warms up
                seconds[kind].append(time.perf_counter() - started)
    medians = {kind: sorted(times)[len(times) // 2] for kind, times in seconds.items()}
    return {
        "seconds": medians,
        "fixed": medians["fixed"] / medians["dense"],
        "moving": medians["moving"] / medians["dense"],
        "threads": torch.get_num_threads(),
    }


def _step(net: nn.Module, batch: Any, moving: Any = None) -> Callable[[], None]:
    net.train()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-6)

    def step() -> None:
        optimizer.zero_grad()
        logits(batch.call(net)).square().mean().backward()
        optimizer.step()
        if moving is not None:
            moving.choose()

    return step
