"""Accuracy of the labelled checkpoints after coding alone, no tuning: file bytes, score, interval, test items.

Uses the loaders and test sets of ../shared/data/zoo.py. Intervals are Wilson's at 95 % for accuracies of independent
items; the language model's perplexity and the mean IoU are given without one.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import tersor
from benchmarks import store
from benchmarks.environment import environment
from benchmarks.options import Options

log = logging.getLogger("benchmarks")

NAME = "accuracy"
RATIOS = {
    "resnet20-cifar10jpeg": (8, 12, 16),
    "resnet32-cifar10": (8, 12, 16),
    "mobilenetv1-075-imagenet": (4, 5, 6),
    "enet-camvid": (6, 8, 10),
    "stories260k": (5, 6, 8),
}


def run(options: Options) -> None:
    """Every labelled network of the options at its ratios; results go to accuracy.json after each."""
    zoo = load_zoo()
    results = store.read(NAME)
    for name in RATIOS:
        if name not in options.checkpoints:
            continue
        limit = 100 if options.quick else None
        log.info("%s: as it came", name)
        before = zoo.evaluate(name, zoo.load(name), limit)
        rows = []
        for ratio in RATIOS[name]:
            log.info("%s: ratio %d", name, ratio)
            rows.append(measure(zoo, name, ratio, limit))
        results[name] = {"environment": environment(), "quick": options.quick, "before": before, "rows": rows}
        store.write(NAME, results)


def measure(zoo: ModuleType, name: str, ratio: float, limit: int | None) -> dict[str, Any]:
    """One file: written, opened, loaded into the network's own class, scored."""
    net = zoo.load(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.tersor"
        plan = tersor.dry_run(net, tersor.Recipe(ratio=ratio))
        size = tersor.compress(net, tersor.Recipe(ratio=ratio)).save(path)
        tersor.open(path).apply_(net)
    return {
        "target_ratio": ratio,
        "bytes": size,
        "ratio": plan.nbytes / size,
        "bpp": 8 * size / plan.parameters,
        "scores": zoo.evaluate(name, net, limit),
    }


def load_zoo() -> ModuleType:
    """The module that loads and scores the real networks."""
    path = store.SHARED / "data" / "zoo.py"
    if not path.exists():
        raise store.MissingFile(f"{path} is missing: accuracy is measured on the networks it loads")
    spec = importlib.util.spec_from_file_location("zoo", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def interval(accuracy: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion."""
    z = 1.96
    centre = (accuracy + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(accuracy * (1 - accuracy) / count + z * z / (4 * count * count))
    return centre - half, centre + half


def score(scores: dict[str, Any]) -> str:
    """The first score of a network in words."""
    if "accuracy" in scores:
        low, high = interval(scores["accuracy"], scores["count"])
        return f"{scores['accuracy']:.2%} ({low:.2%} to {high:.2%}, {scores['count']:,} images)"
    if "mean_iou" in scores:
        return f"mean IoU {scores['mean_iou']:.2%}, pixels {scores['pixel_accuracy']:.2%} ({scores['count']} images)"
    return f"perplexity {scores['perplexity']:.3f} ({scores['count']:,} tokens)"


def table(results: dict[str, Any]) -> str:
    """Markdown: a row per file, the network as it came first."""
    lines = ["`python -m benchmarks accuracy`", "", "| network | file, bytes | ratio | bits per parameter | score |"]
    lines.append("|---|---|---|---|---|")
    for name, entry in results.items():
        lines.append(f"| {name} | as it came | 1 | | {score(entry['before'])} |")
        for row in entry["rows"]:
            size = f"{row['bytes']:,} | {row['ratio']:.2f}x | {row['bpp']:.3f}"
            lines.append(f"| {name} | {size} | {score(row['scores'])} |")
    return "\n".join(lines)
