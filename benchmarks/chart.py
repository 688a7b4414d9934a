"""A chart of one checkpoint: error against bytes above, the distance to NNCodec's frontier below."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import store
from benchmarks.frontier import Curve, frontier, interpolate
from benchmarks.points import Point

BPW = (0.3, 4.0)
TICKS = (0.3, 0.5, 0.75, 1, 1.3, 2, 3, 4)
SVG: Any = {"svg.hashsalt": "tersor", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}


@dataclass(frozen=True)
class Style:
    """How one coder is drawn; `hull` draws its frontier, else its points are joined as they are."""

    label: str
    colour: str
    marker: str = ""
    line: str = "-"
    width: float = 1.2
    above: int = 2
    hull: bool = True


STYLES = {
    "tersor": Style("tersor", "#d55e00", "o", width=2.2, above=3, hull=False),
    "tersor-4x128d9": Style("tersor, additive codes only", "#e69f00", "s", hull=False),
    "nncodec": Style("NNCodec 2.1.3, frontier", "#0072b2", ".", width=1.8),
    "uniform": Style("uniform scalar, ANS", "#009e73"),
    "zstd": Style("uniform scalar, zstd -19", "#999999"),
    "faiss-lsq": Style("faiss LSQ (fixed rate)", "#cc79a7", "^", "none", hull=False),
    "faiss-rq": Style("faiss RQ (fixed rate)", "#7b3f91", "v", "none", hull=False),
    "bound": Style("bound: independent weights, mixture", "black", line="--", hull=False),
    "gaussian": Style("bound: independent weights, Gaussian", "#777777", line=":", hull=False),
}


def draw(name: str, points: list[Point]) -> None:
    """Write docs/rd-<name>.svg; the same points give the same bytes."""
    with mpl.rc_context(SVG):
        figure = plot(name, points)
        figure.savefig(store.DOCS / f"rd-{name}.svg", metadata={"Date": None, "Creator": None})


def plot(name: str, points: list[Point]) -> Figure:
    """The chart as a figure."""
    figure = Figure(figsize=(8, 7.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(5, 3))
    curves = {coder: curve_of(coder, points) for coder in STYLES}
    for coder, curve in curves.items():
        _line(upper, coder, curve)
        _line(lower, coder, above(curve, curves["nncodec"]))
    _axes(upper, lower, [y for curve in curves.values() for x, y in curve if BPW[0] <= x <= BPW[1]])
    upper.set_title(f"{name}: error against bytes")
    upper.legend(frameon=False, loc="upper left")
    return figure


def curve_of(coder: str, points: list[Point]) -> Curve:
    """The coder's frontier, or its points in order of size."""
    mine = [p for p in points if p["coder"] == coder]
    if STYLES[coder].hull:
        return frontier(mine)
    return sorted((p["bpw"], p["snr_db"]) for p in mine if p["snr_db"] is not None)


def above(curve: Curve, reference: Curve) -> Curve:
    """Points of a curve as dB above the reference at the same bytes, where the reference has a value."""
    references = [(x, y, interpolate(reference, x)) for x, y in curve]
    return [(x, y - r) for x, y, r in references if r is not None]


def _line(axes: Axes, coder: str, curve: Curve) -> None:
    style = STYLES[coder]
    if curve:
        x, y = zip(*curve, strict=True)
        axes.plot(
            x,
            y,
            ls=style.line,
            color=style.colour,
            marker=style.marker,
            lw=style.width,
            zorder=style.above,
            ms=5,
            label=style.label,
        )


def _axes(upper: Axes, lower: Axes, heights: list[float]) -> None:
    upper.set(xscale="log", xlim=BPW, ylabel="SNR: variance over squared error (dB)")
    if heights:
        upper.set_ylim(min(heights) - 1, max(heights) + 1)
    lower.set(ylim=(-3, 4), ylabel="dB above NNCodec's frontier", xlabel="bits per weight, whole file")
    lower.set_xticks(TICKS, [f"{t:g}" for t in TICKS])
    lower.set_xticks([], minor=True)
    for axes in (upper, lower):
        axes.grid(color="#e5e5e5", lw=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
