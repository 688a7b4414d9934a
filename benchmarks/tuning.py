"""Accuracy after coding and tuning, at equal bytes of whole files: tersor's ways and rivals trained by the same loop.

A case is written `method[:option=value,...]@ratio`, for example `lattice@27`, `lattice:moving=no@15.3` or `pruning@16`.
Every case starts from the same public weights, trains with `tersor.distill` for the task's steps on inputs without
labels, writes a file, reads it back, and is judged on all test items; `lost` is paired, item by item.
"""

from __future__ import annotations

import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import tersor
from benchmarks import store
from benchmarks.claims import cases as claimed
from benchmarks.environment import environment
from benchmarks.methods import METHODS, Made
from benchmarks.options import Options
from benchmarks.tasks import TASKS, Items, Task
from tersor.tune.batches import split
from tersor.tune.objective import Objective

log = logging.getLogger("benchmarks")

NAME = "tuning"


@dataclass(frozen=True)
class Case:
    """One measurement: a method, its options, the ratio asked for, and the seed of the data's order."""

    method: str
    options: tuple[tuple[str, str], ...]
    ratio: float
    seed: int = 0

    @classmethod
    def parse(cls, text: str) -> Case:
        """The case written as `method:option=value,...@ratio`; `#1` at the end is another seed."""
        text, _, seed = text.partition("#")
        left, _, ratio = text.partition("@")
        method, _, options = left.partition(":")
        pairs = [tuple(o.split("=", 1)) for o in options.split(",") if o]
        return cls(method, tuple((k, v) for k, v in pairs), float(ratio), int(seed or 0))

    def __str__(self) -> str:
        options = ",".join(f"{k}={v}" for k, v in self.options)
        seed = f"#{self.seed}" if self.seed else ""
        return f"{self.method}{':' + options if options else ''}@{self.ratio:g}{seed}"


PLAN: dict[str, tuple[str, ...]] = {
    "resnet20-cifar10jpeg": tuple(f"lattice@{r}" for r in (8, 14, 15.3, 16, 24, 27, 32, 36, 48)),
    "resnet20-cifar10": ("lattice@7.2", "lattice@15.3", "lattice@27"),
    "resnet32-cifar10": ("lattice@7.2", "lattice@14", "lattice@15.3", "lattice@20", "lattice@27"),
    "mobilenetv1-075-imagenet": ("lattice@7.2", "lattice@10", "lattice@14", "lattice@15.3", "lattice@27"),
    "enet-camvid": ("lattice@7.2", "lattice@14", "lattice@15.3", "lattice@20", "lattice@27"),
    "stories260k": ("lattice@7.2", "lattice@10", "lattice@15.3", "lattice@27"),
}
"""What is measured when no cases are named, before those that speak of a claim."""


def run(options: Options) -> None:
    """The cases of every network named; a case measured again replaces its result, all others stay."""
    results = store.read(NAME)
    for name, task in TASKS.items():
        if name not in options.checkpoints:
            continue
        cases = [Case.parse(text) for text in dict.fromkeys(options.cases or (*PLAN[name], *claimed(name)))]
        entry = results.setdefault(name, {"cases": {}})
        before = task.items(task.load())
        low, high = task.interval(before)
        entry["before"] = {"score": task.score(before), "low": low, "high": high, "items": len(before)}
        entry["metric"] = task.metric
        for case in cases:
            log.info("%s: %s", name, case)
            row = measure(task, case, before, quick=options.quick)
            log.info("%s: %s: %s B, %.2f lost", name, case, row["bytes"], row["lost"])
            entry = store.read(NAME).setdefault(name, entry)  # another run may have added to the file meanwhile
            entry["cases"][str(case)] = row
            stored = store.read(NAME)
            stored[name] = {**stored.get(name, {}), **entry}
            store.write(NAME, stored)


def measure(task: Task, case: Case, before: Items, quick: bool = False) -> dict[str, Any]:
    """One case, from public weights to the score of what its file holds."""
    started = time.perf_counter()
    net = task.load()
    settings = dict(case.options)
    steps = int(settings.pop("steps", task.steps))
    steps = min(steps, 4) if quick else steps
    made: Made = METHODS[case.method](task, net, case.ratio, steps, settings)
    coded = task.items(made.student) if made.judged_before else None
    record: dict[str, Any] = {}
    if steps:
        teacher = task.load()
        clock = _Clock()
        result = tersor.distill(
            made.student, teacher, task.data(case.seed), steps=steps, checks=1,
            after_step=made.after_step, progress=clock.tick, **{"lr": task.lr, **made.training},
        )  # fmt: skip
        record = {"loss": result.loss, "stopped": result.stopped, "step_seconds": clock.median()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net"
        path.write_bytes(made.file())
        size = path.stat().st_size
        final: nn.Module = made.load(path)
    after = task.items(final)
    lost, low, high = task.lost(before, after)
    apart = distance(task, final)
    nbytes = tersor.dry_run(net, tersor.Recipe(ratio=1)).nbytes
    return record | {
        "bytes": size,
        "ratio": nbytes / size,
        "steps": steps,
        "seed": case.seed,
        "coded": None if coded is None else task.score(coded),
        "score": task.score(after),
        "lost": lost,
        "lost_low": low,
        "lost_high": high,
        "divergence": apart,
        "seconds": time.perf_counter() - started,
        "threads": torch.get_num_threads(),
        "quick": quick,
        "environment": environment(),
    }


@torch.no_grad()
def distance(task: Task, net: nn.Module) -> float:
    """Mean divergence of the network's answers from the original's on the held-out inputs, in nats, temperature 1."""
    net.eval()
    objective, teacher = Objective(temperature=1.0), task.load()
    losses = [float(objective(net, teacher, split(batch, False))) for batch in task.held_out()]
    return sum(losses) / len(losses)


class _Clock:
    """Seconds of each step."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def tick(self, status: Any) -> None:
        """Called after every step."""
        self.at.append(status.seconds)

    def median(self) -> float:
        """The median step."""
        gaps = sorted(b - a for a, b in zip(self.at, self.at[1:], strict=False))
        return gaps[len(gaps) // 2] if gaps else 0.0
