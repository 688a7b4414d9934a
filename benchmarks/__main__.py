"""`python -m benchmarks [name ...]`: run benchmarks by name, then write docs/results.md again."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys

from benchmarks import store, weights
from benchmarks.options import CODERS, Options

BENCHMARKS = {
    "rate_distortion": "error against bytes: tersor and all peers, every checkpoint, with charts",
    "fixed_rate": "additive codes of fixed rate against faiss LSQ and RQ, same M, K, d",
    "kernels": "nearest codeword, decode and pair counts: native against the torch twin",
    "speed": "whole encode and decode against NNCodec",
    "memory": "peak memory of one encode of a 100 MB checkpoint",
    "scale": "large checkpoints: time and memory by size, processes, kills, sampling, decoding",
    "accuracy": "score of labelled networks after coding, no tuning",
    "tuning": "accuracy after coding and tuning, against rivals trained alike, at equal bytes",
    "classic": "pruning, merging, factorization, low precision: alone and chained, bytes and points lost",
    "papers": "figures of the papers behind the passes, on digits; HAM and sHAM; masks against entropy; speed",
    "recipes": "the ready recipes of recipes/, on digits; what they measured is pasted on top of each",
    "step": "time of a tuning step against the same step on the dense network",
    "sharing": "which layers use the same codewords, against random assignment",
    "lookup": "a linear layer from its codes by tables, against torch's dense product",
    "runtime": "what runs from codes: ONNX files, memory of lazy networks, linear layers",
    "results": "only write docs/results.md from the stored JSON files",
}

WITHOUT_DATA = {"kernels", "lookup", "memory", "scale", "recipes", "results"}
DIGITS = ("digits-mlp", "digits-cnn")
"""Networks of `classic` that are trained when they are asked for."""


def parse(arguments: list[str]) -> tuple[list[str], Options]:
    """The names to run, in the order of the list above, and the options for each."""
    lines = [f"  {name:<16} {what}" for name, what in BENCHMARKS.items()]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="benchmarks (all of them when none is named):\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="name", help="benchmarks to run")
    parser.add_argument("--checkpoints", nargs="+", metavar="NAME", help="only these checkpoints; others keep results")
    parser.add_argument("--coders", nargs="+", choices=CODERS, help="rate_distortion only: others keep results")
    parser.add_argument(
        "--cases",
        nargs="+",
        metavar="CASE",
        help="of tuning (like lattice@27), classic (like fold/auto@27) and scale: others keep results",
    )
    parser.add_argument("--quick", action="store_true", help="few points and repeats: to see that everything runs")
    given = parser.parse_args(arguments)
    for name in given.names:
        if name not in BENCHMARKS:
            parser.error(f"no benchmark called {name!r}; there are: {', '.join(BENCHMARKS)}")
    coders = tuple(given.coders or CODERS)
    names = [name for name in BENCHMARKS if name in (given.names or BENCHMARKS)]
    trained = tuple(name for name in DIGITS if not given.checkpoints or name in given.checkpoints)
    stored = [name for name in given.checkpoints or () if name not in DIGITS]
    checkpoints: tuple[str, ...] = ()
    if not set(names) <= WITHOUT_DATA and (stored or not given.checkpoints):
        checkpoints = weights.select(stored or None)
    return names, Options(checkpoints, coders, given.quick, tuple(given.cases or ()), trained)


def main() -> None:
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.getLogger("benchmarks").setLevel(logging.INFO)
    try:
        names, options = parse(sys.argv[1:])
        for name in names:
            importlib.import_module(f"benchmarks.{name}").run(options)
        if names[-1] != "results":
            importlib.import_module("benchmarks.results").run(options)
    except (weights.MissingData, store.MissingFile) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
