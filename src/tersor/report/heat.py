"""Heat maps: a table with a strip of colours in each row."""

from __future__ import annotations

from collections.abc import Sequence

from tersor.report.bars import LABEL
from tersor.report.html import Html, tag
from tersor.report.layers import short, stem

_HEIGHT = 16


def draw(
    labels: Sequence[str],
    classes: Sequence[Sequence[int | None]],
    told: Sequence[Sequence[str]] | Sequence[str],
    columns: Sequence[tuple[float, str]],
    caption: str,
    *,
    numbered: bool = False,
) -> Html:
    """A map of R rows and C columns.

    Args:
        labels: of the rows.
        classes: of each cell, 0 to 7; None leaves a gap.
        told: on hovering, for every row, or for every cell.
        columns: what is written above the columns, and where, from 0 to C.
        caption: of the table.
        numbered: rows bear numbers, which the columns refer to.
    """
    width, cut = len(classes[0]), stem(labels)
    head = [
        tag("text", what, x=f"{100 * at / width:.2f}%", y=12, text_anchor=_anchor(at / width)) for at, what in columns
    ]
    axis = tag("svg", tag("title", "columns"), *head, class_="axis", width="100%", height=16, role="img")
    top = tag("tr", tag("th", "Layer", scope="col"), tag("th", axis, scope="col"))
    rows = []
    for r, (label, line) in enumerate(zip(labels, classes, strict=True)):
        name = short(label.removeprefix(cut), LABEL - 4 * numbered)
        number = [tag("span", r + 1, class_="index"), " "] if numbered else []
        rows.append(tag("tr", tag("th", *number, name, scope="row", title=label), tag("td", _strip(line, told[r]))))
    names = tag("colgroup", tag("col", class_="name"), tag("col", class_="plot"))
    return tag("table", tag("caption", caption), names, tag("thead", top), tag("tbody", *rows), class_="heat")


def _strip(line: Sequence[int | None], told: Sequence[str] | str) -> Html:
    """One row of cells; those of a colour that touch are one, unless each has its own text."""
    size = {"viewBox": f"0 0 {len(line)} 1", "preserveAspectRatio": "none", "width": "100%", "height": _HEIGHT}
    if not isinstance(told, str):
        cells = [
            tag("rect", tag("title", text), class_=f"s{kind}", x=x, width=1, height=1)
            for x, (kind, text) in enumerate(zip(line, told, strict=True))
            if kind is not None
        ]
        return tag("svg", *cells, **size)
    paths: dict[int, str] = {}
    start = 0
    for x in range(1, len(line) + 1):
        if x == len(line) or line[x] != line[start]:
            kind = line[start]
            if kind is not None:
                paths[kind] = paths.get(kind, "") + f"M{start} 0h{x - start}v1h-{x - start}z"
            start = x
    cells = [tag("path", class_=f"s{kind}", d=Html(path)) for kind, path in sorted(paths.items())]
    return tag("svg", tag("title", told), *cells, **size, role="img")


def _anchor(at: float) -> str:
    return "start" if at <= 0.02 else "end" if at >= 0.98 else "middle"
