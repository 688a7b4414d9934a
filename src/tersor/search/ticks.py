"""Round numbers for the axes of a chart."""

from __future__ import annotations

import math

_UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"), (1, "B"))


def linear(low: float, high: float, count: int = 6) -> list[float]:
    """About `count` multiples of 1, 2 or 5 times a power of ten within [low, high]; one at least if high > low."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step)))
    return [round(i * step, digits) for i in range(first, last + 1)]


def logarithmic(low: float, high: float) -> list[float]:
    """Round numbers within [low, high] for a logarithmic axis: 1, 2, 5 of each decade, more or evenly spaced if few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1.0,), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)):
        found = [m * 10.0**d for d in decades for m in steps if low <= m * 10.0**d <= high]
        if len(found) >= 4:
            return found
    return linear(low, high)


def size(nbytes: float) -> str:
    """Bytes for a person: "43.2 kB"."""
    for unit, name in _UNITS:
        if nbytes >= unit:
            return f"{nbytes / unit:.4g} {name}"
    return f"{nbytes:g} B"


def plain(value: float) -> str:
    """A number of an axis without exponent and without trailing zeros, at most nine significant digits."""
    text = f"{value:.9g}"
    return f"{value:.0f}" if "e+" in text else text
