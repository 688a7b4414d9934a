"""The ready recipes of recipes/, run as anyone would run them; what they measured is pasted on top of each."""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import tersor
from benchmarks import digits, store
from benchmarks.environment import environment
from benchmarks.figures import command
from benchmarks.options import Options
from benchmarks.tables import table
from benchmarks.tasks import Items, Task

log = logging.getLogger("benchmarks")

NAME = "recipes"
FOLDER = Path(__file__).resolve().parent.parent / "recipes"
MARK = "# measured: "


def run(options: Options) -> None:
    """All recipes, or those named with `--cases`, on the digits' networks."""
    for name, task in digits.TASKS.items():
        before = task.items(task.load())
        for path in sorted(FOLDER.glob("*.toml")):
            if options.cases and path.stem not in options.cases:
                continue
            row = measure(path, task, before)
            results = store.read(NAME)
            results.setdefault(path.stem, {})[name] = row
            store.write(NAME, results)
            log.info("recipes: %s", told(name, row))
    for stem, rows in store.read(NAME).items():
        paste(FOLDER / f"{stem}.toml", rows)


def measure(path: Path, task: Task, before: Items) -> dict[str, Any]:
    """One recipe on one network, through the public call."""
    started = time.perf_counter()
    net = task.load()
    nbytes = tersor.dry_run(net, tersor.Recipe(ratio=1)).nbytes
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "net.tersor"
        archive = tersor.compress(net, tersor.Recipe.load(path), data=task.data(0), out=out)
        size = archive.size
        after = task.items(archive.apply_(task.load()))
    lost, low, high = task.lost(before, after)
    return {
        "bytes": size,
        "ratio": nbytes / size,
        "before": task.score(before),
        "score": task.score(after),
        "items": len(before),
        "lost": lost,
        "lost_low": low,
        "lost_high": high,
        "seconds": time.perf_counter() - started,
        "quick": False,
        "environment": environment(),
    }


def told(name: str, row: dict[str, Any]) -> str:
    """A result in one line."""
    return (
        f"{name}: {row['bytes']:,} B, {row['ratio']:.1f}x; {row['before']:.1f} % -> {row['score']:.1f} %, "
        f"lost {row['lost']:+.1f} ({row['lost_low']:+.1f} to {row['lost_high']:+.1f}) on {row['items']} test items"
    )


def paste(path: Path, rows: dict[str, dict[str, Any]]) -> None:
    """Put the results on top of a recipe, in place of earlier ones."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith(MARK)]
    head = [f"{MARK}{told(name, row)}" for name, row in sorted(rows.items())]
    first = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    made_by = f"{MARK}by `{command(NAME)} --cases {path.stem}`, one seed"
    path.write_text("\n".join([*lines[:first], *head, made_by, *lines[first:]]) + "\n")


def section(results: dict[str, dict[str, Any]]) -> str:
    """The table of all recipes."""
    rows = []
    for stem, found in sorted(results.items()):
        for name, row in sorted(found.items()):
            rows.append(
                [
                    f"[{stem}](../recipes/{stem}.toml)", name, f"{row['bytes']:,}", f"{row['ratio']:.1f}x",
                    f"{row['score']:.1f}", f"{row['lost']:+.1f} ({row['lost_low']:+.1f} to {row['lost_high']:+.1f})",
                ]
            )  # fmt: skip
    return table(command(NAME), ("recipe", "network", "file, bytes", "ratio", "score, %", "lost (95 % interval)"), rows)
