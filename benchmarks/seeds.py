"""Cases of the tuning benchmark that differ in nothing but the seed, as one row."""

from __future__ import annotations

from typing import Any

Results = dict[str, Any]

_MEANS = ("bytes", "ratio", "coded", "score", "lost", "lost_low", "lost_high", "divergence", "step_seconds")


def averaged(results: Results) -> Results:
    """Results whose cases are means over seeds, named without one.

    The interval is the mean of the seeds' intervals over test items; what seeds differ by is not in it. `seeds` counts
    them, `cases` names them as the command takes them, `least` and `most` are points lost with the luckiest and
    unluckiest.

    Raises:
        ValueError: seeds of one case were trained for different numbers of steps, or some with `--quick`.
    """
    return {name: {**entry, "cases": _merged(entry["cases"])} for name, entry in results.items()}


def _merged(cases: Results) -> Results:
    together: dict[str, Results] = {}
    for case, row in sorted(cases.items()):
        together.setdefault(case.partition("#")[0], {})[case] = row
    return {case: _mean(rows) for case, rows in together.items()}


def _mean(named: Results) -> Results:
    rows = list(named.values())
    if len({(row["steps"], row["quick"]) for row in rows}) > 1:
        raise ValueError(f"{', '.join(named)}: not of the same number of steps, or some are quick; measure them again")
    mean = dict(rows[0])
    for key in _MEANS:
        known = [row[key] for row in rows if row.get(key) is not None]
        if known:
            mean[key] = sum(known) / len(known)
    lost = [row["lost"] for row in rows]
    return {
        **mean,
        "bytes": round(mean["bytes"]),
        "seeds": len(rows),
        "cases": " ".join(named),
        "least": min(lost),
        "most": max(lost),
    }


def told(row: Results) -> str:
    """Points lost with their interval, and over how many seeds, with the range that they gave."""
    text = f"{row['lost']:+.2f} ({row['lost_low']:+.2f} to {row['lost_high']:+.2f})"
    if row.get("seeds", 1) > 1:
        text += f"; {row['seeds']} seeds, {row['least']:+.2f} to {row['most']:+.2f}"
    return text
