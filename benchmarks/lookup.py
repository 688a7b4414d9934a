"""A linear layer from its codes by tables, against torch's dense product: square layers of several sizes, few rows."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks import store
from benchmarks.environment import environment
from benchmarks.options import Options
from tersor.kernels.lookup import lookup

log = logging.getLogger("benchmarks")

NAME = "lookup"
SIZES = (512, 1024, 2048, 4096)
SCHEMES = ((1, 256, 4), (2, 256, 8), (1, 256, 2), (1, 256, 3))  # M, K, d
BATCHES = (1, 4, 8)
THREADS = (1, 2)
REPEATS = 60
COLD = 96 << 20
"""Bytes of dense weights that calls take turns over: more than caches hold, as in a network of many layers."""

Call = Callable[[], torch.Tensor]


def run(options: Options) -> None:
    """Seconds of the dense product and of look-ups, with the layer in the caches and not, to lookup.json."""
    sizes, repeats = (SIZES[:2], 10) if options.quick else (SIZES, REPEATS)
    rows: list[dict[str, Any]] = []
    before = torch.get_num_threads()
    try:
        for size, batch, caches in itertools.product(sizes, BATCHES, ("cold", "warm")):
            calls = backends(size, batch, copies=-(-COLD // (4 * size * size)) if caches == "cold" else 1)
            for threads in THREADS:
                torch.set_num_threads(threads)
                seconds = best(calls, repeats)
                for backend, taken in seconds.items():
                    faster = seconds["dense"] / taken
                    place = {"size": size, "batch": batch, "caches": caches, "threads": threads}
                    rows.append(place | {"backend": backend, "seconds": taken, "times_dense": faster})
                    log.info("%s, %s: %.3f ms, %.2f x dense", place, backend, taken * 1e3, faster)
    finally:
        torch.set_num_threads(before)
    results = {"environment": environment(), "quick": options.quick, "repeats": repeats, "rows": rows}
    store.write(NAME, results | {"faster_from": faster_from(rows)})


def backends(size: int, batch: int, copies: int) -> dict[str, Call]:
    """Backend to a call of it on the next of `copies` random layers of `size` rows and columns."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, size, generator=generator)
    calls = {"dense": over([torch.randn(size, size, generator=generator) for _ in range(copies)], dense(x))}
    for number, words, dim in SCHEMES:
        inputs = -(-size // dim)
        books = torch.randn(number, words, dim, generator=generator)
        shape = (number, inputs, size)
        layers = [torch.randint(words, shape, generator=generator, dtype=torch.uint8) for _ in range(copies)]
        padded = F.pad(x, (0, inputs * dim - size))
        calls[f"lookup, M={number} K={words} d={dim}"] = over(layers, looked_up(books, padded))
    return calls


def dense(x: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda weights: F.linear(x, weights)


def looked_up(books: torch.Tensor, x: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda codes: lookup(codes, books, x)


def over(layers: list[torch.Tensor], call: Callable[[torch.Tensor], torch.Tensor]) -> Call:
    turn = itertools.cycle(layers)
    return lambda: call(next(turn))


def best(calls: dict[str, Call], repeats: int) -> dict[str, float]:
    """Least seconds of each, after untimed calls: what the code takes when nothing else runs. They take turns."""
    least = dict.fromkeys(calls, float("inf"))
    for turn in range(repeats + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            taken = time.perf_counter() - start
            if turn >= 2:
                least[name] = min(least[name], taken)
    return least


def faster_from(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The least size from which on every size measured is faster than dense, or None, per case."""
    cases: dict[tuple[Any, ...], dict[int, bool]] = {}
    for row in rows:
        if row["backend"] != "dense":
            case = (row["backend"], row["batch"], row["caches"], row["threads"])
            cases.setdefault(case, {})[row["size"]] = row["times_dense"] > 1
    found = []
    for case, faster in cases.items():
        good = list(itertools.takewhile(lambda size, faster=faster: faster[size], sorted(faster, reverse=True)))
        names = dict(zip(("backend", "batch", "caches", "threads"), case, strict=True))
        found.append(names | {"size": min(good, default=None)})
    return found
