"""Tables and figures of the scale benchmark."""

from __future__ import annotations

import itertools
from typing import Any

from benchmarks import simulate
from benchmarks.figures import Figure, command
from benchmarks.tables import table

Results = dict[str, Any]


def sections(results: Results) -> list[str]:
    """Headings and tables of the cases that were run."""
    out = []
    for case, title in (
        ("size", "Time and memory by size"),
        ("processes", "Processes and threads"),
        ("kills", "Killed and resumed"),
        ("sampling", "Training on a sample"),
        ("decode", "Decoding a large archive"),
    ):
        if case in results:
            out += [f"### {title}", globals()[case](results[case]["rows"])]
    if "size" in results:
        out += ["### A hundred machines, simulated", simulate.table(results)]
    return out


def _made_by(case: str) -> str:
    return f"{command('scale')} --cases {case}"


def size(rows: list[Results]) -> str:
    """Whole runs of the command in a fresh process."""
    head = (
        "checkpoint",
        "weights",
        "bytes",
        "file, bytes",
        "seconds",
        "seconds per million weights",
        "peak memory, MB",
    )
    lines = [
        [
            f"synthetic {r['checkpoint']}", f"{r['weights']:,}", f"{r['dense']:,}", f"{r['file']:,}",
            f"{r['seconds']:.1f}", f"{r['seconds_per_million']:.3f}", f"{r['peak'] / 1e6:.0f}",
        ]
        for r in rows
    ]  # fmt: skip
    return table(_made_by("size"), head, lines)


def processes(rows: list[Results]) -> str:
    """One process, two, two threads; each size against its first row."""
    alone = {r["checkpoint"]: r["seconds"] for r in reversed(rows)}
    lines = [
        [f"synthetic {r['checkpoint']}", r["how"], f"{r['seconds']:.1f}",
         f"{alone[r['checkpoint']] / r['seconds']:.2f}x", f"{r['wall']:.1f}", "yes" if r["same_bytes"] else "NO"]
        for r in rows
    ]  # fmt: skip
    head = ("checkpoint", "how", "seconds", "speed-up", "with the start of torch and torchrun", "same bytes")
    return table(_made_by("processes"), head, lines)


def kills(rows: list[Results]) -> str:
    """One line: how often, when, and what came of it."""
    same = sum(r["same"] for r in rows)
    moments = ", ".join(f"{r['at']:.1f} s" for r in rows)
    pieces = ", ".join("all" if r["pieces"] < 0 else str(r["pieces"]) for r in rows)
    head = ("killed", "byte-identical after --resume", "moments", "pieces found finished")
    return table(_made_by("kills"), head, [[str(len(rows)), str(same), moments, pieces]])


def sampling(rows: list[Results]) -> str:
    """What training on a sample loses."""
    head = ("checkpoint", "scheme", "weights", "trained on", "bits per weight", "sample, dB", "all, dB", "lost, dB")
    lines = [
        [
            r["checkpoint"], r["scheme"], f"{r['weights']:,}", f"{r['trained']:,}", f"{r['bpp']:g}",
            f"{r['sample_db']:.3f}", f"{r['whole_db']:.3f}", f"{r['loss_db']:+.3f}",
        ]
        for r in rows
    ]  # fmt: skip
    return table(_made_by("sampling"), head, lines)


def decode(rows: list[Results]) -> str:
    """Decoding against reading and copying."""
    head = (
        "files", "weights", "decode, s", "read and copy dense, s", "relative speed", "open, ms", "smallest tensor, ms"
    )  # fmt: skip
    lines = [
        [
            "not in the cache" if r["cold"] else "in the cache", f"{r['weights']:,}", f"{r['decode_s']:.1f}",
            f"{r['dense_s']:.1f}", f"{r['relative']:.2f}x", f"{1e3 * r['open_s']:.1f}",
            f"{1e3 * r['smallest_tensor_s']:.1f}",
        ]
        for r in rows
    ]  # fmt: skip
    return table(_made_by("decode"), head, lines)


def figures(results: Results) -> list[Figure]:
    """The bars of scale."""
    made = {case: results[case]["rows"] if case in results else None for case in ("size", *_FIGURES)}
    out = [] if made["size"] is None else [_memory(made["size"]), _flat(made["size"])]
    return out + [_FIGURES[case](rows) for case, rows in made.items() if case in _FIGURES and rows is not None]


def _memory(rows: list[Results]) -> Figure:
    most, name = rows[-1]["peak"], f"peak memory, {rows[-1]['dense'] / 1e9:.1f} GB, --memory 2GB"
    return Figure(name, "2 GB", "1 GB", _made_by("size"), f"{most / 1e9:.2f} GB", most <= 2e9, most <= 1e9)


def _flat(rows: list[Results]) -> Figure:
    each = [r["seconds_per_million"] for r in rows]
    falling = all(b <= a for a, b in itertools.pairwise(each))
    told = " → ".join(f"{s:.3f}" for s in each)
    name = "seconds per million weights, 10 M to 2,000 M"
    return Figure(name, "flat within 20 %", "falling", _made_by("size"), told, max(each) <= 1.2 * each[0], falling)


def _processes(rows: list[Results]) -> Figure:
    gain, name = rows[0]["seconds"] / rows[1]["seconds"], "two processes against one, a core each"
    return Figure(name, "1.8x", "1.95x", _made_by("processes"), f"{gain:.2f}x", gain >= 1.8, gain >= 1.95)


def _kills(rows: list[Results]) -> Figure:
    same, count, name = sum(r["same"] for r in rows), len(rows), "killed, resumed, byte-identical"
    met = same == count
    told = f"{same} of {count}"
    return Figure(name, "20 of 20", "100 of 100", _made_by("kills"), told, met and count >= 20, met and count >= 100)


def _sampling(rows: list[Results]) -> Figure:
    worst, name = max(r["loss_db"] for r in rows), "error of training on a sample, worst"
    return Figure(name, "0.05 dB", "0.02 dB", _made_by("sampling"), f"{worst:.3f} dB", worst <= 0.05, worst <= 0.02)


def _decode(rows: list[Results]) -> Figure:
    speed = next(r["relative"] for r in rows if r["cold"])
    name = "decode against reading and copying the dense checkpoint"
    return Figure(name, "0.5x", "1x", _made_by("decode"), f"{speed:.2f}x", speed >= 0.5, speed >= 1)


_FIGURES = {"processes": _processes, "kills": _kills, "sampling": _sampling, "decode": _decode}
