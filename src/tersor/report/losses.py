"""The section of errors, layer by layer, and of what did not fit a dense checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tersor.report import bars, words
from tersor.report.against import Measured
from tersor.report.bars import Bar
from tersor.report.errors import Errors
from tersor.report.facts import Facts
from tersor.report.html import Html, join, tag
from tersor.report.layers import LONGEST, short
from tersor.report.parts import section
from tersor.report.rates import caption, rows, several


def errors(facts: Facts, found: Errors, measured: Measured | None) -> Html:
    """The section of errors."""
    head = "Error, by layer"
    notes = () if measured is None else _fit(facts, measured)
    if not facts.coded:
        return section("error", head, "No tensor is coded, so nothing has an error of coding.", *notes)
    if found.worst is None:
        told = (
            "The file tells no errors: it was tuned after coding, or what is coded is exact. --against measures them."
        )
        return section("error", head, told if measured is None else "No coded tensor could be compared.", *notes)
    if found.ratios[found.worst] == 0:
        told = f"Every bit of {words.count(len(found.ratios), 'coded tensor')} is as it was."
        return section("error", head, told, *notes)
    shown = rows(facts, list(found.ratios))
    finite = [db for r in found.ratios.values() if math.isfinite(db := words.to_decibels(r))] or [0.0]
    low = 10 * math.floor(min(finite) / 10 - 1e-9)
    high = max(10 * math.ceil(max(finite) / 10), low + 20)
    lines = [_line(facts, found, label, inside, low) for label, inside in shown]
    step = 10 if high - low <= 50 else 20
    marks = [(v, f"{v:g}".replace("-", "−")) for v in range(int(low), int(high) + 1, step)]
    table = bars.draw(lines, (low, high), marks, ("Layer", "Squared error over energy", "dB"),
                      caption(shown, found.ratios), dots=True)  # fmt: skip
    return section("error", head, _told(facts, found, measured), table, *notes)


def _told(facts: Facts, found: Errors, measured: Measured | None) -> str:
    assert found.worst is not None
    source = "as measured while coding" if measured is None else f"measured against {measured.source}"
    name = facts.tensors[found.worst].shown
    told = f"Squared error of the weights over their energy, {source}; further right is worse, "
    told += "10\u00a0dB are a factor of ten. "
    told += f"The largest is {name} with {words.decibels(found.worst_db)}, {words.percent(found.ratios[found.worst])}."
    if found.overall is not None:
        told += f" All together: {words.decibels(words.to_decibels(found.overall))}."
    if found.unknown:
        told += f" Of {words.count(len(found.unknown), 'coded tensor')} no error is known."
    return told


def _line(facts: Facts, found: Errors, label: str, inside: Sequence[int], low: float) -> Bar:
    """Of several tensors the mean of their errors, by weights; what is exact lies where the axis begins."""
    weights = sum(facts.tensors[i].numel for i in inside)
    mean = sum(found.ratios[i] * facts.tensors[i].numel for i in inside) / max(weights, 1)
    decibels = [max(words.to_decibels(found.ratios[i]), low) for i in inside]
    value = words.to_decibels(mean)
    told = f"{label}: {words.decibels(value)}, {words.percent(mean)} of the energy{several(inside)}"
    loud = found.worst in inside
    return Bar(
        label,
        max(value, low),
        min(decibels),
        max(decibels),
        words.decibels(value).removesuffix("\u00a0dB"),
        told,
        loud,
    )


def _fit(facts: Facts, measured: Measured) -> tuple[Html, ...]:
    """What of the dense checkpoint could not be compared."""
    told = []
    exact = [t.name for t in facts.tensors if t.kind != "coded" and measured.ratios.get(t.name) == 0]
    near = [t.name for t in facts.tensors if t.kind != "coded" and measured.ratios.get(t.name, 0) > 0]
    if exact:
        told.append(f"{words.count(len(exact), 'tensor')} without codes: the same bit by bit.")
    if near:
        worst = max(near, key=lambda n: measured.ratios[n])
        error = words.decibels(words.to_decibels(measured.ratios[worst]))
        worst = _name(worst)
        told.append(f"{words.count(len(near), 'tensor')} without codes not the same; most: {worst}, {error}.")
    for name, ours, theirs in measured.reshaped[:8]:
        there = f"{words.shape(theirs)} in {measured.source}"
        told.append(f"{_name(name)}: {words.shape(ours)} here, {there}; not compared.")
    if len(measured.reshaped) > 8:
        told.append(f"{len(measured.reshaped) - 8:,} more of another shape.")
    for names, what in (
        (measured.missing, f"not in {measured.source}"),
        (measured.extra, "not in this file"),
        (measured.unlike, "of values that differ and have no error to tell (integers, NaN, infinity)"),
    ):
        if names:
            told.append(f"{words.count(len(names), 'tensor')} {what}: {words.few([_name(n) for n in names])}.")
    return (tag("ul", join(tag("li", line) for line in told), class_="notes"),) if told else ()


def _name(name: str) -> str:
    return short(name, LONGEST)
