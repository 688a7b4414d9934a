"""Markdown tables from stored results; every table says which command made its numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.figures import Figure, command
from benchmarks.frontier import Curve, advantage, frontier, interpolate

Results = dict[str, Any]


def table(made_by: str, head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table under the command that made it."""
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join([f"`{made_by}`", "", *("| " + " | ".join(line) + " |" for line in lines)])


def bars(rows: list[Figure]) -> str:
    """The figures against their bars. Each row has its own command."""
    head = ("figure", "bar", "stretch", "measured", "bar met", "stretch met", "command")
    return table("python -m benchmarks", head, (_bar(row) for row in rows))


def checkpoint(name: str, entry: Results) -> str:
    """tersor's files of one checkpoint, beside what the others reach at the same bytes."""
    points = [p for run in entry["coders"].values() for p in run["points"]]
    curves = {coder: frontier(p for p in points if p["coder"] == coder) for coder in ("nncodec", "uniform", "zstd")}
    curves["bound"] = sorted((p["bpw"], p["snr_db"]) for p in points if p["coder"] == "bound")
    head = (
        "scheme",
        "file, bytes",
        "bits per weight",
        "SNR, dB",
        "NNCodec",
        "gain",
        "uniform + ANS",
        "zstd -19",
        "bound",
    )
    rows = [_file(p, curves) for p in points if p["coder"].startswith("tersor")]
    rows += [_refused(r) for run in entry["coders"].values() for r in run.get("refused", ())]
    rows += [[p["coder"] + " " + p["setting"], *_size(p), *_peers(p, curves)] for p in points if "faiss" in p["coder"]]
    return table(f"{command('rate_distortion')} --checkpoints {name}", head, rows)


def lossless(results: Results) -> str:
    """zstd on the floats themselves."""
    rows = [
        [name, str(p["bytes"]), f"{p['bpw']:.2f}"]
        for name, entry in results.items()
        for p in entry["coders"].get("zstd", {"points": ()})["points"]
        if p["snr_db"] is None
    ]
    return table(command("rate_distortion") + " --coders zstd", ("checkpoint", "bytes", "bits per weight"), rows)


def fixed_rate(results: Results) -> str:
    """Additive codes against faiss, SNR in dB and seconds."""
    head = ("checkpoint", "scheme", "tersor, dB", "LSQ, dB", "RQ, dB", "lead, dB", "tersor, s", "LSQ, s", "RQ, s")
    rows = []
    for name, entry in results.items():
        for row in entry["rows"]:
            errors = [row["tersor_db"], row["lsq_db"], row["rq_db"]]
            seconds = [f"{row[key]:.1f}" for key in ("tersor_s", "lsq_s", "rq_s")]
            lead = f"{errors[0] - max(errors[1:]):+.2f}"
            rows.append([name, row["scheme"], *(f"{e:.2f}" for e in errors), lead, *seconds])
    return table(command("fixed_rate"), head, rows)


def kernels(results: Results) -> str:
    """Millions of vectors per second."""
    rows = [[r["kernel"], r["backend"], f"{r['vectors_per_s'] / 1e6:.2f}"] for r in results["rows"]]
    return table(command("kernels"), ("kernel", "backend", "M vectors/s"), rows)


def speed(results: Results) -> str:
    """Seconds of tersor and NNCodec at about the same size."""
    head = ("checkpoint", "bits per weight, tersor / NNCodec", "encode, s", "NNCodec", "decode, s", "NNCodec")
    rows = []
    for name, entry in results.items():
        for row in entry["rows"]:
            mine, peer = row["tersor"], row["nncodec"]
            seconds = [f"{p[field]:.3f}" for field in ("encode_s", "decode_s") for p in (mine, peer)]
            rows.append([name, f"{mine['bpw']:.2f} / {peer['bpw']:.2f}", *seconds])
    return table(command("speed"), head, rows)


def memory(results: Results) -> str:
    """Megabytes of one encode."""
    sizes = [f"{results[key] / 1e6:.1f}" for key in ("checkpoint", "file", "imports", "peak")]
    head = ("checkpoint, MB", "file, MB", "after imports, MB", "peak, MB", "(peak - imports) / checkpoint")
    return table(command("memory"), head, [[*sizes, f"{results['ratio']:.2f}"]])


def machine(environment: Results) -> str:
    """Where the numbers come from, in one line."""
    return ", ".join(f"{key} {value}" for key, value in sorted(environment.items()))


def _bar(row: Figure) -> list[str]:
    if row.measured is None:
        met = ["not measured", "-", "-"]
    else:
        met = [row.measured, _yes(row.bar_met), _yes(row.stretch_met)]
    return [row.name, row.bar, row.stretch, *met, f"`{row.command}`"]


def _yes(met: bool) -> str:
    return "yes" if met else "**no**"


def _file(point: Any, curves: dict[str, Curve]) -> list[str]:
    scheme = "auto" if point["coder"] == "tersor" else point["coder"].removeprefix("tersor-")
    return [f"{scheme}, bpp {point['target_bpp']:g}", *_size(point), *_peers(point, curves)]


def _size(point: Any) -> list[str]:
    return [str(point["bytes"]), f"{point['bpw']:.3f}", f"{point['snr_db']:.2f}"]


def _peers(point: Any, curves: dict[str, Curve]) -> list[str]:
    gain = advantage(point, curves["nncodec"])
    others = [interpolate(curves[coder], point["bpw"]) for coder in ("nncodec", "uniform", "zstd", "bound")]
    cells = ["-" if value is None else f"{value:.2f}" for value in others]
    return [cells[0], "-" if gain is None else f"{gain:+.2f}", *cells[1:]]


def _refused(refusal: Results) -> list[str]:
    scheme = str(refusal["coder"]).removeprefix("tersor-").replace("tersor", "auto")
    return [f"{scheme}, bpp {refusal['target_bpp']:g}", f"refused: {refusal['reason']}", *["-"] * 7]
