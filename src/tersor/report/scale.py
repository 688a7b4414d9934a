"""Scales of colour: eight classes from little to much, the same on every page, and their legends."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from tersor.report.html import Html, join, tag

BITS = (1.0, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0)
"""Where classes of bits per weight begin."""
EVEN = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0)
"""Of use beside even use."""
SHARE = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4)
"""Of shares of all symbols."""
OVERLAP = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Of 1 - Jensen-Shannon divergence."""


def of(value: float, edges: Sequence[float]) -> int:
    """The class, from 0 to len(edges)."""
    return bisect_right(edges, value)


def legend(edges: Sequence[str], title: str, others: Sequence[tuple[str, str]] = ()) -> Html:
    """Eight patches with the numbers between them; `others` are further patches, by class and what they mean.

    Args:
        edges: seven numbers as text, between the patches.
        title: what is shown.
        others: for example ("shared", "codebooks, tables, index").
    """
    width = 12.5
    patches = [tag("rect", class_=f"s{k}", x=f"{k * width:g}%", y=0, width=f"{width:g}%", height=12) for k in range(8)]
    marks = [tag("text", edge, x=f"{(k + 1) * width:g}%", y=25, text_anchor="middle") for k, edge in enumerate(edges)]
    svg = tag(
        "svg", tag("title", f"scale of colours: {title}, from less to more, with steps at {', '.join(edges)}"),
        *patches, *marks, class_="legend", width="100%", height=30, role="img",
    )  # fmt: skip
    rest = join(tag("span", tag("svg", tag("rect", class_=kind, width=12, height=12), width=12, height=12,
                                aria_hidden="true"), " ", what, class_="key") for kind, what in others)  # fmt: skip
    return tag("div", tag("span", title, class_="what"), svg, rest, class_="scale")
