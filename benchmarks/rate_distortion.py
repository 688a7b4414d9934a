"""Error against bytes on every checkpoint: whole tersor files against whole streams of the peers, same weights.

Results go to rate_distortion.json after every coder, so an interrupted run keeps what it has; coders and checkpoints
that were not run keep their earlier results. Charts go to docs/rd-<checkpoint>.svg.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any

from benchmarks import chart, ours, store, weights
from benchmarks.environment import environment
from benchmarks.options import Options

log = logging.getLogger("benchmarks")

NAME = "rate_distortion"
PEER_MODULES = {"faiss": "faiss_vq"}


def run(options: Options) -> None:
    """Every checkpoint with every coder of the options."""
    results = store.read(NAME)
    for name in options.checkpoints:
        values = weights.load(name)
        entry = results.setdefault(name, {"coders": {}})
        entry |= {"weights": weights.count(values), "share_of_3x3": round(weights.share_of_3x3(values), 4)}
        for coder in options.coders:
            log.info("%s: %s", name, coder)
            entry["coders"][coder] = code(coder, values, options.quick)
            store.write(NAME, results)
        chart.draw(name, points(entry))


def code(coder: str, values: weights.Weights, quick: bool) -> dict[str, Any]:
    """One coder on one checkpoint: its environment, its points and what it refused."""
    if coder == "tersor":
        measured, refused = ours.run(values, quick)
    else:
        module = importlib.import_module(f"benchmarks.peers.{PEER_MODULES.get(coder, coder)}")
        measured, refused = module.run(values, quick), []
    return {"environment": environment(), "quick": quick, "points": measured, "refused": refused}


def points(entry: dict[str, Any]) -> list[Any]:
    """All points of one checkpoint's stored results."""
    return [point for coder in entry["coders"].values() for point in coder["points"]]
