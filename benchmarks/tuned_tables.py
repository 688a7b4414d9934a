"""Tables of the tuning benchmark: every network's files, and the seed paper's claims one by one."""

from __future__ import annotations

from typing import Any

from benchmarks.seeds import told
from benchmarks.tuning import Case

Results = dict[str, Any]
COMMAND = "python -m benchmarks tuning"


def network(name: str, entry: Results) -> str:
    """All files of one network, method by method, larger files first."""
    before = entry["before"]
    lines = [
        f"`{COMMAND} --checkpoints {name}`",
        "",
        f"As it came: {before['score']:.2f} ({entry['metric']}), 95 % interval {before['low']:.2f} to "
        f"{before['high']:.2f}, {before['items']:,} test items.",
        "",
        "| case | file, bytes | ratio | coded | tuned | lost (95 % interval) | divergence | steps | s per step |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rows = sorted(
        entry["cases"].items(), key=lambda item: (Case.parse(item[0]).method, item[0].split("@")[0], -item[1]["bytes"])
    )
    for case, row in rows:
        coded = "" if row["coded"] is None else f"{row['coded']:.2f}"
        pace = f"{row['step_seconds']:.2f}" if row.get("step_seconds") else ""
        lines.append(
            f"| `{case}` | {row['bytes']:,} | {row['ratio']:.2f}x | {coded} | {row['score']:.2f} | {told(row)} "
            f"| {row['divergence']:.4f} | {row['steps']} | {pace} |"
        )
    return "\n".join(lines)


def headline(results: Results) -> str:
    """Per network: the highest ratio without loss, and within 1.3 points."""
    lines = [
        f"`{COMMAND}`",
        "",
        "| network | score as it came | no loss: ratio, bytes, score | 1.3 points: ratio, bytes, lost |",
        "|---|---|---|---|",
    ]
    for name, entry in results.items():
        cells = []
        for best in (no_loss(entry), within(entry, 1.3)):
            if best is None:
                cells.append("none measured")
            else:
                cells.append(f"{best['ratio']:.2f}x, {best['bytes']:,} B, {best['score']:.2f}, lost {told(best)}")
        lines.append(f"| {name} | {entry['before']['score']:.2f} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def ours(entry: Results) -> list[Results]:
    """Files that tersor wrote with its defaults, for whatever number of steps, smallest first."""
    return sorted((row for case, row in entry["cases"].items() if _plain(case)), key=lambda row: row["bytes"])


def longest(entry: Results, ratio: float) -> Results | None:
    """The result of the longest training with the defaults at a ratio."""
    rows = [row for case, row in entry["cases"].items() if _plain(case) and Case.parse(case).ratio == ratio]
    return max(rows, key=lambda row: row["steps"], default=None)


def _plain(text: str) -> bool:
    case = Case.parse(text)
    return case.method == "lattice" and {name for name, _ in case.options} <= {"steps"}


def no_loss(entry: Results) -> Results | None:
    """The smallest file whose score is within the 95 % interval of the network's own."""
    return next((row for row in ours(entry) if row["score"] >= entry["before"]["low"]), None)


def within(entry: Results, points: float) -> Results | None:
    """The smallest file that loses at most so many points."""
    return next((row for row in ours(entry) if row["lost"] <= points), None)


def find(entry: Results, case: str) -> Results | None:
    """The result of one case."""
    found: Results | None = entry["cases"].get(case)
    return found
