"""Which ratio to try next: bisection in the logarithm of the ratio, from nothing but what was tried so far.

There is no hidden state, so a search that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_NEAR = 2.0  # an end of the range that was not tried yet is tried once the bracket is this narrow


def next_ratio(tried: Sequence[tuple[float, bool]], ends: tuple[float, float], tolerance: float) -> float | None:
    """The ratio to try next, or None when the search is over.

    The bracket is the largest ratio known to be feasible and the smallest above it known not to be. The ends of the
    range stand in for what is not known yet and are themselves tried late: most searches never need them. A feasible
    upper end is doubled; the lower one is the least compression wanted, and the search ends where it is not feasible.

    Args:
        tried: ratios and whether they were feasible, in any order.
        ends: the least ratio wanted, and one that is thought to be too high.
        tolerance: the search is over when the bracket's ratios differ by this share at most.
    """
    low, high = ends
    feasible = max((ratio for ratio, good in tried if good), default=None)
    refused = min((r for r, good in tried if not good and (feasible is None or r > feasible)), default=None)
    if feasible is None and refused is None:
        return math.sqrt(low * high)
    if feasible is None:
        assert refused is not None
        return None if refused <= low else _towards(refused, low)
    if refused is None:
        return 2 * feasible if feasible >= high else _towards(feasible, high)
    return None if refused <= feasible * (1 + tolerance) else math.sqrt(feasible * refused)


def _towards(known: float, end: float) -> float:
    return end if max(known, end) <= _NEAR * min(known, end) else math.sqrt(known * end)
