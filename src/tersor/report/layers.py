"""Hundreds of tensors as few rows that a person can read: by module, by prefix, by runs of numbered blocks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MOST = 36
"""Rows of a figure."""

LONGEST = 100
"""Characters of a name."""

_SUFFIXES = ("weight", "bias", "weight_orig", "running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Row:
    """Tensors that a figure shows as one: `label` for the eye, `members` as positions in the list of names."""

    label: str
    members: tuple[int, ...]


def order(names: Sequence[str]) -> list[int]:
    """Positions in the order of the network: as given, but 2 before 10 where a file sorted its names as text."""
    given = list(range(len(names)))
    return sorted(given, key=lambda i: _natural(names[i])) if list(names) == sorted(names) else given


def rows(names: Sequence[str], weights: Sequence[float], most: int = MOST) -> list[Row]:
    """Group tensors into at most `most` rows, in order.

    Modules first, then ever shorter prefixes; where the next shorter prefix would leave less than a quarter of the
    rows, runs of numbered siblings (`h.0 - h.3`) instead. What is still too much is one row at the end, "and N others",
    without the heaviest.

    Args:
        names: of the tensors.
        weights: how much each matters.
        most: 2 or more.
    """
    places = order(names)
    modules = {i: module(names[i]) for i in places}
    deepest = max((len(m) for m in modules.values()), default=0)
    found = _grouped(places, modules, deepest)
    for depth in range(deepest - 1, 0, -1):
        if len(found) <= most:
            break
        shorter = _grouped(places, modules, depth)
        if len(shorter) < most / 4 and (merged := _runs(found, most)) is not None:
            found = merged
            break
        found = shorter
    if len(found) > most:
        found = _runs(found, most) or found
    labelled = [Row(_label(keys), tuple(members)) for keys, members in found]
    return labelled if len(labelled) <= most else _capped(labelled, weights, most)


def module(name: str) -> tuple[str, ...]:
    """The module that a tensor belongs to, as the parts of its name."""
    parts = tuple(re.split(r"[./]", name))
    return parts[:-1] if len(parts) > 1 and parts[-1] in _SUFFIXES else parts


def stem(labels: Sequence[str]) -> str:
    """What all labels begin with, up to a dot: "model." or nothing."""
    if len(labels) < 2:
        return ""
    first, last = min(labels), max(labels)
    same = next((k for k, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[: first.rfind(".", 0, same) + 1]


def short(label: str, most: int) -> str:
    """A label in at most so many characters: its end says more than its beginning; whole parts if possible."""
    if len(label) <= most:
        return label
    end = label[len(label) - most + 1 :]
    dot = end.find(".")
    return "…" + (end[dot + 1 :] if 0 <= dot < len(end) / 2 else end)


_Keyed = list[tuple[list[tuple[str, ...]], list[int]]]


def _grouped(places: Sequence[int], modules: dict[int, tuple[str, ...]], depth: int) -> _Keyed:
    """Rows of tensors whose modules begin with the same `depth` parts."""
    found: dict[tuple[str, ...], list[int]] = {}
    for i in places:
        found.setdefault(modules[i][:depth], []).append(i)
    return [([key], members) for key, members in found.items()]


def _runs(found: _Keyed, most: int) -> _Keyed | None:
    """Numbered siblings that follow each other in runs, as short as will do; None where that is not enough."""
    blocks = _blocks(found)
    for length in range(2, len(found) + 1):
        merged: _Keyed = []
        for block in blocks:
            step = length if len(block) > 1 else 1
            for at in range(0, len(block), step):
                part = block[at : at + step]
                merged.append(([k for keys, _ in part for k in keys], [i for _, members in part for i in members]))
        if len(merged) <= most:
            return merged
    return None


def _blocks(found: _Keyed) -> list[_Keyed]:
    """Rows cut where the siblings change."""
    blocks: list[_Keyed] = []
    before: tuple[str, ...] | None = None
    for row in found:
        key = row[0][0]
        parent = key[:-1] if key[-1].isdecimal() else None
        if parent is not None and parent == before:
            blocks[-1].append(row)
        else:
            blocks.append([row])
        before = parent
    return blocks


def _label(keys: Sequence[tuple[str, ...]]) -> str:
    first, last = short(".".join(keys[0]), LONGEST), keys[-1][-1]
    return first if len(keys) == 1 else f"{first}–{short(last, LONGEST)}"


def _capped(labelled: list[Row], weights: Sequence[float], most: int) -> list[Row]:
    """The heaviest rows, in order, and one of all others."""
    heavy = [sum(weights[i] for i in row.members) for row in labelled]
    chosen = set(sorted(range(len(labelled)), key=lambda r: (-heavy[r], r))[: most - 1])
    rest = [row for r, row in enumerate(labelled) if r not in chosen]
    others = Row(f"and {len(rest)} others", tuple(i for row in rest for i in row.members))
    return [row for r, row in enumerate(labelled) if r in chosen] + [others]


def _natural(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part[:1].isdigit() else (1, 0, part) for part in re.split(r"([0-9]{1,18})", name)]
