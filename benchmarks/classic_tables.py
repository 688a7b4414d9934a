"""Tables and figures of the classic methods: alone, chained, and against additive quantization alone."""

from __future__ import annotations

import itertools
import math
from typing import Any

from benchmarks.figures import Figure, command
from benchmarks.tables import table

Results = dict[str, Any]

ALONE = "none/auto@"
FAIR = 2.5
"""Points lost up to which chains are compared."""


def baseline(cases: Results, lost: float) -> float | None:
    """Bytes at which additive quantization alone loses so many points, between measured files; None outside them."""
    points = sorted((row["bytes"], row["lost"]) for case, row in cases.items() if case.startswith(ALONE))
    points.reverse()
    worst = -math.inf
    curve = []
    for size, points_lost in points:  # fewer bytes never lose less
        worst = max(worst, points_lost)
        curve.append((size, worst))
    for (big, low), (small, high) in itertools.pairwise(curve):
        if low <= lost <= high and high > low:
            part = (lost - low) / (high - low)
            return float(math.exp(math.log(big) + part * (math.log(small) - math.log(big))))
    return None


def saved(cases: Results, case: str) -> float | None:
    """The share of bytes that a chain saves against additive quantization alone that loses as much."""
    row = cases[case]
    if "/auto@" not in case or case.startswith(ALONE) or row["lost"] > FAIR:
        return None
    alone = baseline(cases, max(row["lost"], 0.0))
    return None if alone is None else 1 - row["bytes"] / alone


def best(cases: Results) -> tuple[str, float] | None:
    """The chain that saves the most."""
    found = [(case, share) for case in cases if (share := saved(cases, case)) is not None]
    return max(found, key=lambda item: item[1], default=None)


def summary(results: Results) -> str:
    """The best chain of each network."""
    rows = []
    for name, entry in results.items():
        found = best(entry["cases"])
        if found is None:
            rows.append([name, "none measured within the range of files without passes", "", "", ""])
            continue
        row = entry["cases"][found[0]]
        rows.append([name, f"`{found[0]}`", f"{row['bytes']:,}", f"{row['lost']:+.2f}", f"{found[1]:+.1%}"])
    head = ("network", "chain", "file, bytes", "points lost", "bytes saved at equal loss")
    return table(command("classic"), head, rows)


def network(name: str, entry: Results) -> str:
    """All files of one network, the largest first."""
    rows = []
    for case, row in sorted(entry["cases"].items(), key=lambda item: -item[1]["bytes"]):
        share = saved(entry["cases"], case)
        rows.append(
            [
                f"`{case}`", f"{row['bytes']:,}", f"{row['ratio']:.2f}x", f"{row['score']:.2f}",
                f"{row['lost']:+.2f} ({row['lost_low']:+.2f} to {row['lost_high']:+.2f})",
                "" if share is None else f"{share:+.1%}",
            ]
        )  # fmt: skip
    before = entry["before"]
    score = f"{before['score']:.2f} {entry['metric']}, {before['items']:,} test items"
    head = (
        "case",
        "file, bytes",
        "ratio",
        f"score (as it came {score})",
        "lost (95 % interval)",
        "saved at equal loss",
    )
    return table(f"{command('classic')} --checkpoints {name}", head, rows)


CHARTS = {"obd": ["![Rise of the error by the share of weights deleted](obd.svg)"]}


def papers(results: Results) -> list[str]:
    """Headings and tables of the papers' figures."""
    out = []
    for case, title in (
        ("obd", "Optimal Brain Damage, figure 1: rise of the squared error, nothing retrained"),
        ("merge", "Neurons merged without data"),
        ("denil", "Fixed dictionaries"),
        ("ham", "HAM and sHAM, bits per weight"),
        ("entropy", "Masks and values as stored, against their entropy"),
        ("speed", "Half of the filters: time on one thread"),
    ):
        if case in results:
            out += [f"### {title}", *CHARTS.get(case, ()), _PAPERS[case](results[case]["rows"])]
    return out


def _made_by(case: str) -> str:
    return f"{command('papers')} --cases {case}"


def _obd(rows: list[Results]) -> str:
    shares = sorted({r["share"] for r in rows})
    lines = []
    for share in shares:
        mine = [r for r in rows if r["share"] == share]
        cells = [", ".join(f"{r[key]:.4f}" for r in mine) for key in ("obd", "predicted", "magnitude", "random")]
        lines.append([f"{share:.0%}", *cells])
    head = ("deleted", "by saliency", "its prediction", "by magnitude", "at random")
    return table(_made_by("obd"), head, lines)


def _merge(rows: list[Results]) -> str:
    lines = []
    for count in sorted({r["removed"] for r in rows}):
        mine = [r for r in rows if r["removed"] == count]
        cells = [", ".join(f"{r[key]:.1f}" for r in mine) for key in ("base", "merged", "smallest")]
        lines.append([f"{count} of 256", *cells])
    head = ("neurons gone from both layers", "accuracy before, %", "merged", "the smallest removed")
    return table(_made_by("merge"), head, lines)


def _denil(rows: list[Results]) -> str:
    kinds = list(dict.fromkeys(r["dictionary"] for r in rows))
    lines = []
    for share in sorted({r["share"] for r in rows}, reverse=True):
        mine = {r["dictionary"]: r["accuracy"] for r in rows if r["share"] == share}
        lines.append([f"{share:.0%}", *(", ".join(f"{a:.1f}" for a in mine.get(kind, [])) for kind in kinds)])
    return table(_made_by("denil"), ("atoms over inputs", *(f"{kind}, %" for kind in kinds)), lines)


def _ham(rows: list[Results]) -> str:
    keys = ("ham", "sham", "table", "mask", "entropy", "ham_bound", "sham_bound", "sham_printed")
    names = ("HAM", "sHAM", "table", "mask", "entropy", "bound of HAM", "bound of sHAM", "the same as printed")
    lines = [[f"{r['survivors']:.0%}", *(f"{r[k]:.3f}" if k in r else "" for k in keys)] for r in rows]
    return table(_made_by("ham"), ("not zero", *names), lines)


def _entropy(rows: list[Results]) -> str:
    lines = [
        [r["checkpoint"], f"{r['stored']:,.0f}", f"{r['entropy']:,.0f}", f"{r['over']:+.1%}",
         ", ".join(f"{r[k]} {k}" for k in ("table", "mask", "ham", "sham", "bits") if r.get(k))]
        for r in rows
    ]  # fmt: skip
    return table(
        _made_by("entropy"), ("checkpoint", "stored, bytes", "entropy, bytes", "over", "codes of tensors"), lines
    )


def _speed(rows: list[Results]) -> str:
    lines = [
        [r["network"], f"{r['dense_parameters']:,}", f"{r['shrunk_parameters']:,}", f"{r['dense']:.0f}",
         f"{r['shrunk']:.0f}", f"{r['faster']:.2f}x"]
        for r in rows
    ]  # fmt: skip
    head = ("network", "parameters", "without half of its filters", "ms per batch of 32", "shrunk, ms", "faster")
    return table(_made_by("speed"), head, lines)


_PAPERS = {
    "obd": _obd, "merge": _merge, "denil": _denil, "ham": _ham, "entropy": _entropy, "speed": _speed,
}  # fmt: skip


def figures(classic: Results, papers_: Results) -> list[Figure]:
    """What the passes were to reach."""
    shares = {name: best(entry["cases"]) for name, entry in classic.items()}
    good = [name for name, found in shares.items() if found is not None and found[1] >= 0.2]
    measured = f"{len(good)} of {len(shares)} ({', '.join(good)})" if shares else None
    chain = Figure(
        "best chain against additive quantization alone, at equal loss", "20 % fewer bytes on half of the networks", "",
        command("classic"), measured, bool(shares) and 2 * len(good) >= len(shares),
    )  # fmt: skip
    rows = papers_.get("entropy", {}).get("rows", [])
    over = {r["checkpoint"]: r["over"] for r in rows}
    worst = max(over, key=lambda name: over[name], default="")
    entropy = Figure(
        "mask and values as stored against their entropy", "within 2 %", "", _made_by("entropy"),
        f"at most {over[worst]:+.1%} ({worst}), {sum(o <= 0.02 for o in over.values())} of {len(over)} within" if over
        else None, bool(over) and over[worst] <= 0.02,
    )  # fmt: skip
    rows = papers_.get("speed", {}).get("rows", [])
    times = ", ".join(f"{r['faster']:.2f}x ({r['network'].partition(',')[0]})" for r in rows)
    speed = Figure(
        "structured sparsity: time of the shrunk network at 50 % filters", "1.6x faster", "", _made_by("speed"),
        times or None, bool(rows) and max(r["faster"] for r in rows) >= 1.6,
    )  # fmt: skip
    return [chain, entropy, speed]
