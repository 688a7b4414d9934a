"""`python -m benchmarks.simulate`: a run on many machines, played through with the costs measured on one.

Discrete events: every thread of every machine claims the next block from the common count, reads it, codes it, writes
it; machines differ in speed, and some die. What is measured (`scale.json`): seconds per weight and thread, and what a
run takes beside them. What is assumed, and can be set: bandwidths, the answer time of the store, how much machines
differ. Bytes are counted, not assumed.
"""

from __future__ import annotations

import argparse
import heapq
import random
from dataclasses import dataclass
from typing import Any

from benchmarks import store, tables

Results = dict[str, Any]

BLOCK = 8 << 19
"""Weights of a block: eight chunks of half a million."""
HEAD = 8 * 40
"""Bytes of a block's head beside its streams: lengths, checksums, errors."""


@dataclass(frozen=True)
class Cluster:
    """What is assumed.

    Attributes:
        machines, threads: of each machine.
        weights, width: of the checkpoint, bytes of a weight.
        bits: of the archive per weight.
        read, write: bytes per second and machine, of the storage that all share.
        store: seconds for an answer of the store, which answers one at a time.
        spread: of the machines' speeds, as a share.
        deaths: machines that die, at random moments; the run stops, and is resumed without them.
    """

    machines: int = 100
    threads: int = 16
    weights: float = 250e9
    width: int = 4
    bits: float = 2.0
    read: float = 1e9
    write: float = 5e8
    store: float = 2e-4
    spread: float = 0.1
    deaths: int = 0


@dataclass(frozen=True)
class Costs:
    """What is measured: seconds per weight and thread, and seconds of a run beside its weights."""

    weight: float
    beside: float


def measured(results: Results, threads: int = 2) -> Costs:
    """Costs from the two largest runs of the size case: their difference is weights, what remains is beside them."""
    small, large = results["size"]["rows"][-2:]
    each = (large["seconds"] - small["seconds"]) / (large["weights"] - small["weights"])
    return Costs(each * threads, max(0.0, small["seconds"] - each * small["weights"]))


def simulate(cluster: Cluster, costs: Costs, seed: int = 0) -> dict[str, float]:
    """Seconds of each stage, and bytes per machine."""
    draw = random.Random(seed)
    speeds = [max(0.2, draw.gauss(1, cluster.spread)) for _ in range(cluster.machines)]
    dense, archive = cluster.weights * cluster.width, cluster.weights * cluster.bits / 8
    survey = dense / cluster.machines / cluster.read
    blocks = int(-(-cluster.weights // BLOCK))
    coding, stopped, done = 0.0, 0, 0
    alive = list(range(cluster.machines))
    deaths = sorted(draw.random() for _ in range(cluster.deaths))
    for end in [*deaths, None]:
        target = blocks if end is None else int(end * blocks)
        coding += _claim(cluster, costs, [speeds[m] for m in alive], max(0, target - done))
        done = max(done, target)
        if end is not None:  # what was in flight is lost, all wait to notice, start and check what is there
            alive.pop(draw.randrange(len(alive)))
            stopped += 1
            coding += 20 + costs.beside + archive * done / blocks / len(alive) / cluster.read
    assembly = archive * (1 / cluster.read + 1 / cluster.write)  # the first machine's
    return {
        "survey": survey,
        "training": costs.beside,
        "coding": coding,
        "assembly": assembly,
        "total": survey + costs.beside + coding + assembly,
        "read": 2 * dense / len(alive),
        "written": archive / len(alive),
        "first": archive,
        "sent": blocks / len(alive) * 64 + HEAD,
        "stops": stopped,
    }


def _claim(cluster: Cluster, costs: Costs, speeds: list[float], blocks: int) -> float:
    """Seconds until that many blocks are done, each by the thread that is free first."""
    free = [(0.0, m, t) for m in range(len(speeds)) for t in range(cluster.threads)]
    heapq.heapify(free)
    disk = [0.0] * len(speeds)  # when a machine's reading is through
    answered = last = 0.0
    for _ in range(blocks):
        now, m, t = heapq.heappop(free)
        answered = max(answered, now) + cluster.store
        disk[m] = max(disk[m], answered) + BLOCK * cluster.width / cluster.read
        done = max(disk[m], answered + BLOCK * costs.weight / speeds[m]) + BLOCK * cluster.bits / 8 / cluster.write
        heapq.heappush(free, (done, m, t))
        last = max(last, done)
    return last


COLUMNS = (
    ("survey, s", "survey", 1), ("training, s", "training", 1), ("coding, s", "coding", 1),
    ("assembly, s", "assembly", 1), ("in all, s", "total", 1), ("read, GB", "read", 1e9),
    ("written, GB", "written", 1e9), ("sent, MB", "sent", 1e6),
    ("first machine also reads and writes, GB", "first", 1e9),
)  # fmt: skip


def table(results: Results) -> str:
    """A 1 TB checkpoint on 1 to 100 machines, and with deaths."""
    costs = measured(results)
    told = (
        f"1 TB, 250 billion weights of 4 bytes, 16 threads a machine; measured: {1e9 * costs.weight:.0f} ns per weight "
        f"and thread, {costs.beside:.1f} s beside the weights; assumed: see `docs/scale.md`. Bytes are a machine's."
    )
    lines = []
    for machines, deaths in ((1, 0), (10, 0), (100, 0), (100, 3)):
        found = simulate(Cluster(machines=machines, deaths=deaths), costs)
        lines.append([str(machines), str(deaths), *(f"{found[key] / unit:,.1f}" for _, key, unit in COLUMNS)])
    head = ("machines", "deaths", *(title for title, _, _ in COLUMNS))
    return told + "\n\n" + tables.table("python -m benchmarks.simulate", head, lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate", description=__doc__)
    for name, value in Cluster.__dataclass_fields__.items():
        parser.add_argument(f"--{name}", type=type(value.default), default=value.default)
    given = Cluster(**vars(parser.parse_args()))
    for name, number in simulate(given, measured(store.read("scale"))).items():
        print(f"{name:10} {number:,.1f}")


if __name__ == "__main__":
    main()
