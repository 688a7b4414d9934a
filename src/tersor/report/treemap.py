"""Treemaps: rectangles whose areas are bytes, as squarish as they go (Bruls, Huizing, van Wijk 2000)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tersor.report.html import Html, tag

WIDTH, HEIGHT = 400.0, 270.0
_LETTER, _LINE = 7.0, 13.0  # of the labels, in the picture's units
_GAP = 1.0
_LEAST = 5  # letters of a label that is cut


@dataclass(frozen=True)
class Cell:
    """One rectangle: its area's weight, its class of colour, labels from long to short, what is told on hovering."""

    weight: float
    kind: str
    labels: tuple[str, ...]
    told: str
    note: str = ""


@dataclass(frozen=True)
class Box:
    """Where a rectangle lies."""

    x: float
    y: float
    width: float
    height: float


def squarify(weights: Sequence[float], box: Box) -> list[Box]:
    """Cut a box into boxes of areas in proportion to the weights, in their order; the best order is falling.

    Weights are above 0.
    """
    scale = box.width * box.height / sum(weights) if weights else 0.0
    areas, out = [w * scale for w in weights], []
    while areas:
        side = max(min(box.width, box.height), 1e-9)
        count = 1
        while count < len(areas) and _worst(areas[: count + 1], side) <= _worst(areas[:count], side):
            count += 1
        depth = sum(areas[:count]) / side
        at = 0.0
        for area in areas[:count]:
            length = area / depth if depth else 0.0
            upright = box.width >= box.height  # a column at the left, else a row at the top
            out.append(Box(box.x, box.y + at, depth, length) if upright else Box(box.x + at, box.y, length, depth))
            at += length
        box = (
            Box(box.x + depth, box.y, box.width - depth, box.height)
            if box.width >= box.height
            else Box(box.x, box.y + depth, box.width, box.height - depth)
        )
        areas = areas[count:]
    return out


def draw(groups: Sequence[Sequence[Cell]], title: str) -> Html:
    """A treemap of two levels: groups of cells stay together."""
    groups = [[cell for cell in group if cell.weight > 0] for group in groups]
    groups = sorted((g for g in groups if g), key=lambda g: _rank(sum(c.weight for c in g)))
    outer = squarify([sum(c.weight for c in g) for g in groups], Box(0, 0, WIDTH, HEIGHT))
    cells = []
    for group, place in zip(groups, outer, strict=True):
        ranked = sorted(group, key=lambda c: _rank(c.weight))
        boxes = squarify([c.weight for c in ranked], place)
        cells += [_cell(cell, box) for cell, box in zip(ranked, boxes, strict=True)]
        x, y, width, height = (f"{v:.2f}" for v in (place.x, place.y, place.width, place.height))
        if len(group) > 1:
            cells.append(tag("rect", class_="frame", x=x, y=y, width=width, height=height))
    return tag(
        "svg", tag("title", title), *cells, class_="treemap", viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}", role="img",
    )  # fmt: skip


def _cell(cell: Cell, box: Box) -> Html:
    width, height = max(box.width - _GAP, 0.2), max(box.height - _GAP, 0.2)
    x, y = box.x + _GAP / 2, box.y + _GAP / 2
    parts = [
        tag("title", cell.told),
        tag("rect", class_=cell.kind, x=f"{x:.2f}", y=f"{y:.2f}", width=f"{width:.2f}", height=f"{height:.2f}"),
    ]
    label = _fitting(cell.labels, int((width - 8) / _LETTER)) if height >= _LINE + 5 else ""
    if label:
        parts.append(tag("text", label, class_=f"on-{cell.kind}", x=f"{x + 4:.1f}", y=f"{y + _LINE:.1f}"))
        if cell.note and height >= 2 * _LINE + 6 and len(cell.note) * _LETTER + 8 <= width:
            note = tag("text", cell.note, class_=f"on-{cell.kind}", x=f"{x + 4:.1f}", y=f"{y + 2 * _LINE + 1:.1f}")
            parts.append(note)
    return tag("g", *parts)


def _fitting(labels: Sequence[str], letters: int) -> str:
    """The longest label that fits, or the end of the shortest, or nothing."""
    fitting = next((text for text in labels if len(text) <= letters), "")
    return fitting or (f"…{labels[-1][1 - letters :]}" if letters >= _LEAST else "")


def _rank(weight: float) -> int:
    """Heavy ones first; those within a fifth of each other stay in their order, that of the network."""
    return -round(5 * math.log(weight))


def _worst(areas: Sequence[float], side: float) -> float:
    """The most oblong of some areas laid along a side: its ratio of length and width, 1 or more."""
    total = sum(areas)
    if not total:
        return 1.0
    return max(side * side * max(areas) / (total * total), total * total / (side * side * max(min(areas), 1e-12)))
