"""Which layers share codewords, against random assignment: the seed paper's claim that sharing happens often, measured.

For a network coded by additive codes alone, with one set of codebooks for all layers, this counts how many layers use
each codeword, and how alike two layers' uses are (one minus the Jensen-Shannon divergence of their histograms in bits,
mean over codebooks). With many more vectors than codewords sharing is bound to be frequent, so the same is measured
with codes shuffled among all vectors: what is left is what layers have in common, or keep apart.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tersor
from benchmarks import store
from benchmarks.environment import environment
from benchmarks.options import Options
from benchmarks.tasks import TASKS
from tersor.archive import Archive

log = logging.getLogger("benchmarks")

NAME = "sharing"
SCHEME = "4x64d9"
RATIO = 16
SHUFFLES = 20

Codes = list[NDArray[np.int32]]


def run(options: Options) -> None:
    """Every labelled network of the options."""
    results = store.read(NAME)
    for name, task in TASKS.items():
        if name not in options.checkpoints:
            continue
        log.info("%s: %s at %d", name, SCHEME, RATIO)
        recipe = tersor.Recipe(ratio=RATIO, scheme=SCHEME, groups="one", keep="bf16")
        archive = tersor.compress(task.load(), recipe)
        results[name] = {
            "environment": environment(),
            "quick": options.quick,
            "bytes": archive.size,
            **measure(archive),
        }
        store.write(NAME, results)


def measure(archive: Archive) -> dict[str, Any]:
    """Sharing of the archive's one group, beside its mean over shuffles."""
    (record,) = archive.index.groups
    layers = codes_by_tensor(archive)
    size = record.codebook_size
    actual, alike = shared(layers, size)
    generator = np.random.default_rng(0)
    every = np.concatenate(layers)
    bounds = np.cumsum([len(codes) for codes in layers])[:-1]
    shuffled = [shared(np.split(generator.permutation(every), bounds), size) for _ in range(SHUFFLES)]
    off = ~np.eye(len(layers), dtype=bool)
    return {
        "layers": len(layers),
        "vectors": len(every),
        "codewords": record.num_codebooks * size,
        "two_layers": actual[0],
        "half_of_layers": actual[1],
        "mean_layers": actual[2],
        "overlap": float(alike[off].mean()),
        "random": {
            "two_layers": float(np.mean([s[0][0] for s in shuffled])),
            "half_of_layers": float(np.mean([s[0][1] for s in shuffled])),
            "mean_layers": float(np.mean([s[0][2] for s in shuffled])),
            "overlap": float(np.mean([s[1][off].mean() for s in shuffled])),
        },
        "names": [archive.index.names[i] for i in record.tensors],
        "overlaps": [[round(float(v), 4) for v in row] for row in alike],
    }


def codes_by_tensor(archive: Archive) -> Codes:
    """Codes [vectors, M] of each tensor of the first group."""
    reader = archive.group(0)
    parts: dict[int, list[NDArray[np.int32]]] = {}
    assert reader.codes is not None
    for chunk in range(reader.chunks):
        for piece, codes in reader.codes.codes(chunk, reader.chunk_streams(chunk)[0]):
            parts.setdefault(piece.tensor, []).append(codes)
    return [np.concatenate(parts[t]) for t in sorted(parts)]


def shared(layers: Codes, size: int) -> tuple[tuple[float, float, float], NDArray[np.float64]]:
    """Shares of used codewords in two layers and more, in half of them and more, mean layers; overlap of each pair."""
    stages = layers[0].shape[1]
    uses = np.array([[np.bincount(codes[:, m], minlength=size) for m in range(stages)] for codes in layers])
    spread = (uses > 0).sum(axis=0)
    used = spread[spread > 0]
    histograms = uses / uses.sum(axis=2, keepdims=True)
    alike = np.ones((len(layers), len(layers)))
    for a in range(len(layers)):
        for b in range(a):
            alike[a, b] = alike[b, a] = 1 - np.mean(
                [divergence(p, q) for p, q in zip(*histograms[[a, b]], strict=True)]
            )
    return (float((used >= 2).mean()), float((used >= len(layers) / 2).mean()), float(used.mean())), alike


def divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Jensen-Shannon divergence of two distributions in bits, 0 to 1."""
    middle = (p + q) / 2

    def relative(a: NDArray[np.float64]) -> float:
        alive = a > 0
        return float((a[alive] * np.log2(a[alive] / middle[alive])).sum())

    return (relative(p) + relative(q)) / 2


def table(results: dict[str, Any]) -> str:
    """Markdown: measured beside random."""
    head = ["network", "layers", "codewords", "used by 2 layers and more", "by half and more", "mean layers", "overlap"]
    lines = ["`python -m benchmarks sharing`", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, entry in results.items():
        random = entry["random"]
        cells = [name, str(entry["layers"]), str(entry["codewords"])]
        cells += [f"{entry[k]:.1%} ({random[k]:.1%})" for k in ("two_layers", "half_of_layers")]
        cells += [f"{entry['mean_layers']:.1f} ({random['mean_layers']:.1f})"]
        cells += [f"{entry['overlap']:.3f} ({random['overlap']:.3f})"]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", f"Scheme {SCHEME} at {RATIO}x, one set for all layers; in brackets codes shuffled among all vectors."]
    return "\n".join(lines)
