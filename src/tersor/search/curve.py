"""The curve of a search as a picture: score against bytes, as a self-contained SVG that needs no library.

Drawn in `currentColor`, light on dark where the reader's screen is dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tersor.search import ticks
from tersor.search.trial import Trial, leader

WIDTH, HEIGHT = 800, 460
LEFT, RIGHT, TOP, BOTTOM = 84, 132, 48, 62
_DEPTH = 12  # scores further below the baseline than this many drops are marked at the lower edge

_STYLE = """
.tersor-curve { color: #24292f; font: 13px system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { .tersor-curve { color: #d7dde3; } }
.tersor-curve text { fill: currentColor; }
.tersor-curve .faint { opacity: 0.7; }
.tersor-curve .grid { stroke: currentColor; stroke-opacity: 0.13; }
.tersor-curve .axis { stroke: currentColor; stroke-opacity: 0.6; }
.tersor-curve .curve { fill: none; stroke: currentColor; stroke-opacity: 0.45; stroke-width: 1.5; }
.tersor-curve .limit { stroke: #d9822b; stroke-width: 1.5; stroke-dasharray: 7 4; }
.tersor-curve .baseline { stroke: currentColor; stroke-opacity: 0.6; stroke-dasharray: 2 4; }
.tersor-curve .yes { fill: #2f9e6e; }
.tersor-curve .no { fill: none; stroke: #d9822b; stroke-width: 2; }
.tersor-curve .best { fill: none; stroke: #2f9e6e; stroke-width: 2; }
.tersor-curve .nearest { fill: none; stroke: #d9822b; stroke-width: 2; stroke-dasharray: 3 2; }
"""


@dataclass(frozen=True)
class _Point:
    trial: Trial
    bytes: int
    score: float


@dataclass(frozen=True)
class _Frame:
    """Where values lie in the picture; bytes on a logarithmic axis."""

    bytes: tuple[float, float]
    scores: tuple[float, float]

    def x(self, nbytes: float) -> float:
        low, high = map(math.log, self.bytes)
        return LEFT + (WIDTH - LEFT - RIGHT) * (math.log(nbytes) - low) / (high - low)

    def y(self, score: float) -> float:
        low, high = self.scores
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - score) / (high - low)


def draw(trials: Sequence[Trial], baseline: float, max_drop: float) -> str:
    """The SVG of all trials that gave a file; trials that are alike give the same bytes."""
    points = sorted(
        (_Point(t, t.bytes, t.score) for t in trials if t.bytes is not None and t.score is not None),
        key=lambda p: (p.bytes, p.score),
    )
    best = leader(trials)
    frame = _frame(points, best, baseline, max_drop)
    feasible = sum(p.trial.feasible for p in points)
    title = f"score against bytes: {len(points)} files, {feasible} within the drop of {ticks.plain(max_drop)}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="tersor-curve" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        _text(LEFT, 24, title, weight="600"),
        *_axes(frame),
        *_levels(frame, baseline, max_drop),
        *_curve(frame, points),
        *(_marker(frame, point) for point in points),
        *(_mark(frame, point) for point in points if point.trial is best),
    ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _frame(points: Sequence[_Point], best: Trial | None, baseline: float, max_drop: float) -> _Frame:
    sizes = [p.bytes for p in points] or [1000]
    low, high = min(sizes) / 1.15, max(sizes) * 1.15
    limit = baseline - max_drop
    lowest, highest = min([limit, *(p.score for p in points)]), max([baseline, *(p.score for p in points)])
    if max_drop > 0 and best is not None and best.score is not None:
        lowest = max(lowest, min(baseline - _DEPTH * max_drop, best.score))
    margin = (highest - lowest) * 0.09 or max(abs(baseline), 1.0) * 0.05
    return _Frame((low, high), (lowest - margin, highest + margin))


def _axes(frame: _Frame) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value in ticks.linear(*frame.scores):
        y = frame.y(value)
        parts += [
            _line(LEFT, y, right, y, "grid"),
            _text(LEFT - 9, y + 4.5, ticks.plain(value), anchor="end"),
        ]
    for value in ticks.logarithmic(*frame.bytes):
        x = frame.x(value)
        parts += [
            _line(x, TOP, x, bottom, "grid"),
            _line(x, bottom, x, bottom + 5, "axis"),
            _text(x, bottom + 21, ticks.size(value), anchor="middle"),
        ]
    middle = (TOP + bottom) / 2
    return [
        *parts,
        _line(LEFT, bottom, right, bottom, "axis"),
        _line(LEFT, TOP, LEFT, bottom, "axis"),
        _text((LEFT + right) / 2, HEIGHT - 16, "bytes of the file (logarithmic)", anchor="middle"),
        f'<text x="20" y="{middle:.1f}" text-anchor="middle" transform="rotate(-90 20 {middle:.1f})">score</text>',
    ]


def _levels(frame: _Frame, baseline: float, max_drop: float) -> list[str]:
    """The original's score and the least that is feasible, named beside the plot, where no point is in the way."""
    right, limit = WIDTH - RIGHT, baseline - max_drop
    above, below = frame.y(baseline), frame.y(limit)
    apart = max(0.0, 17 - (below - above)) / 2
    return [
        _line(LEFT, above, right, above, "baseline"),
        _text(right + 8, above + 4.5 - apart, f"original {baseline:.6g}"),
        _line(LEFT, below, right, below, "limit"),
        _text(right + 8, below + 4.5 + apart, f"limit {limit:.6g}"),
    ]


def _curve(frame: _Frame, points: Sequence[_Point]) -> list[str]:
    if len(points) < 2:
        return []
    path = " ".join(f"{frame.x(p.bytes):.1f},{frame.y(p.score):.1f}" for p in points)
    area = f'x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}"'
    return [
        f'<clipPath id="tersor-area"><rect {area}/></clipPath>',
        f'<polyline class="curve" clip-path="url(#tersor-area)" points="{path}"/>',
    ]


def _marker(frame: _Frame, point: _Point) -> str:
    """Filled where feasible, hollow where not; an arrow at the edge, with its score, where it is far below."""
    trial, x, y = point.trial, frame.x(point.bytes), frame.y(point.score)
    drop = "" if trial.drop is None else f", drop {trial.drop:.4g}"
    told = f"<title>ratio {trial.ratio}: {point.bytes:,} B, score {point.score:.6g}{drop}</title>"
    if point.score < frame.scores[0]:
        edge = HEIGHT - BOTTOM - 4
        arrow = f'<path class="no" d="M{x - 5:.1f},{edge - 8} L{x:.1f},{edge} L{x + 5:.1f},{edge - 8}">{told}</path>'
        return arrow + _text(x, edge - 13, f"{point.score:.4g}", anchor="middle", kind="faint")
    return f'<circle class="{"yes" if trial.feasible else "no"}" cx="{x:.1f}" cy="{y:.1f}" r="4.5">{told}</circle>'


def _mark(frame: _Frame, point: _Point) -> str:
    x, y = frame.x(point.bytes), frame.y(point.score)
    kind = "best" if point.trial.feasible else "nearest"
    ring = f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="9"/>'
    told = f"{kind}: {point.bytes:,} B, {point.score:.6g}"
    width = 7 * len(told)  # about
    right = x + 16 + width < WIDTH - RIGHT
    return ring + _text(x + 14 if right else x - 14, y + 22, told, anchor="start" if right else "end", weight="600")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "", weight: str = "") -> str:
    extra = (f' class="{kind}"' if kind else "") + (f' font-weight="{weight}"' if weight else "")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{escape(text)}</text>'
