"""Whole encode and whole decode, tersor at default effort against NNCodec at its frontier settings.

Both on two threads, taking turns, medians of rounds. tersor's encode ends with the file on disk and its decode starts
from it; NNCodec's stays in memory. NNCodec is timed at the one setting of its frontier whose size is closest to the
tersor file, not for the search over settings that finds it.
"""

from __future__ import annotations

import logging
import statistics
from typing import Any

import torch

from benchmarks import ours, store, weights
from benchmarks.environment import environment
from benchmarks.frontier import frontier
from benchmarks.options import Options
from benchmarks.peers import nncodec
from benchmarks.points import Point

log = logging.getLogger("benchmarks")

NAME = "speed"
CHECKPOINTS = ("mobilenetv2-weights", "mobilenetv1-075-imagenet")
TARGETS = (1.3, 2.0)
QPS = (-18, -16)
THREADS = 2
ROUNDS = 2


def run(options: Options) -> None:
    """The checkpoints above, as far as the options allow them; results go to speed.json after each."""
    results = store.read(NAME)
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        for name in [n for n in CHECKPOINTS if n in options.checkpoints]:
            log.info("%s: speed", name)
            results[name] = compare(weights.load(name), options.quick)
            store.write(NAME, results)
    finally:
        torch.set_num_threads(threads)


def compare(values: weights.Weights, quick: bool) -> dict[str, Any]:
    """One row per target: sizes and seconds of both."""
    targets, qps, rounds = (TARGETS[1:2], QPS[::3], 1) if quick else (TARGETS, QPS, ROUNDS)
    theirs: list[list[Point]] = []
    mine: list[list[Point]] = []
    for _ in range(rounds):
        theirs.append(nncodec.sweep(values, qps, THREADS))
        mine.append([ours.measure(values, bpp, "auto", "draft" if quick else "default") for bpp in targets])
    peers, files = medians(theirs), medians(mine)
    best = set(frontier(peers))
    peers = [p for p in peers if (p["bpw"], p["snr_db"]) in best]
    rows = []
    for file in files:
        peer = min(peers, key=lambda p: abs(p["bpw"] - file["bpw"]))
        rows.append({"tersor": file, "nncodec": peer})
    machine = environment() | {"threads": THREADS}
    return {"environment": machine, "quick": quick, "weights": weights.count(values), "rows": rows}


def medians(rounds: list[list[Point]]) -> list[Point]:
    """The points of the first round with the median times of all; every round has the same settings in order."""
    found = [points[0].copy() for points in zip(*rounds, strict=True)]
    for point, points in zip(found, zip(*rounds, strict=True), strict=True):
        point["encode_s"] = statistics.median(p["encode_s"] for p in points)
        point["decode_s"] = statistics.median(p["decode_s"] for p in points)
    return found
