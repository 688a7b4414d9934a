"""The section of bits, layer by layer, and what it shares with the one of errors."""

from __future__ import annotations

from collections.abc import Sequence

from tersor.report import bars, layers, words
from tersor.report.bars import Bar
from tersor.report.facts import Facts
from tersor.report.html import Html
from tersor.report.parts import section
from tersor.search import ticks


def bits(facts: Facts) -> Html:
    """The section of bits per weight."""
    head = "Bits per weight, by layer"
    found = [(i, t.bits) for i, t in enumerate(facts.tensors) if t.kind == "coded" and t.bits is not None]
    if not found:
        return section("bits", head, "No tensor is coded, so there are no bits per weight to compare.")
    value = dict(found)
    shown = rows(facts, list(value))
    lines = []
    for label, inside in shown:
        weights = sum(facts.tensors[i].numel for i in inside)
        mean = sum(value[i] * facts.tensors[i].numel for i in inside) / max(weights, 1)
        low, high = min(value[i] for i in inside), max(value[i] for i in inside)
        told = f"{label}: {mean:.3f} bits per weight, {weights:,} weights{several(inside)}"
        told += f", from {low:.2f} to {high:.2f}" if len(inside) > 1 else f", {facts.tensors[inside[0]].representation}"
        lines.append(Bar(label, mean, low, high, f"{mean:.2f}", told))
    total = sum(facts.tensors[i].numel for i in value)
    mean = sum(b * facts.tensors[i].numel for i, b in value.items()) / max(total, 1)
    most = max(max(b.high for b in lines), mean) * 1.04 or 1.0
    marks = [(v, f"{v:g}") for v in ticks.linear(0, most, 5)]
    least, largest = (f(value, key=lambda i: value[i]) for f in (min, max))
    names = (facts.tensors[least].shown, facts.tensors[largest].shown)
    spread = f" From {value[least]:.2f} ({names[0]}) to {value[largest]:.2f} ({names[1]})."
    spread = spread if value[largest] - value[least] > 0.005 else ""
    told = f"Coded weights take {mean:.2f} bits on average, the dashed line; shared tables are not counted.{spread}"
    table = bars.draw(lines, (0, most), marks, ("Layer", "Bits per weight", "Bits"), caption(shown, value), mark=mean)
    return section("bits", head, told, table)


def rows(facts: Facts, places: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Labels of a figure's rows, and the tensors of each, out of these."""
    names, sizes = [facts.tensors[i].name for i in places], [facts.tensors[i].numel for i in places]
    return [(row.label, [places[k] for k in row.members]) for row in layers.rows(names, sizes)]


def several(inside: Sequence[int]) -> str:
    """How many tensors a row has, where it has more than one."""
    return f", {len(inside)} tensors" if len(inside) > 1 else ""


def caption(shown: Sequence[tuple[str, list[int]]], values: dict[int, float]) -> str:
    """Of a table of some tensors' values in these rows."""
    whole = words.count(len(values), "coded tensor")
    return (
        whole if len(shown) == len(values) else f"{whole} in {len(shown)} rows; thin lines: from least to most in a row"
    )
