"""Numbers as a person reads them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tersor.search import ticks


def size(nbytes: float) -> str:
    """Bytes, like "72.2 kB" or "312 B", in three or four digits."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if nbytes >= 0.9995 * unit:
            value = nbytes / unit
            return (
                f"{value:.0f}\u00a0{name}"
                if value >= 100
                else f"{value:.1f}\u00a0{name}"
                if value >= 10
                else f"{value:.2f}\u00a0{name}"
            )
    return f"{ticks.plain(round(nbytes))}\u00a0B"


def times(ratio: float) -> str:
    """A ratio, like "15.0" or "7.25"."""
    return f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.2f}"


def decibels(value: float) -> str:
    """With a real minus sign: "−12.5\u00a0dB"."""
    if math.isinf(value):
        return "exact" if value < 0 else "∞\u00a0dB"
    return f"{value:.1f}\u00a0dB".replace("-", "−")


def percent(share: float) -> str:
    """In two or three digits: "6.3\u00a0%", "0.02\u00a0%", "45\u00a0%"."""
    if math.isinf(share):
        return "more than all"
    value = 100 * share
    if value >= 99.95:
        return f"{value:.0f}\u00a0%"
    digits = 1 if value >= 0.95 else 2
    return f"{value:.{digits}f}\u00a0%" if value >= 0.005 or value == 0 else "under 0.01\u00a0%"


def count(number: int, what: str) -> str:
    """ "1 tensor", "77 tensors", "1,234 tensors"."""
    return f"{number:,} {what}" + "s" * (number != 1)


def shape(dims: Sequence[int]) -> str:
    """ "16×3×3", "scalar" or "empty"."""
    return "×".join(map(str, dims)) if dims else "scalar"


def few(names: Sequence[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    told = ", ".join(names[:most])
    return f"{told} and {len(names) - most:,} more" if len(names) > most else told


def to_decibels(ratio: float) -> float:
    """10 log10, with -inf for nothing."""
    return -math.inf if ratio <= 0 else math.inf if math.isinf(ratio) else 10 * math.log10(ratio)
