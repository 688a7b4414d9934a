"""The bars that tuning set itself, computed from stored results."""

from __future__ import annotations

from typing import Any

from benchmarks.claims import MAIN
from benchmarks.figures import Figure
from benchmarks.tasks import TASKS
from benchmarks.tuned_tables import find, longest, no_loss, ours

Results = dict[str, Any]
COMMAND = "python -m benchmarks tuning"
RIVALS = ("uniform", "nncodec", "integer")
LOW_RATE = 32 / 1.5  # ratio from which on files have 1.5 bits per parameter and less


def figures(tuning: Results, step: Results) -> list[Figure]:
    """All six, in the order they were set."""
    return [
        _no_loss(tuning),
        _lost(tuning, 15.3, 0.9, 0.3),
        _lost(tuning, 27, 2.5, 1.0),
        _pruning(tuning.get(MAIN, {"cases": {}})),
        _rivals(tuning.get(MAIN, {"cases": {}})),
        _step(step),
    ]


def _no_loss(tuning: Results) -> Figure:
    name, bar, stretch = "ratio at no loss (inside the test set's 95 % interval), every labelled network", 7.2, 14.0
    best = {network: no_loss(entry) for network, entry in tuning.items()}
    told = ", ".join(f"{network} {row['ratio']:.2f}x" if row else f"{network} none" for network, row in best.items())
    ratios = [row["ratio"] if row else 0.0 for row in best.values()]
    if not ratios:
        return Figure(name, "7.2x", "14x", COMMAND)
    told += f" ({len(best)} of {len(TASKS)} networks)"
    ratios += [0.0] * (len(TASKS) - len(best))
    least = round(min(ratios), 2)  # a file is never over its target, so ratios are a little above theirs
    return Figure(name, "7.2x", "14x", COMMAND, told, least >= bar, least >= stretch)


def _lost(tuning: Results, ratio: float, bar: float, stretch: float) -> Figure:
    name, command = f"points lost at {ratio:g}x", f"{COMMAND} --cases lattice@{ratio:g}"
    found = {network: longest(entry, ratio) for network, entry in tuning.items()}
    rows = {network: row for network, row in found.items() if row is not None}
    if MAIN not in rows:
        return Figure(name, f"{bar} or less", f"{stretch:g}", command)
    told = ", ".join(f"{network} {row['lost']:.2f}{_seeds(row)}" for network, row in rows.items())
    told += f" ({len(rows)} of {len(TASKS)} networks)"
    lost = [row["lost"] for row in rows.values()] + [float("inf")] * (len(TASKS) - len(rows))
    return Figure(name, f"{bar} or less", f"{stretch:g}", command, told, max(lost) <= bar, max(lost) <= stretch)


def _seeds(row: Results) -> str:
    return f" (mean of {row['seeds']} seeds)" if row.get("seeds", 1) > 1 else ""


def _pruning(entry: Results) -> Figure:
    name, bar, stretch = "against iterative pruning at equal bytes", "ahead at every point", "at 2x fewer bytes"
    pairs = [(r, find(entry, f"lattice@{r}"), find(entry, f"pruning@{r}")) for r in (8, 16, 24)]
    if any(mine is None or theirs is None for _, mine, theirs in pairs):
        return Figure(name, bar, stretch, COMMAND)
    leads = [(r, mine["score"] - theirs["score"]) for r, mine, theirs in pairs if mine and theirs]
    told = ", ".join(f"{r}x {lead:+.2f}" for r, lead in leads)
    halves = [_best_below(entry, theirs, 0.5) for _, _, theirs in pairs if theirs]
    told += "; with half the bytes or less " + ", ".join("none measured" if h is None else f"{h:+.2f}" for h in halves)
    met = all(lead > 0 for _, lead in leads)
    return Figure(
        f"{name} ({MAIN}, points)", bar, stretch, COMMAND, told, met, all(h is not None and h > 0 for h in halves)
    )


def _best_below(entry: Results, rival: Results, share: float) -> float | None:
    """How far tersor's best file after as many steps, of at most that share of a rival's bytes (0.5 % is no
    difference), is ahead of its score."""
    size = 1.005 * share * rival["bytes"]
    alike = [row for row in ours(entry) if row["steps"] == rival["steps"] and row["bytes"] <= size]
    leads = [row["score"] - rival["score"] for row in alike]
    return max(leads) if leads else None


def _rivals(entry: Results) -> Figure:
    name, bar, stretch = (
        "against the best rival at equal bytes, 1.5 bits and below",
        "ahead at every point",
        "25 % fewer bytes",
    )
    rivals = [
        (case, row) for case, row in entry["cases"].items()
        if case.split("@")[0].split(":")[0] in RIVALS and row["ratio"] >= LOW_RATE
    ]  # fmt: skip
    if not rivals:
        return Figure(name, bar, stretch, COMMAND)
    even = [(case, _best_below(entry, row, 1.0)) for case, row in rivals]
    fewer = [_best_below(entry, row, 0.75) for _, row in rivals]
    told = ", ".join(
        f"{case}{_seeds(entry['cases'][case])} {'none' if lead is None else f'{lead:+.2f}'}" for case, lead in even
    )
    told += "; with 25 % fewer bytes " + ", ".join("none" if lead is None else f"{lead:+.2f}" for lead in fewer)
    return Figure(
        f"{name} ({MAIN}, points)", bar, stretch, COMMAND, told, all(lead is not None and lead > 0 for _, lead in even),
        all(lead is not None and lead > 0 for lead in fewer),
    )  # fmt: skip


def _step(step: Results) -> Figure:
    name, command = "tuning step against the same step on the dense network", "python -m benchmarks step"
    if not step:
        return Figure(name, "1.5x the time", "1.15x", command)
    told = "; ".join(f"{n}: codes fixed {e['fixed']:.2f}x, moving {e['moving']:.2f}x" for n, e in step.items())
    worst = max(max(e["fixed"], e["moving"]) for e in step.values())
    return Figure(name, "1.5x the time", "1.15x", command, told, worst <= 1.5, worst <= 1.15)
