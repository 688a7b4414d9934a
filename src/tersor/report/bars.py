"""Rows with a mark on an axis, as a table whose cells hold small pictures: it reads, scales and copies like a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tersor.report.html import Html, join, tag
from tersor.report.layers import short, stem

_HEIGHT = 20
LABEL = 19
"""Characters of a row's label that are shown."""


@dataclass(frozen=True)
class Bar:
    """One row.

    Attributes:
        label: of the row; only its end is shown where it is long.
        value: on the axis.
        low, high: the range where a row stands for several values.
        text: the number beside the bar.
        told: on hovering.
        loud: whether it stands out, and is to be looked at.
    """

    label: str
    value: float
    low: float
    high: float
    text: str
    told: str
    loud: bool = False


def draw(
    bars: Sequence[Bar],
    span: tuple[float, float],
    ticks: Sequence[tuple[float, str]],
    heads: tuple[str, str, str],
    caption: str,
    *,
    dots: bool = False,
    mark: float | None = None,
) -> Html:
    """Bars from the left edge, or dots with a stem.

    Args:
        bars: the rows.
        span: least and greatest value of the axis.
        ticks: values on the axis, and what is written there.
        heads: of the three columns.
        caption: of the table.
        dots: dots: for a logarithmic axis, where a bar's length would mean nothing.
        mark: a value to compare with, as a dashed line.
    """
    cut = stem([b.label for b in bars])
    grid = [_vertical(_at(value, span), "grid") for value, _ in ticks]
    grid += [] if mark is None else [_vertical(_at(mark, span), "average")]
    body = join(_row(bar, span, grid, cut, dots) for bar in bars)
    axis = tag("svg", tag("title", f"axis: {heads[1]}"), *(_tick(*tick, span) for tick in ticks), class_="axis",
               width="100%", height=16, role="img")  # fmt: skip
    top = tag("tr", tag("th", heads[0], scope="col"), tag("th", heads[1], axis, scope="col"),
              tag("th", heads[2], scope="col"))  # fmt: skip
    columns = tag("colgroup", tag("col", class_="name"), tag("col", class_="plot"), tag("col", class_="number"))
    return tag("table", tag("caption", caption), columns, tag("thead", top), tag("tbody", body), class_="bars")


def _row(bar: Bar, span: tuple[float, float], grid: Sequence[Html], cut: str, dots: bool) -> Html:
    x, low, high = (_at(v, span) for v in (bar.value, bar.low, bar.high))
    kind, middle = "loud" if bar.loud else "mark", _HEIGHT / 2
    if dots:
        marks = [
            tag("line", class_="stem", x1="0", x2=f"{x:.2f}%", y1=middle, y2=middle),
            tag("circle", class_=kind, cx=f"{x:.2f}%", cy=middle, r=4),
        ]
    else:
        marks = [tag("rect", class_=kind, x=0, y=4, width=f"{x:.2f}%", height=_HEIGHT - 8)]
    if bar.high > bar.low:
        marks.append(tag("line", class_="range", x1=f"{low:.2f}%", x2=f"{high:.2f}%", y1=middle, y2=middle))
    picture = tag("svg", tag("title", bar.told), *grid, *marks, width="100%", height=_HEIGHT, role="img")
    name = tag("th", short(bar.label.removeprefix(cut), LABEL), scope="row", title=bar.label)
    return tag("tr", name, tag("td", picture, class_="plot"), tag("td", bar.text, class_="number"))


def _at(value: float, span: tuple[float, float]) -> float:
    """Percent of the axis."""
    return 100 * min(max((value - span[0]) / (span[1] - span[0]), 0.0), 1.0)


def _vertical(x: float, kind: str) -> Html:
    return tag("line", class_=kind, x1=f"{x:.2f}%", x2=f"{x:.2f}%", y1=0, y2=_HEIGHT)


def _tick(value: float, label: str, span: tuple[float, float]) -> Html:
    x = _at(value, span)
    anchor = "start" if x < 8 else "end" if x > 92 else "middle"
    return tag("text", label, x=f"{x:.2f}%", y=12, text_anchor=anchor)
