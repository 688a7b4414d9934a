"""Tables and figures of what runs from codes."""

from __future__ import annotations

from typing import Any

from benchmarks.figures import Figure, command
from benchmarks.tables import table

Results = dict[str, Any]

TEXT = """\
Files of 2 bits per weight, exported as they are. "Dense" is the same network with the archive's weights as plain
initializers. Start-up is the time to make a session and get a first answer, on one thread, the best of 25 in turns;
the difference is the largest of any output from torch's (for nanodet, which came as .onnx, from ONNX Runtime on dense
weights). Memory is the peak above what the process took before the network, activations included."""


def _made_by(case: str) -> str:
    return f"{command('runtime')} --cases {case}"


def sections(results: Results) -> list[str]:
    """Headings and tables."""
    out = []
    if results.get("onnx"):
        out += ["### ONNX with codes inside", onnx(results["onnx"])]
    if results.get("lazy"):
        out += ["### Memory of lazy inference", lazy(results["lazy"])]
    if results.get("linear"):
        out += ["### Linear layers from tables", linear(results["linear"])]
    return out


def onnx(rows: Results) -> str:
    """A row for each network and coding."""
    lines = [
        [name, f"{r['archive']:,}", f"{r['onnx']:,}", f"{r['dense']:,}", f"{r['times_smaller']:.2f}x",
         f"{r['codes'] / r['onnx']:.0%}", f"{r['pt2']:,}" if "pt2" in r else "",
         f"{1e3 * r['start_codes']:.1f} / {1e3 * r['start_dense']:.1f}", f"{r['start']:.2f}x",
         f"{r['difference']:.1e} of {r['largest']:.1f}"]
        for name, r in rows.items()
    ]  # fmt: skip
    head = (
        "network, coding", "archive, bytes", ".onnx, bytes", "dense .onnx", "smaller", "of it codes", ".pt2, bytes",
        "start-up, ms, codes / dense", "slower", "largest difference",
    )  # fmt: skip
    return table(_made_by("onnx"), head, lines)


def lazy(result: Results) -> str:
    """Peak memory by how weights are held."""
    lines = []
    for r in result["rows"]:
        sizes = [f"{r[key] / 1e6:.0f} MB" for key in ("loading", "loaded", "peak")]
        lines.append([r["hold"], str(r["batch"]), *sizes, f"{r['share']:.0%}"])
    width, dense = result["width"], result["dense"] / 1e6
    text = f"{result['layers']} linear layers of {width} x {width}, {dense:.0f} MB dense; `loaded` is `apply_`.\n\n"
    head = ("hold", "batch", "peak while loading", "when loaded", "peak of inference", "of dense")
    return text + table(_made_by("lazy"), head, lines)


def linear(result: Results) -> str:
    """Milliseconds of one layer."""
    lines = [
        [r["coding"], str(r["threads"]), f"{1e3 * r['dense']:.2f}", f"{1e3 * r['codes']:.2f}", f"{r['faster']:.2f}x"]
        for r in result["rows"]
    ]
    text = f"A layer of {result['size']} x {result['size']} at batch 1, in turns over layers that no cache holds.\n\n"
    return text + table(_made_by("linear"), ("coding", "threads", "dense, ms", "from codes, ms", "faster"), lines)


def lookup(result: Results) -> str:
    """The kernel alone: how many times faster than dense at batch 1, out of the caches."""
    rows = [r for r in result["rows"] if r["batch"] == 1 and r["caches"] == "cold" and r["backend"] != "dense"]
    kinds = list(dict.fromkeys(r["backend"] for r in rows))
    lines = []
    for size, threads in dict.fromkeys((r["size"], r["threads"]) for r in rows):
        mine = {r["backend"]: r["times_dense"] for r in rows if (r["size"], r["threads"]) == (size, threads)}
        lines.append([f"{size} x {size}", str(threads), *(f"{mine[k]:.2f}x" for k in kinds)])
    return table(command("lookup"), ("layer", "threads", *kinds), lines)


def figures(results: Results) -> list[Figure]:
    """What running from codes was to reach."""
    out = []
    if rows := results.get("onnx", {}):
        small = min(rows, key=lambda name: rows[name]["times_smaller"])
        least = rows[small]["times_smaller"]
        networks = dict.fromkeys(name.split(",")[0] for name in rows)
        told = ", ".join(f"{network} {_best(rows, network):.1f}x" for network in networks)
        told = f"at least {least:.1f}x ({small}); the better coding of each: {told}"
        name = ".onnx with codes against dense .onnx, 2 bits"
        out.append(Figure(name, "6x", "7.5x", _made_by("onnx"), told, least >= 6, least >= 7.5))
        slow = max(rows, key=lambda name: rows[name]["start"])
        most, within = rows[slow]["start"], sum(r["start"] <= 1.5 for r in rows.values())
        told = f"at most {most:.2f}x ({slow}), {within} of {len(rows)} within"
        name = "onnxruntime start-up and first inference against dense"
        out.append(Figure(name, "1.5x", "1x", _made_by("onnx"), told, most <= 1.5, most <= 1))
        far = max(rows, key=lambda name: rows[name]["difference"])
        off = rows[far]["difference"]
        told = f"{off:.1e} ({far}, outputs up to {rows[far]['largest']:.0f})"
        name = "largest difference of outputs, onnxruntime against torch"
        out.append(Figure(name, "1e-4", "1e-5", _made_by("onnx"), told, off <= 1e-4, off <= 1e-5))
    if results.get("linear"):
        best: dict[str, float] = {}
        for r in results["linear"]["rows"]:
            best[r["coding"]] = max(best.get(r["coding"], 0), r["faster"])
        told = ", ".join(f"{kind} {faster:.2f}x" for kind, faster in best.items())
        least, name = min(best.values()), "linear layer 4096 x 4096, batch 1, from codes against dense"
        out.append(Figure(name, "1.5x", "4x", _made_by("linear"), told, least >= 1.5, least >= 4))
    if results.get("lazy"):
        share = next(r["share"] for r in results["lazy"]["rows"] if r["hold"] == "codes" and r["batch"] == 16)
        name = "peak memory of lazy inference"
        out.append(Figure(name, "40 %", "25 %", _made_by("lazy"), f"{share:.0%}", share <= 0.4, share <= 0.25))
    return out


def _best(rows: Results, network: str) -> float:
    return max(r["times_smaller"] for name, r in rows.items() if name.split(",")[0] == network)
