"""The best error at each size: which measured points are on the frontier, and how far another point lies above it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from benchmarks.points import Point

Curve = list[tuple[float, float]]
"""(bits per weight, SNR in dB), both strictly increasing."""


def hull(points: Iterable[tuple[float, float]]) -> Curve:
    """The points on the lower convex hull of squared error against bits, falling part only.

    A point off this hull is never the best: coding part of the weights at each of two other settings gives a smaller
    error at the same bytes. That argument holds for squared error and not for decibels: the hull of the SNR itself
    bridges low rates, where SNR is convex in bits, with errors that no setting and no mix of settings reaches.
    """
    kept: list[tuple[float, float, float]] = []
    for x, snr in sorted(points):
        point = (x, 10 ** (-snr / 10), snr)
        if kept and point[1] >= kept[-1][1]:
            continue
        if kept and x == kept[-1][0]:
            kept.pop()
        while len(kept) >= 2 and _on_or_above(kept[-2], kept[-1], point):
            kept.pop()
        kept.append(point)
    return [(x, snr) for x, _, snr in kept]


def frontier(points: Iterable[Point]) -> Curve:
    """The hull of measured points; those without loss have no place on it."""
    return hull((p["bpw"], p["snr_db"]) for p in points if p["snr_db"] is not None)


def interpolate(curve: Curve, bpw: float) -> float | None:
    """SNR of the curve at `bpw`, None outside its range.

    Linear in dB between neighbours, as a coder moves when it has settings between the two (6 dB a bit); that is never
    below what mixing the two gives.
    """
    if not curve or not curve[0][0] <= bpw <= curve[-1][0]:
        return None
    right = bisect_left(curve, bpw, key=lambda point: point[0])
    if curve[right][0] == bpw:
        return curve[right][1]
    (x0, y0), (x1, y1) = curve[right - 1], curve[right]
    return y0 + (y1 - y0) * (bpw - x0) / (x1 - x0)


def advantage(point: Point, curve: Curve) -> float | None:
    """By how many dB the point is better than the curve at equal bytes; None outside the curve's range."""
    reference = interpolate(curve, point["bpw"])
    return None if reference is None or point["snr_db"] is None else point["snr_db"] - reference


def _on_or_above(a: tuple[float, float, float], b: tuple[float, float, float], c: tuple[float, float, float]) -> bool:
    """Whether the error of `b` lies on or above the line from `a` to `c`."""
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])
