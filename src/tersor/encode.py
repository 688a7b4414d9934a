"""From a checkpoint and its plan to the bytes of an archive that meets the target."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tersor.assemble import assemble
from tersor.checkpoint import Checkpoint
from tersor.errors import TargetError, TersorError
from tersor.index import DTYPES, REASONS, GroupRecord, Index
from tersor.plan import Plan
from tersor.recipe import Recipe
from tersor.representations import kept
from tersor.representations.control import Unreachable, meet
from tersor.representations.group import GroupCoder, GroupSpec

if TYPE_CHECKING:
    import torch

ROUNDS = {"draft": (2, 12), "default": (4, 16), "best": (8, 24)}
"""Rounds of the rate control, at least and at most; each also refines the tables."""

NEARLY = 0.98
"""The share of its budget that a file takes at least, unless everything fits exactly or no step is finer."""

SMALLEST_STEP, LARGEST_STEP = 2.0**-119, 2.0**125
"""The range in which a step, its inverse and its 128th part are ordinary float32 numbers."""

_TRIALS = 12

LARGEST_VALUE = 2.0**120

Progress = Callable[[str, int, int], None]


_NANOSECONDS = {"draft": 60.0, "default": 110.0, "best": 450.0}  # per weight and round of the lattice, one thread
_MASK_NANOSECONDS = 500.0  # per element of a tensor that keeps its zeros
_TRIES = 6  # rounds more where masks are tried against zeros as symbols
_CODEWORD_NANOSECONDS = 0.15  # per vector and codeword compared


def seconds(plan: Plan, recipe: Recipe) -> float:
    """A rough estimate of the time that coding takes, from the plan alone."""
    total = 1.0
    for group in plan.groups:
        weights = sum(plan.entries[i].numel for i in group.tensors)
        rounds = ROUNDS[recipe.effort][0] + 4
        if group.survivors is not None:
            total += weights * _MASK_NANOSECONDS * 1e-9
            weights, rounds = (sum(group.survivors), rounds) if group.scheme is not None else (weights, rounds + _TRIES)
        if group.lattice:
            total += weights * _NANOSECONDS[recipe.effort] * rounds * 1e-9
        if group.scheme is not None:
            compared = weights / group.dim * group.scheme.num_codebooks * group.scheme.codebook_size
            total += compared * _CODEWORD_NANOSECONDS * {"draft": 50, "default": 200, "best": 600}[recipe.effort] * 1e-9
    return total


@dataclass(frozen=True)
class _Kept:
    """Kept tensors: their records and sections."""

    records: tuple[tuple[int, int, int], ...]
    sections: list[bytes]


def encode(
    checkpoint: Checkpoint,
    plan: Plan,
    recipe: Recipe,
    importance: Mapping[str, torch.Tensor] | None = None,
    progress: Progress | None = None,
) -> bytes:
    """The bytes of an archive within the plan's budget.

    Raises:
        TersorError: a value is NaN or infinite, or the target cannot be met (says what the smallest file is).
    """
    rest = _keep(checkpoint, plan.kept, recipe)
    base = len(_assemble(plan, recipe, rest, []))
    if not plan.groups:
        if base > plan.budget:
            raise _too_small(plan, base)
        return _assemble(plan, recipe, rest, [])
    generous = plan.budget > 0.6 * plan.nbytes
    if generous:
        exact = _exact(checkpoint, plan, recipe)
        if len(exact) <= plan.budget:
            return exact
    weights = None
    if importance is not None:
        coded = {plan.entries[i].name: plan.entries[i].shape for g in plan.groups for i in g.tensors}
        weights = importance_of(coded, {e.name: e.owner for e in plan.entries}, importance)
    coders = [_coder(checkpoint, plan, recipe, g, weights) for g in range(len(plan.groups))]
    data = _meet(plan, recipe, rest, base, coders, progress)
    if len(data) < NEARLY * plan.budget and not generous:  # steps so fine say that there is little to code at all
        exact = _exact(checkpoint, plan, recipe)
        return exact if len(exact) <= plan.budget else data
    return data


def _meet(
    plan: Plan, recipe: Recipe, rest: _Kept, base: int, coders: list[GroupCoder], progress: Progress | None
) -> bytes:
    """Search the step whose file is within the budget and near it."""
    weights = sum(c.weights for c in coders)
    spread = sum(c.spread * c.weights for c in coders) / weights
    finest = max(2.0 ** (spread - 21), SMALLEST_STEP, *(c.finest for c in coders))
    coarsest = max(min(max(2.0 ** (spread + 12), *(c.coarsest for c in coders)), LARGEST_STEP), finest)
    least, most = ROUNDS[recipe.effort]
    overhead = base + 64.0
    size, calls = 0.0, 0

    def size_of(step: float) -> float:
        nonlocal size, calls
        size, calls = sum(c.at(step) for c in coders), calls + 1
        if progress is not None:
            progress("coding", calls, max(least + 2, calls + 1))
        return size

    fixed = sum(c.fixed for c in coders)
    step = 2 * 2.0 ** (spread - 8 * max(plan.budget - overhead - fixed, 1) / weights)
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
        data = _assemble(plan, recipe, rest, [c.finish() for c in coders])
        if len(data) <= plan.budget and (len(data) >= NEARLY * plan.budget or step <= 1.01 * finest):
            return data
        if len(best) < len(data) <= plan.budget:
            best = data
        elif step == coarsest and not best:
            raise _too_small(plan, len(data))
        overhead += len(data) - (overhead + size)  # what was predicted is off by this much
        least = 1
    if best:  # values so few or so alike that sizes jump over the target, or depend on the way there
        return _bisect(plan, recipe, rest, coders, step, best)
    raise TersorError("the target could not be met within 2 %; please report the recipe and the tensors' shapes")


def _bisect(plan: Plan, recipe: Recipe, rest: _Kept, coders: list[GroupCoder], step: float, best: bytes) -> bytes:
    """The largest file within the budget among steps around `step`, each tried afresh, with no tables from before."""
    low, high = step / 4, step * 4
    for _ in range(_TRIALS):
        middle = math.sqrt(low * high)
        for coder in coders:
            coder.reset()
            for _ in range(2):
                coder.at(middle)
        data = _assemble(plan, recipe, rest, [c.finish() for c in coders])
        low, high = (low, middle) if len(data) <= plan.budget else (middle, high)
        if len(best) < len(data) <= plan.budget:
            best = data
        if len(best) >= NEARLY * plan.budget:
            break
    return best


def _too_small(plan: Plan, smallest: int) -> TargetError:
    return TargetError(
        f"{plan.source}: cannot be stored in {plan.budget:,} B; the smallest possible file is about {smallest:,} B: "
        "ask for more, keep fewer tensors, or store them as bf16"
    )


def _coder(
    checkpoint: Checkpoint, plan: Plan, recipe: Recipe, g: int, weights_by_name: dict[str, NDArray[np.float32]] | None
) -> GroupCoder:
    group = plan.groups[g]
    entries = [plan.entries[i] for i in group.tensors]
    codebooks = None if group.scheme is None else (group.scheme.num_codebooks, group.scheme.codebook_size)
    spec = GroupSpec(
        group.tensors, tuple(e.shape for e in entries), group.dim, codebooks, group.lattice, recipe.scales,
        recipe.effort, recipe.seed, group.survivors is not None,
    )  # fmt: skip
    weights = None if weights_by_name is None else [weights_by_name.get(e.name) for e in entries]
    return GroupCoder(spec, [_reader(checkpoint, e.name) for e in entries], weights)


def _reader(checkpoint: Checkpoint, name: str) -> Callable[[], NDArray[np.float32]]:
    def read() -> NDArray[np.float32]:
        import torch

        tensor = checkpoint.read(name)
        values = tensor.detach().to(torch.float32).numpy()
        if tensor.dtype == torch.float64 and ((tensor != 0).numpy() & (values == 0)).any():
            raise TersorError(f"{checkpoint.source}: {name} holds values too small for float32; {_CURE}")
        if not (np.abs(values) <= LARGEST_VALUE).all():
            raise TersorError(f"{checkpoint.source}: {name} holds NaN, infinity or values beyond 1e36; {_CURE}")
        return np.ascontiguousarray(values)

    return read


_CURE = "mend it, or exclude it to keep it exactly"


def importance_of(
    coded: Mapping[str, tuple[int, ...]], owner: Mapping[str, str], given: Mapping[str, torch.Tensor]
) -> dict[str, NDArray[np.float32]]:
    """Importance of the coded tensors (name to shape) that have one, divided by its mean over all of them.

    Args:
        coded: shapes by name.
        owner: of every tensor, the name of the one it is tied to, or its own.
        given: importance by name.

    Raises:
        TersorError: a shape differs, or a value is negative, NaN or infinite, or all are zero.
    """
    import torch

    weights: dict[str, NDArray[np.float32]] = {}
    given = {owner[name]: weight for name, weight in given.items() if name in owner}
    for name, shape in coded.items():
        if name not in given:
            continue
        weight = given[name].detach().to(device="cpu", dtype=torch.float32).contiguous().numpy()
        if weight.shape != shape:
            raise TersorError(f"importance of {name} has shape {weight.shape}, the tensor {shape}; make them equal")
        if not (np.isfinite(weight).all() and weight.min() >= 0):
            raise TersorError(f"importance of {name} has values that are negative, NaN or infinite; mend them")
        weights[name] = weight
    count = sum(w.size for w in weights.values())
    mean = sum(float(w.sum(dtype=np.float64)) for w in weights.values()) / max(count, 1)
    if count and mean == 0:
        raise TersorError("importance is zero everywhere; leave it out or give some tensor a weight")
    return {name: weight / np.float32(mean) for name, weight in weights.items()}


def _keep(checkpoint: Checkpoint, kept_tensors: tuple[tuple[int, str], ...], recipe: Recipe) -> _Kept:
    """Store tensors without codes: small ones together by type, large ones each in a section."""
    import torch

    tensors, records = [], []
    for i, reason in kept_tensors:
        entry = checkpoint.entries[i]
        tensor = checkpoint.read(entry.name).detach()
        numbers = tensor.is_floating_point() or tensor.is_complex()
        if numbers and reason not in ("excluded", "8-bit floats") and not tensor.isfinite().all():
            raise TersorError(f"{checkpoint.source}: {entry.name} holds NaN or infinity; {_CURE}")
        rounds = recipe.keep == "bf16" and entry.dtype in ("float32", "float64") and reason not in ("excluded", "exact")
        small = tensor.to(torch.bfloat16) if rounds else tensor
        if small.isfinite().all() if rounds else False:  # else it holds values that bfloat16 would make infinite
            tensor = small
        stored = DTYPES.index(str(tensor.dtype).removeprefix("torch."))
        tensors.append((kept.raw(tensor), stored, DTYPES[stored]))
        records.append((i, REASONS.index(reason), stored))
    return _Kept(tuple(records), kept.sections(tensors))


def _exact(checkpoint: Checkpoint, plan: Plan, recipe: Recipe) -> bytes:
    """Everything kept: what a generous target deserves."""
    owned = sorted([*plan.kept, *((i, "exact") for g in plan.groups for i in g.tensors)])
    return _assemble(plan, recipe, _keep(checkpoint, tuple(owned), recipe), [])


def _assemble(
    plan: Plan, recipe: Recipe, rest: _Kept, groups: list[tuple[GroupRecord, list[bytes], list[int]]]
) -> bytes:
    """The file of a plan carried out."""
    position = {e.name: i for i, e in enumerate(plan.entries)}
    index = Index(
        tool="",
        recipe=recipe.as_dict(),
        names=tuple(e.name for e in plan.entries),
        dtypes=tuple(DTYPES.index(e.dtype) for e in plan.entries),
        shapes=tuple(e.shape for e in plan.entries),
        ties={position[e.name]: position[e.tied_to] for e in plan.entries if e.tied_to is not None},
        kept=rest.records,
        groups=tuple(record for record, _, _ in groups),
        errors=tuple(e for _, _, errors in groups for e in errors),
        lengths=(),
        checks=(),
    )
    return assemble(index, [s for _, parts, _ in groups for s in parts] + rest.sections)
