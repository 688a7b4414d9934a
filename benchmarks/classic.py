"""Classic methods alone and chained with additive quantization: bytes of whole files, and points lost.

A case is `pass+pass.../coding@ratio`, for example `none/auto@27`, `prune-60/auto@24`, `lowrank-50/int8`.
Passes are those of PASSES, numbers behind a dash are per cent (or bits); the coding is a recipe's scheme (with `-` for
`/`), at a ratio where it has no size of its own. Passes train for the task's steps; a file of codes is tuned for as
many. Training is towards the original's answers on inputs without labels; every file is read back into the original
class and judged on all test items.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace

import tersor
from benchmarks import digits, store, tasks
from benchmarks.environment import environment
from benchmarks.options import Options
from benchmarks.tasks import TASKS, Items, Task
from tersor.archive import Archive
from tersor.checkpoint import open_checkpoint
from tersor.passes.chain import Chain
from tersor.passes.registry import steps_of
from tersor.passes.still import Still
from tersor.tune.importance import importance

log = logging.getLogger("benchmarks")

NAME = "classic"
STEPS = {"mobilenetv1-075-imagenet": 60, "enet-camvid": 200, "stories260k": 400}
"""Of each training, where 150 would be too many or too few; fewer than in `tuning`, as there are many cases."""


def _shorter(task: Task) -> Task:
    """The task with less training, of batches of 64 where images are small: the same for every case of a network."""
    data = partial(tasks.cifar_data, batch=64) if "cifar" in task.name else task.data
    return dataclasses.replace(task, steps=STEPS.get(task.name, 150), data=data)


EVERY: dict[str, Task] = {**digits.TASKS, **{name: _shorter(task) for name, task in TASKS.items()}}

PASSES = {
    "fold": "fold()",
    "train": "train(steps={steps}, lr=5e-4)",
    "prune": "prune(sparsity=0.{}, rounds=4, steps={quarter}, lr=5e-4)",
    "obd": "prune(sparsity=0.{}, criterion=obd, rounds=4, steps={quarter}, lr=5e-4)",
    "random": "prune(sparsity=0.{}, criterion=random, rounds=4, steps={quarter}, lr=5e-4)",
    "pattern": "prune(pattern='2:4', steps={steps}, lr=5e-4)",
    "merge": "merge(share=0.{})",
    "ssl": "ssl(over=filters, share=0.{}, strength=5, steps={half}, tune_steps={half}, lr=5e-4)",
    "shapes": "ssl(over=shapes, share=0.{}, strength=5, steps={half}, tune_steps={half}, lr=5e-4)",
    "channels": "channels(share=0.{}, steps={steps}, lr=5e-4)",
    "lowrank": "lowrank(share=0.{}, method=svd, steps={steps}, lr=5e-4)",
    "tucker": "lowrank(share=0.{}, method=tucker, steps={steps}, lr=5e-4)",
    "learned": "factorize(dictionary=learned, share=0.{}, columns=4, steps={steps})",
    "identity": "factorize(dictionary=identity, share=0.{}, columns=4, steps={steps})",
    "gaussian": "factorize(dictionary=gaussian, share=0.{}, columns=4, steps={steps})",
    "covariance": "factorize(dictionary=covariance, share=0.{}, columns=4, steps={steps})",
    "quantize": "quantize(bits={}, steps={steps}, lr=2e-4)",
}

_DIGITS = (
    "none/bf16", "none/int8", "none/int4", "none/shared16", "none/shared16-entropy",
    *(f"none/auto@{r}" for r in (16, 24, 32, 48, 64)),
    *(f"{p}/{c}" for p in ("prune-80", "obd-80", "pattern", "merge-50", "ssl-50", "channels-50", "lowrank-25",
                           "learned-25", "gaussian-25", "quantize-4")
      for c in (("int4",) if p.startswith("quantize") else ("bf16", "auto@32", "auto@48", "auto@64"))),
    "random-80/bf16", "identity-25/bf16", "covariance-25/bf16", "prune-80/shared16",
)  # fmt: skip
_CIFAR = (
    "none/bf16", "none/int8", "none/int4", "none/shared16",
    *(f"none/auto@{r}" for r in (16, 20, 27, 34)), "fold/auto@27",
    "merge-20/bf16", "merge-20+train/bf16", "channels-20/bf16", "ssl-20/bf16",
    "prune-60/bf16", "prune-60/shared16", "prune-60/auto@27", "prune-30/auto@20", "obd-60/bf16", "obd-60/auto@27",
    "pattern/bf16", "quantize-4/int4", "quantize-3/int3", "lowrank-50/int8", "lowrank-60/auto@20",
    "channels-25/auto@20",
    "ssl-25/auto@20", "fold+prune-50/auto@27",
)  # fmt: skip
PLAN: dict[str, tuple[str, ...]] = {
    "digits-mlp": _DIGITS,
    "digits-cnn": (*_DIGITS, *(f"fold/auto@{r}" for r in (24, 32, 48, 64))),
    "resnet20-cifar10jpeg": _CIFAR,
    "resnet20-cifar10": (
        "none/auto@16",
        "none/auto@27",
        "fold/auto@16",
        "fold/auto@20",
        "fold/auto@27",
        "fold/auto@34",
    ),
    "resnet32-cifar10": ("none/auto@20", "none/auto@27", "fold/auto@20", "fold/auto@27", "fold/auto@34"),
    "mobilenetv1-075-imagenet": ("none/auto@7.2", "none/auto@10", "fold/auto@8", "fold/auto@10", "fold/auto@12"),
    "enet-camvid": ("none/auto@7.2", "none/auto@15.3", "fold/auto@15.3", "fold/auto@20"),
    "stories260k": ("none/auto@7.2", "none/auto@10", "prune-30/auto@8", "lowrank-70/auto@8"),
}
"""What is measured when no cases are named."""


def recipe_of(task: Task, case: str, quick: bool = False) -> tersor.Recipe:
    """The recipe that a case writes short."""
    left, _, ratio = case.partition("@")
    names, _, scheme = left.partition("/")
    steps = 8 if quick else task.steps
    counts = {"steps": steps, "half": steps // 2, "quarter": max(1, steps // 4)}
    passes = []
    for name in names.split("+"):
        kind, _, number = name.partition("-")
        if kind != "none":
            passes.append(PASSES[kind].format(number, **counts))
    scheme = scheme.replace("-", "/")
    if scheme not in ("bf16", "fp16") and not names.startswith("quantize"):
        passes.append(f"tune(steps={steps}, lr={task.lr})")
    return tersor.Recipe(ratio=float(ratio) if ratio else None, scheme=scheme, keep="bf16", passes=tuple(passes))


def run(options: Options) -> None:
    """The cases of every network named; a case measured again replaces its result, all others stay."""
    for name, task in EVERY.items():
        if name not in (*options.trained, *options.checkpoints):
            continue
        before = task.items(task.load())
        prepared: dict[tuple[str, ...], Prepared] = {}
        for case in options.cases or PLAN[name]:
            rows = measure(task, case, before, prepared, options.quick)
            for label, row in rows.items():
                log.info("%s: %s: %s B, %.2f lost, %.0f s", name, label, row["bytes"], row["lost"], row["seconds"])
            results = store.read(NAME)
            entry = results.setdefault(name, {"cases": {}})
            low, high = task.interval(before)
            entry["before"] = {"score": task.score(before), "low": low, "high": high, "items": len(before)}
            entry["metric"] = task.metric
            entry["cases"] |= rows
            store.write(NAME, results)


class Prepared:
    """A network behind its passes, which several cases code."""

    def __init__(self, task: Task, recipe: tersor.Recipe) -> None:
        started = time.perf_counter()
        self.told: list[str] = []
        net = task.load()
        self.given = tersor.dry_run(net, tersor.Recipe(ratio=1))
        self.chain = Chain(net, recipe, data=task.data(0), tell=self.told.append)
        self.checkpoint = self.chain.prepare()
        self.state = {name: value.clone() for name, value in self.chain.work.network.state_dict().items()}
        self.seconds = time.perf_counter() - started


def measure(
    task: Task, case: str, before: Items, prepared: dict[tuple[str, ...], Prepared], quick: bool = False
) -> dict[str, dict[str, Any]]:
    """One case: passes (or those of an earlier case), coding, tuning, and the score of what the file holds.

    Where there are batch norms, a file of codes is judged once more with norms that stand still, as `...+still`.
    """
    recipe = recipe_of(task, case, quick)
    passes = tuple(text for text in recipe.passes if not text.startswith("tune"))
    if passes not in prepared:
        prepared.clear()
        prepared[passes] = Prepared(task, recipe)
    ready, started = prepared[passes], time.perf_counter()
    chain = ready.chain
    chain.steps, chain.recipe = steps_of(recipe), recipe
    chain.work.network.load_state_dict(ready.state)
    chain.work.data = task.data(0)
    weighing = None
    if task.importance != "none" and not recipe.sized:
        kind: Any = task.importance
        weighing = open_checkpoint(importance(chain.work.network, task.data(0), kind=kind, batches=8))
    whole = replace(recipe, given_bytes=ready.given.nbytes, given_parameters=ready.given.parameters)
    archive = chain.finish(Archive(chain.code(ready.checkpoint, whole, weighing)))
    seconds = ready.seconds + time.perf_counter() - started
    found = {case: _judged(task, ready, recipe, archive, before, seconds, quick)}
    norms = any(isinstance(m, torch.nn.BatchNorm2d) for m in chain.work.network.modules())
    if norms and not recipe.sized:
        still = Still(bits=8)
        recipe = replace(recipe, passes=(*recipe.passes, str(still)))
        archive = still.after(chain.work, archive)
        left, _, ratio = case.partition("/")
        found[f"{left}+still/{ratio}"] = _judged(task, ready, recipe, archive, before, seconds, quick)
    return found


def _judged(
    task: Task, ready: Prepared, recipe: tersor.Recipe, archive: Archive, before: Items, seconds: float, quick: bool
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.tersor"
        size = archive.save(path)
        after = task.items(tersor.open(path).apply_(task.load()))
    lost, low, high = task.lost(before, after)
    return {
        "bytes": size,
        "ratio": ready.given.nbytes / size,
        "recipe": {"scheme": recipe.scheme, "ratio": recipe.ratio, "passes": list(recipe.passes)},
        "score": task.score(after),
        "lost": lost,
        "lost_low": low,
        "lost_high": high,
        "told": list(ready.told),
        "seconds": seconds,
        "steps": task.steps,
        "quick": quick,
        "environment": environment(),
    }
