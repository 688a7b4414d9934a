"""Tensors that are stored without codes: in which type, and in which sections."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from tersor.checkpoint import Checkpoint, Entry
from tersor.checkpoint.header import ITEM_BYTES
from tersor.checkpoint.survey import NOTHING, Facts, examine, parts
from tersor.errors import TersorError
from tersor.index import DTYPES, REASONS
from tersor.recipe import Recipe
from tersor.representations import kept

CURE = "mend it, or exclude it to keep it exactly"
_INFINITE_BF16 = (2 - 2.0**-8) * 2.0**127  # from here on bfloat16 rounds to infinity
_INFINITE_FP16 = 65520.0


@dataclass(frozen=True)
class Kept:
    """Kept tensors: their records, and for each section the places of its tensors among the records."""

    records: tuple[tuple[int, int, int], ...]
    units: tuple[tuple[int, ...], ...]


def plan_kept(
    checkpoint: Checkpoint, tensors: Sequence[tuple[int, str]], recipe: Recipe, peaks: dict[str, float] | None = None
) -> Kept:
    """Decide how tensors, given by position and reason, are kept.

    Args:
        checkpoint: the tensors.
        tensors: position and reason of each.
        recipe: says whether floats are rounded.
        peaks: their largest magnitudes (NaN where one is NaN), where these are known.

    Raises:
        TersorError: a tensor holds NaN or infinity, and was not excluded.
    """
    records = []
    for i, reason in tensors:
        entry = checkpoint.entries[i]
        rounds = recipe.keep == "bf16" and entry.dtype in ("float32", "float64") and reason not in ("excluded", "exact")
        stored = entry.dtype
        if reason not in ("excluded", "8-bit floats") and entry.dtype.startswith(("float", "bfloat", "complex")):
            peak = peak_of(checkpoint, i) if peaks is None else peaks[entry.name]
            if not math.isfinite(peak):
                raise TersorError(f"{checkpoint.source}: {entry.name} holds NaN or infinity; {CURE}")
            stored = "bfloat16" if rounds and peak < _INFINITE_BF16 else stored
            if reason == "precision":
                stored = _half(checkpoint.source, entry, recipe, peak)
        records.append((i, REASONS.index(reason), DTYPES.index(stored)))
    sizes = [(stored, checkpoint.entries[i].numel * ITEM_BYTES[DTYPES[stored]]) for i, _, stored in records]
    return Kept(tuple(records), tuple(map(tuple, kept.units(sizes))))


def _half(source: str, entry: Entry, recipe: Recipe, peak: float) -> str:
    """The type of sixteen bits that the recipe asks for; what has so few already keeps its own."""
    if entry.dtype in ("float16", "bfloat16"):
        return entry.dtype
    most, name = (_INFINITE_FP16, "float16") if recipe.scheme == "fp16" else (_INFINITE_BF16, "bfloat16")
    if not peak < most:
        raise TersorError(f"{source}: {entry.name} holds {peak:.3g}, more than {recipe.scheme} can; use bf16 or {CURE}")
    return name


def peak_of(checkpoint: Checkpoint, i: int) -> float:
    """Largest magnitude of a tensor, NaN where one of its values is."""
    found = (examine(checkpoint, part) for part in parts([checkpoint.entries[i]]))
    return reduce(Facts.plus, found, NOTHING).peak


def section(checkpoint: Checkpoint, plan: Kept, unit: int) -> bytes:
    """One section of kept tensors."""
    import torch

    data, stored = [], ""
    for k in plan.units[unit]:
        i, _, kind = plan.records[k]
        stored = DTYPES[kind]
        data.append(kept.raw(checkpoint.read(checkpoint.entries[i].name).detach().to(getattr(torch, stored))))
    return kept.pack(b"".join(data), ITEM_BYTES[stored])
