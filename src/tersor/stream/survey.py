"""What is known before coding: zeros and magnitudes of every tensor, the mean of importance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec
import numpy as np

from tersor.checkpoint import Checkpoint
from tersor.checkpoint.survey import NOTHING, Facts, Part, examine, parts, to_float32
from tersor.errors import TersorError
from tersor.plan import Plan
from tersor.stream.crew import Crew
from tersor.stream.source import Importance
from tersor.stream.work import Work
from tersor.values import check_importance, check_peak

T = TypeVar("T")


def survey(checkpoint: Checkpoint, work: Work, crew: Crew) -> dict[str, Facts]:
    """Facts of each tensor of floats or complex numbers."""
    floats = [
        e
        for e in checkpoint.entries
        if e.tied_to is None
        and e.dtype.startswith(("float", "bfloat", "complex"))
        and not e.dtype.startswith(("float8", "float4"))
    ]
    every = parts(floats)
    found = remembered(
        "survey", work, crew, lambda: crew.each("reading", every, lambda part: examine(checkpoint, part))
    )
    facts = dict.fromkeys((e.name for e in floats), NOTHING)
    for part, own in zip(every, found, strict=True):
        facts[part.name] = facts[part.name].plus(Facts(*own))
    return facts


def check(plan: Plan, facts: Mapping[str, Facts]) -> None:
    """Bad values end the run before the work, not in it.

    Raises:
        TersorError: a value that cannot be coded; names the tensor.
    """
    for group in plan.groups:
        for i in group.tensors:
            check_peak(plan.source, plan.entries[i].name, facts[plan.entries[i].name].peak)


def weigh(given: Checkpoint | None, plan: Plan, work: Work, crew: Crew) -> Importance | None:
    """Which importance goes with which coded tensor, and its mean.

    Raises:
        TersorError: a shape differs, a value is negative, NaN or infinite, or all are zero.
    """
    if given is None:
        return None
    coded = {plan.entries[i].name: plan.entries[i].shape for g in plan.groups for i in g.tensors}
    owners = {entry.name: entry.owner for entry in plan.entries}
    names = {owners[e.name]: e.name for e in given.entries if owners.get(e.name) in coded}
    own = {e.name: e for e in given.entries}
    for name, weight in names.items():
        check_importance(name, own[weight].shape, coded[name])

    def add(part: Part) -> float:
        weight = to_float32(given.read_part(*part))
        check_importance(part.name, (), (), weight)
        return float(weight.sum(dtype=np.float64))

    every = parts(own[weight] for weight in names.values())
    total = sum(remembered("importance", work, crew, lambda: crew.each("importance", every, add)))
    if names and total == 0:
        raise TersorError("importance is zero everywhere; leave it out or give some tensor a weight")
    return Importance(given, names, total / max(sum(part.stop - part.start for part in every), 1))


def remembered(name: str, work: Work, crew: Crew, make: Callable[[], T]) -> T:
    """Plain data that the work folder holds, or made by all processes and put there."""
    team = crew.team
    if not team.share(f"has {name}", lambda: work.read(name) is not None):
        made = make()
        if team.rank == 0:
            work.write(name, msgspec.msgpack.encode(made))
        team.gather(f"wrote {name}", None)
    return msgspec.msgpack.decode(work.need(name))
