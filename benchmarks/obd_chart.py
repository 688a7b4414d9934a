"""Optimal Brain Damage's figure 1 on digits: the rise of the squared error by the share of weights deleted."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks import store
from benchmarks.chart import SVG

_LINES = (
    ("random", "at random", "#999999", ":"),
    ("magnitude", "by magnitude", "#0072b2", "-"),
    ("obd", "by saliency", "#d55e00", "-"),
    ("predicted", "predicted by saliency", "#d55e00", "--"),
)


def draw(rows: list[dict[str, Any]]) -> None:
    """Write docs/obd.svg: means over seeds, and a band from the least to the most."""
    shares = sorted({row["share"] for row in rows})
    with mpl.rc_context(SVG):
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.subplots()
        for key, label, colour, style in _LINES:
            found = [[row[key] for row in rows if row["share"] == share] for share in shares]
            axes.plot(shares, [sum(f) / len(f) for f in found], style, color=colour, label=label, linewidth=1.8)
            axes.fill_between(shares, [min(f) for f in found], [max(f) for f in found], color=colour, alpha=0.15)
        axes.set_yscale("log")
        axes.set_ylim(1e-5, 10)
        axes.set_xlabel("share of weights deleted")
        axes.set_ylabel("rise of the squared error")
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(store.DOCS / "obd.svg", metadata={"Date": None, "Creator": None})
