"""From a checkpoint and its plan to the bytes of an archive that meets the target."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from tersor.assemble import assemble, index_of
from tersor.checkpoint import Checkpoint
from tersor.errors import TargetError, TersorError
from tersor.keep import plan_kept, section
from tersor.kernels.threads import thread_count
from tersor.plan import GroupPlan, Plan
from tersor.recipe import Recipe
from tersor.representations.affine import Grid
from tersor.representations.control import Progress, Sizes, Unreachable, meet, step_range
from tersor.representations.group import GroupCoder, GroupSpec
from tersor.representations.records import GroupRecord
from tersor.representations.scalars import ScalarRecord
from tersor.scalar import check_made, coded_shapes, encode_scalars
from tersor.values import checked, importance_of

if TYPE_CHECKING:
    import torch

ROUNDS = {"draft": (2, 12), "default": (4, 16), "best": (8, 24)}
"""Rounds of the rate control, at least and at most; each also refines the tables."""

NEARLY = 0.98
"""The share of its budget that a file takes at least, unless everything fits exactly or no step is finer."""

GENEROUS = 0.6
"""The share of a checkpoint's bytes from which on storing everything exactly is worth trying first."""

_TRIALS, _ATTEMPTS = 12, 5
T = TypeVar("T")

TRAINED = 1 << 21
"""Values trained on at most; what has more to code is trained on a sample and coded chunk by chunk (`stream`)."""

_NANOSECONDS = {"draft": 70.0, "default": 80.0, "best": 250.0}  # per weight and round of the lattice, one thread
_MASK_NANOSECONDS = 500.0  # per element of a tensor that keeps its zeros
_TRIES = 6  # rounds more where masks are tried against zeros as symbols
_CODEWORD_NANOSECONDS = 0.15  # per vector and codeword compared


def seconds(plan: Plan, recipe: Recipe) -> float:
    """A rough estimate of the time that coding takes, from the plan alone."""
    total = 1.0
    share = 1.0 if plan.coded_weights <= TRAINED else min(TRAINED / plan.coded_weights, 0.25)
    for group in plan.groups:
        weights = sum(plan.entries[i].numel for i in group.tensors)
        rounds: float = ROUNDS[recipe.effort][0] + 4
        rounds = rounds * share + (share < 1) if group.survivors is None else rounds
        if group.survivors is not None:
            total += weights * _MASK_NANOSECONDS * 1e-9
            weights, rounds = (sum(group.survivors), rounds) if group.scheme is not None else (weights, rounds + _TRIES)
        if group.lattice:
            total += weights * _NANOSECONDS[recipe.effort] * rounds * 1e-9 / thread_count()
        if group.scheme is not None:
            compared = weights / group.dim * group.scheme.num_codebooks * group.scheme.codebook_size
            total += compared * _CODEWORD_NANOSECONDS * {"draft": 50, "default": 200, "best": 600}[recipe.effort] * 1e-9
    return total


def encode(
    checkpoint: Checkpoint,
    plan: Plan,
    recipe: Recipe,
    importance: Mapping[str, torch.Tensor] | None = None,
    progress: Progress | None = None,
    device: str = "cpu",
    grids: Mapping[str, Grid] | None = None,
) -> bytes:
    """The bytes of an archive within the plan's budget; codes are searched on `device`.

    `grids` are those of tensors that are on a grid of integers already.

    Raises:
        TersorError: a value is NaN or infinite, or the target cannot be met (says what the smallest file is).
    """
    weights = None
    if importance is not None:
        weights = importance_of(coded_shapes(plan), {e.name: e.owner for e in plan.entries}, importance)
    check_made(checkpoint, plan)
    rest = keep_all(checkpoint, plan.kept, recipe)
    rest = replace(
        rest, scalars=tuple(encode_scalars(checkpoint, g, recipe, grids or {}, weights) for g in plan.scalars)
    )
    base = len(assembled(plan, recipe, rest, []))
    if not plan.groups:
        if base > plan.budget:
            raise too_small(plan, base)
        return assembled(plan, recipe, rest, [])
    generous = plan.budget > GENEROUS * plan.nbytes
    if generous:
        exact = _exact(checkpoint, plan, recipe)
        if len(exact) <= plan.budget:
            return exact
    coders = [group_coder(checkpoint, plan, recipe, g, weights, device) for g in range(len(plan.groups))]
    data = _meet(plan, recipe, rest, base, coders, progress)
    if len(data) < NEARLY * plan.budget and not generous:  # steps so fine say that there is little to code at all
        exact = _exact(checkpoint, plan, recipe)
        return exact if len(exact) <= plan.budget else data
    return data


def _meet(
    plan: Plan, recipe: Recipe, rest: Rest, base: int, coders: list[GroupCoder], progress: Progress | None
) -> bytes:
    """Search the step whose file is within the budget and near it."""
    weights = sum(c.weights for c in coders)
    least, most = ROUNDS[recipe.effort]
    overhead = base + 64.0
    size_of = Sizes(coders, "coding", least, progress)
    step, finest, coarsest = step_range(coders, plan.budget - overhead)
    best = b""
    for _ in range(8):
        try:
            step = meet(
                size_of, max(plan.budget - overhead, 1), weights, first=step, finest=finest, coarsest=coarsest,
                rounds=(least, most),
            )  # fmt: skip
        except Unreachable:
            step = coarsest
        for coder in coders:
            coder.settle()
        data = assembled(plan, recipe, rest, [c.finish() for c in coders])
        if len(data) <= plan.budget and (len(data) >= NEARLY * plan.budget or step <= 1.01 * finest):
            return data
        if len(best) < len(data) <= plan.budget:
            best = data
        elif step == coarsest and not best:
            raise too_small(plan, len(data))
        overhead += len(data) - (overhead + size_of.last)  # what was predicted is off by this much
        least = 1
    if best:  # values so few or so alike that sizes jump over the target, or depend on the way there
        return _bisect(plan, recipe, rest, coders, step, best)
    raise TersorError("the target could not be met within 2 %; please report the recipe and the tensors' shapes")


def _bisect(plan: Plan, recipe: Recipe, rest: Rest, coders: list[GroupCoder], step: float, best: bytes) -> bytes:
    """The largest file within the budget among steps around `step`, each tried afresh, with no tables from before."""
    low, high = step / 4, step * 4
    for _ in range(_TRIALS):
        middle = math.sqrt(low * high)
        for coder in coders:
            coder.reset()
            for _ in range(2):
                coder.at(middle)
        data = assembled(plan, recipe, rest, [c.finish() for c in coders])
        low, high = (low, middle) if len(data) <= plan.budget else (middle, high)
        if len(best) < len(data) <= plan.budget:
            best = data
        if len(best) >= NEARLY * plan.budget:
            break
    return best


def stretched(attempt: Callable[[float], T], size: Callable[[T], float], enough: float) -> T:
    """Codebooks as large as the target wants: too few leave bytes unused, too many do not fit.

    Args:
        attempt: gives a result with codebooks that can spend so many times the bits one would expect to need.
        size: bytes of a result.
        enough: a size that spends the target.

    Raises:
        TargetError: even the smallest codebooks do not fit.
    """
    stretch, refusal = 1.0, None
    best: T | None = None
    for _ in range(_ATTEMPTS):
        try:
            found = attempt(stretch)
        except TargetError as error:
            if best is not None:
                break
            refusal, stretch = error, stretch / 2
            continue
        best = found if best is None or size(found) > size(best) else best
        if size(best) >= enough or refusal is not None:
            break
        stretch *= 1.5
    if best is None:
        assert refusal is not None
        raise refusal
    return best


def check_device(device: str, recipe: Recipe) -> None:
    """Raises TersorError where there is no such device, or the recipe has nothing that it would do."""
    import torch

    if device == "cpu":
        return
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise TersorError(f"device {device!r} is not to be had ({reason}); leave it out, or name another") from error
    if recipe.scheme in ("auto", "lattice"):
        raise TersorError(
            f"device {device!r} searches for codes, and scheme {recipe.scheme!r} has none: "
            "its trellis runs on the CPU; leave it out, or use a scheme with codebooks"
        )


def too_small(plan: Plan, smallest: int) -> TargetError:
    """The error for a budget below the smallest possible file."""
    return TargetError(
        f"{plan.source}: cannot be stored in {plan.budget:,} B; the smallest possible file is about {smallest:,} B: "
        "ask for more, keep fewer tensors, or store them as bf16"
    )


def group_coder(
    checkpoint: Checkpoint,
    plan: Plan,
    recipe: Recipe,
    g: int,
    weights_by_name: dict[str, NDArray[np.float32]] | None,
    device: str = "cpu",
) -> GroupCoder:
    """The coder of the g-th group, which holds it in memory."""
    group = plan.groups[g]
    entries = [plan.entries[i] for i in group.tensors]
    spec = group_spec(group, tuple(e.shape for e in entries), recipe, device)
    weights = None if weights_by_name is None else [weights_by_name.get(e.name) for e in entries]
    return GroupCoder(spec, [_reader(checkpoint, e.name) for e in entries], weights)


def group_spec(group: GroupPlan, shapes: tuple[tuple[int, ...], ...], recipe: Recipe, device: str) -> GroupSpec:
    """What a group of the plan is made of, for tensors of these shapes."""
    codebooks = None if group.scheme is None else (group.scheme.num_codebooks, group.scheme.codebook_size)
    return GroupSpec(
        group.tensors, shapes, group.dim, codebooks, group.lattice, recipe.scales, recipe.effort, recipe.seed,
        group.survivors is not None, device,
    )  # fmt: skip


def _reader(checkpoint: Checkpoint, name: str) -> Callable[[], NDArray[np.float32]]:
    return lambda: checked(checkpoint.source, name, checkpoint.read(name))


@dataclass(frozen=True)
class Rest:
    """Kept tensors: their records and sections; record, sections and errors of each scalar group."""

    records: tuple[tuple[int, int, int], ...]
    sections: list[bytes]
    scalars: tuple[tuple[ScalarRecord, list[bytes], list[int]], ...] = ()


def keep_all(checkpoint: Checkpoint, tensors: tuple[tuple[int, str], ...], recipe: Recipe) -> Rest:
    """Records and sections of kept tensors, given by position and reason."""
    found = plan_kept(checkpoint, tensors, recipe)
    return Rest(found.records, [section(checkpoint, found, unit) for unit in range(len(found.units))])


def everything_kept(plan: Plan) -> tuple[tuple[int, str], ...]:
    """Position and reason of each tensor if nothing is coded: what a generous target deserves."""
    return tuple(sorted([*plan.kept, *((i, "exact") for g in plan.groups for i in g.tensors)]))


def _exact(checkpoint: Checkpoint, plan: Plan, recipe: Recipe) -> bytes:
    return assembled(plan, recipe, keep_all(checkpoint, everything_kept(plan), recipe), [])


def assembled(
    plan: Plan, recipe: Recipe, rest: Rest, groups: list[tuple[GroupRecord, list[bytes], list[int]]]
) -> bytes:
    """The file of a plan carried out."""
    index = index_of(
        plan.entries, recipe, rest.records, [(record, errors) for record, _, errors in groups],
        [(record, errors) for record, _, errors in rest.scalars], plan.made,
    )  # fmt: skip
    parts = [s for _, sections, _ in groups for s in sections] + [s for _, part, _ in rest.scalars for s in part]
    return assemble(index, parts + rest.sections)
