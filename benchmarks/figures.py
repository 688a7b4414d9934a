"""The figures that the project set itself, computed from stored results: measured value, bar met, stretch met."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.frontier import advantage, frontier

Results = dict[str, Any]

LOW_RATE = 1.3
RANGE = (0.5, 4.0)
MOSTLY = 0.5
LARGE = 2_000_000


@dataclass(frozen=True)
class Figure:
    """One row: what was asked for, what was measured (None: not measured), and by which command."""

    name: str
    bar: str
    stretch: str
    command: str
    measured: str | None = None
    bar_met: bool = False
    stretch_met: bool = False


@dataclass(frozen=True)
class Gain:
    """How far one tersor file lies above NNCodec's frontier."""

    checkpoint: str
    target_bpp: float
    db: float
    low_rate: bool

    def __str__(self) -> str:
        return f"{self.db:+.2f} dB ({self.checkpoint} at {self.target_bpp:g})"


def figures(results: dict[str, Results]) -> list[Figure]:
    """All seven, in the order they were set; `results` maps benchmark name to its stored JSON."""
    found = list(gains(results.get("rate_distortion", {})))
    return [
        low_rate([g for g in found if g.low_rate]),
        elsewhere([g for g in found if not g.low_rate]),
        fixed_rate(results.get("fixed_rate", {})),
        nearest(results.get("kernels", {})),
        encode(results.get("speed", {})),
        decode(results.get("speed", {})),
        memory(results.get("memory", {})),
    ]


def gains(results: Results) -> Iterator[Gain]:
    """Every file of the scheme that the planner chose, at the targets that a figure speaks of and NNCodec reaches."""
    for name, entry in results.items():
        points = {coder: run["points"] for coder, run in entry["coders"].items()}
        reference = frontier(points.get("nncodec", []))
        for point in points.get("tersor", []):
            target = point.get("target_bpp")
            db = advantage(point, reference)
            if point["coder"] != "tersor" or target is None or db is None:
                continue
            low = entry["share_of_3x3"] > MOSTLY and target <= LOW_RATE
            if low or RANGE[0] <= target <= RANGE[1]:
                yield Gain(name, target, db, low)


def low_rate(found: list[Gain]) -> Figure:
    return _gain_figure(
        f"error at equal bytes, networks of mostly 3x3 kernels, {LOW_RATE} bits per weight and below",
        ("0.5 dB better than NNCodec's frontier", "1.2 dB better"),
        (0.5, 1.2),
        found,
    )


def elsewhere(found: list[Gain]) -> Figure:
    return _gain_figure(
        "the same everywhere else, 0.5 to 4 bits, every checkpoint",
        ("never more than 0.3 dB behind the frontier", "never behind it"),
        (-0.3, 0.0),
        found,
    )


def fixed_rate(results: Results) -> Figure:
    """Smallest lead over the better of LSQ and RQ."""
    leads = [
        (row["tersor_db"] - max(row["lsq_db"], row["rq_db"]), f"{name}, {row['scheme']}")
        for name, entry in results.items()
        for row in entry["rows"]
    ]
    text = ("fixed-rate codes against faiss LSQ and RQ, same M, K, d", "lower error than both, always")
    row = Figure(*text, "0.5 dB below the better one", command("fixed_rate"))
    if not leads:
        return row
    db, where = min(leads)
    return _measured(row, f"least {db:+.2f} dB ({where}), {len(leads)} cases", db > 0, db >= 0.5)


def nearest(results: Results) -> Figure:
    """Both searches, without and with a rate per codeword; the slower one decides."""
    row = Figure("native nearest-codeword search against the torch twin", "10x", "15x", command("kernels"))
    rates = {(r["kernel"], r["backend"]): r["vectors_per_s"] for r in results.get("rows", ())}
    if not rates:
        return row
    times = {
        kernel: rate / rates[kernel, "torch"]
        for (kernel, backend), rate in rates.items()
        if kernel.startswith("nearest") and backend == "native"
    }
    text = ", ".join(f"{kernel} {value:.1f}x" for kernel, value in times.items())
    return _measured(row, text, min(times.values()) >= 10, min(times.values()) >= 15)


def encode(results: Results) -> Figure:
    """Longest encode as a multiple of NNCodec's."""
    text = ("whole encode, default effort, 2 M weights and more", "5x NNCodec's time or less", "NNCodec's time")
    row = Figure(*text, command("speed"))
    times = _ratios(results, "encode_s", LARGE)
    if not times:
        return row
    most, where = max(times)
    return _measured(row, f"at most {most:.2f}x ({where})", most <= 5, most <= 1)


def decode(results: Results) -> Figure:
    """Slowest decode as a multiple of NNCodec's speed."""
    row = Figure("whole decode", "NNCodec's speed", "3x", command("speed"))
    times = _ratios(results, "decode_s", 0)
    if not times:
        return row
    most, where = max(times)
    return _measured(row, f"at least {1 / most:.2f}x ({where})", most <= 1, most <= 1 / 3)


def memory(results: Results) -> Figure:
    row = Figure("peak memory of an encode", "4x the checkpoint", "2x", command("memory"))
    if not results:
        return row
    return _measured(row, f"{results['ratio']:.2f}x", results["ratio"] <= 4, results["ratio"] <= 2)


def command(name: str) -> str:
    """How to run one benchmark."""
    return f"python -m benchmarks {name}"


def _gain_figure(name: str, texts: tuple[str, str], limits: tuple[float, float], found: list[Gain]) -> Figure:
    row = Figure(name, *texts, command("rate_distortion"))
    if not found:
        return row
    worst = min(found, key=lambda gain: gain.db)
    mean = sum(gain.db for gain in found) / len(found)
    inside = sum(gain.db >= limits[0] for gain in found)
    text = f"worst {worst}, mean {mean:+.2f} dB; bar met by {inside} of {len(found)} files"
    return _measured(row, text, worst.db >= limits[0], worst.db >= limits[1])


def _ratios(results: Results, field: str, at_least: int) -> list[tuple[float, str]]:
    """tersor's seconds over NNCodec's, with where, for checkpoints of this many weights."""
    return [
        (row["tersor"][field] / row["nncodec"][field], f"{name} at {row['tersor']['target_bpp']:g}")
        for name, entry in results.items()
        if entry["weights"] >= at_least
        for row in entry["rows"]
    ]


def _measured(row: Figure, text: str, bar_met: bool, stretch_met: bool) -> Figure:
    return Figure(row.name, row.bar, row.stretch, row.command, text, bar_met, stretch_met)
