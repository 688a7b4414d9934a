"""The curve of a search: score against bytes, small enough to be read on a telephone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tersor.report.html import Html, tag
from tersor.search import ticks
from tersor.search.trial import Trial, leader

WIDTH, HEIGHT = 400, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 14, 42
_DEPTH = 12  # scores further below the original's than this many allowed drops lie at the lower edge


@dataclass(frozen=True)
class _Frame:
    """Where values lie; bytes on a logarithmic axis."""

    bytes: tuple[float, float]
    scores: tuple[float, float]

    def x(self, nbytes: float) -> float:
        low, high = map(math.log, self.bytes)
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (math.log(nbytes) - low) / (high - low)

    def y(self, score: float) -> float:
        low, high = self.scores
        return _TOP + (HEIGHT - _TOP - _BOTTOM) * (high - score) / (high - low)


def draw(trials: Sequence[Trial], baseline: float, max_drop: float) -> Html:
    """All trials that gave a file; at least one must have."""
    points = sorted(((t.bytes, t.score, t) for t in trials if t.bytes is not None and t.score is not None),
                    key=lambda p: p[:2])  # fmt: skip
    best = leader(trials)
    limit = baseline - max_drop
    frame = _frame([(b, s) for b, s, _ in points], baseline, limit)
    route = " ".join(f"{frame.x(b):.1f},{frame.y(s):.1f}" for b, s, _ in points)
    area = tag("clipPath", tag("rect", x=_LEFT, y=_TOP, width=WIDTH - _LEFT - _RIGHT, height=HEIGHT - _TOP - _BOTTOM),
               id="curve-area")  # fmt: skip
    within = sum(t.feasible for _, _, t in points)
    title = f"score against bytes of {len(points)} files, {within} of them within the drop of {ticks.plain(max_drop)}"
    return tag(
        "svg", tag("title", title), *_axes(frame), _level(frame, baseline, "original", "baseline", -5),
        _level(frame, limit, "limit", "limit", 13), area, tag("polyline", class_="route", clip_path="url(#curve-area)",
        points=Html(route)),
        *(_point(frame, b, s, t, t is best) for b, s, t in points),
        class_="curve", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img",
    )  # fmt: skip


def _frame(points: Sequence[tuple[int, float]], baseline: float, limit: float) -> _Frame:
    sizes, scores = [b for b, _ in points], [s for _, s in points]
    lowest, highest = min([limit, *scores]), max([baseline, *scores])
    if baseline > limit:
        lowest = max(lowest, baseline - _DEPTH * (baseline - limit))
    margin = (highest - lowest) * 0.09 or max(abs(baseline), 1.0) * 0.05
    return _Frame((min(sizes) / 1.15, max(sizes) * 1.15), (lowest - margin, highest + margin))


def _axes(frame: _Frame) -> list[Html]:
    bottom, right, parts = HEIGHT - _BOTTOM, WIDTH - _RIGHT, []
    for value in ticks.linear(*frame.scores, 5):
        y = f"{frame.y(value):.1f}"
        parts.append(tag("line", class_="grid", x1=_LEFT, x2=right, y1=y, y2=y))
        parts.append(tag("text", ticks.plain(value), x=_LEFT - 6, y=f"{frame.y(value) + 4:.1f}", text_anchor="end"))
    last = -math.inf
    for value in ticks.logarithmic(*frame.bytes):
        x = frame.x(value)
        parts.append(tag("line", class_="grid", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=_TOP, y2=bottom))
        if x - last > 52 and _LEFT + 8 < x < right - 16:  # else the labels touch
            parts.append(tag("text", ticks.size(value), x=f"{x:.1f}", y=bottom + 16, text_anchor="middle"))
            last = x
    parts.append(tag("text", "size of the file", x=(_LEFT + right) / 2, y=HEIGHT - 7, text_anchor="middle"))
    return parts


def _level(frame: _Frame, score: float, what: str, kind: str, below: float) -> Html:
    y = frame.y(score)
    line = tag("line", class_=kind, x1=_LEFT, x2=WIDTH - _RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}")
    label = tag("text", f"{what} {score:.6g}", class_=f"{kind} name", x=_LEFT + 5, y=f"{y + below:.1f}")
    return tag("g", line, label)


def _point(frame: _Frame, nbytes: int, score: float, trial: Trial, best: bool) -> Html:
    """Filled where it is within the drop, hollow where not; an arrow where it is far below; a ring around the best."""
    x, y = f"{frame.x(nbytes):.1f}", f"{frame.y(score):.1f}"
    verdict = "within the drop" if trial.feasible else "too much lost"
    told = tag("title", f"{nbytes:,} B, score {score:.6g}, {verdict}")
    if score < frame.scores[0]:
        edge, at = HEIGHT - _BOTTOM - 3, frame.x(nbytes)
        arrow = tag("path", class_="far", d=Html(f"M{at - 5:.1f} {edge - 8}L{at:.1f} {edge}L{at + 5:.1f} {edge - 8}"))
        return tag("g", told, arrow, tag("text", f"{score:.4g}", x=x, y=edge - 13, text_anchor="middle"))
    parts = [told, tag("circle", class_="yes" if trial.feasible else "no", cx=x, cy=y, r=4.5)]
    if best:
        parts.append(tag("circle", class_="ring", cx=x, cy=y, r=9))
    return tag("g", *parts)
