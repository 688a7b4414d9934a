"""The methods of the tuning benchmark: each makes a student to train, and a file of what it has become."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec.structs import replace
from torch import nn

import tersor
from benchmarks.tasks import Task
from tersor.checkpoint import open_checkpoint
from tersor.encode import encode
from tersor.plan import GroupPlan, choose_scheme, make_plan

Settings = dict[str, str]
IMPORTANCE_BATCHES = {"fisher": 8, "activation": 8}


@dataclass(frozen=True)
class Made:
    """A student of one method.

    Attributes:
        student: what is trained.
        file: the whole file, once training is over.
        load: the network that a file holds, in the original's class or the method's.
        after_step: for the method's own schedule.
        training: further arguments of `distill`.
        judged_before: whether the student is a coded network already before training.
    """

    student: nn.Module
    file: Callable[[], bytes]
    load: Callable[[Path], nn.Module]
    after_step: Callable[[int], None] | None = None
    training: dict[str, Any] = field(default_factory=dict)
    judged_before: bool = True


def lattice(task: Task, net: nn.Module, ratio: float, steps: int, settings: Settings, scheme: str = "auto") -> Made:
    """tersor: compress, then tune what the codes are decoded with, and the codes themselves unless `moving=no`."""
    moving = settings.pop("moving", "yes") == "yes" and steps > 0
    if "prune" in settings:
        net = pruned(task, net, float(settings.pop("prune")), steps)
    kind = settings.pop("importance", task.importance)
    training: dict[str, Any] = {}
    for name, convert in (("share", float), ("every", int), ("lr", float), ("temperature", float)):
        if name in settings:
            training[name] = convert(settings.pop(name))
    weights = None
    if kind != "none":
        weights = tersor.importance(net, task.data(0), kind=kind, batches=IMPORTANCE_BATCHES[kind])
    recipe = tersor.Recipe(ratio=ratio, keep=settings.pop("keep", "bf16"), scheme=settings.pop("scheme", scheme))
    if "parts" in settings and weights is not None:
        raise ValueError("separate codebooks are made without importance")
    if "parts" in settings:
        archive = separate(net, recipe, settings.pop("parts"))
    else:
        archive = tersor.compress(net, recipe, importance=weights)
    student = tersor.tunable(net, archive, moving=moving, importance=weights)
    if settings:
        raise ValueError(f"unknown options {settings}")

    def load(path: Path) -> nn.Module:
        loaded: nn.Module = tersor.open(path).apply_(task.load())
        return loaded

    return Made(student, lambda: student.freeze().to_bytes(), load, training=training)


def pruned(task: Task, net: nn.Module, share: float, steps: int) -> nn.Module:
    """The network with that share of all weights of two dimensions and more pruned by magnitude while it learns.

    Cubic schedule over the first 60 % of the steps (Zhu and Gupta, 2017), towards the unpruned network's answers.
    """
    weights = [p for p in net.parameters() if p.dim() > 1]

    def prune(step: int) -> None:
        done = min(step / (0.6 * steps), 1.0)
        target = share * (1 - (1 - done) ** 3)
        magnitudes = torch.cat([w.detach().abs().flatten() for w in weights])
        limit = magnitudes.kthvalue(max(1, int(target * len(magnitudes)))).values
        for w in weights:
            w.data.mul_(w.detach().abs() > limit)

    tersor.distill(net, task.load(), task.data(1), steps=steps, lr=3e-4, checks=1, after_step=prune)
    return net


def separate(net: nn.Module, recipe: tersor.Recipe, parts: str) -> tersor.Archive:
    """Additive codes over kernels with separate codebooks for so many parts of about equal size, in storage order.

    `parts` is a number, or "layers". Sizes of codebooks follow from each part's share of the bytes.
    """
    checkpoint = open_checkpoint(net)
    plan = make_plan(checkpoint, replace(recipe, scheme="lattice", groups="one"))
    members = sorted(i for group in plan.groups for i in group.tensors)
    sizes = np.array([plan.entries[i].numel for i in members])
    count = len(members) if parts == "layers" else int(parts)
    middle = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
    owner = np.arange(len(members)) if parts == "layers" else (middle * count).astype(int)
    bits = 8 * plan.budget / sizes.sum()
    groups = []
    for part in range(count):
        inside = tuple(i for i, o in zip(members, owner, strict=True) if o == part)
        if inside:
            scheme = choose_scheme(9, int(sizes[owner == part].sum()), bits)
            groups.append(GroupPlan(inside, 9, scheme, False))
    return tersor.Archive(encode(checkpoint, dataclasses.replace(plan, groups=tuple(groups)), recipe))


def additive(task: Task, net: nn.Module, ratio: float, steps: int, settings: Settings) -> Made:
    """tersor with codebooks and codes alone; codes that move do so every 20 steps."""
    if settings.get("moving", "yes") == "yes":
        settings.setdefault("every", "20")
    return lattice(task, net, ratio, steps, settings, scheme="additive")


def rival(make: Callable[..., Any], **names: Callable[[str], Any]) -> Callable[..., Made]:
    """A method of `benchmarks.peers` with an interface of its own: `Student(net, budget, steps, ...)`."""

    def method(task: Task, net: nn.Module, ratio: float, steps: int, settings: Settings) -> Made:
        budget = tersor.dry_run(net, tersor.Recipe(ratio=ratio)).budget
        student = make(net, budget, steps, **{name: names[name](value) for name, value in settings.items()})

        def load(path: Path) -> nn.Module:
            student.load(path.read_bytes())
            loaded: nn.Module = student
            return loaded

        return Made(student, student.file, load, student.after_step, judged_before=False)

    return method


def _pruning(*arguments: Any, **settings: Any) -> nn.Module:
    from benchmarks.peers import pruning

    return pruning.Student(*arguments, **settings)


def _uniform(*arguments: Any, **settings: Any) -> nn.Module:
    from benchmarks.peers import uniform_tuned

    return uniform_tuned.Student(*arguments, **settings)


def _integer(net: nn.Module, budget: int, steps: int, **settings: Any) -> nn.Module:
    from benchmarks.peers import integer

    return integer.Student(net, budget, steps, **settings)


def _nncodec(*arguments: Any) -> nn.Module:
    from benchmarks.peers import nncodec_tuned

    return nncodec_tuned.Student(*arguments)


METHODS: dict[str, Callable[[Task, nn.Module, float, int, Settings], Made]] = {
    "lattice": lattice,
    "additive": additive,
    "pruning": rival(_pruning, survivor_bits=int, score=str, rate=float),
    "uniform": rival(_uniform, per_tensor=lambda text: text == "yes", rate=float),
    "integer": rival(_integer, bits=int, edge_bits=int),
    "nncodec": rival(_nncodec),
}
