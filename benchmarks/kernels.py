"""The kernels behind additive codes: native against the torch twin, and faiss' flat search; medians of repeats."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable
from typing import Any

import faiss
import torch

from benchmarks import store
from benchmarks.environment import environment
from benchmarks.options import Options
from tersor import kernels
from tersor.kernels import twins

log = logging.getLogger("benchmarks")

NAME = "kernels"
COUNT, DIM, SIZE, NUMBER = 1_000_000, 8, 256, 3
REPEATS = 7


def run(options: Options) -> None:
    """Vectors per second of every kernel and backend, to kernels.json."""
    count, repeats = (COUNT // 10, 3) if options.quick else (COUNT, REPEATS)
    rows = []
    for kernel, backends in jobs(count).items():
        seconds = race(backends, repeats)
        for backend, median in seconds.items():
            log.info("%s, %s: %.2f M vectors/s", kernel, backend, count / median / 1e6)
            rows.append({"kernel": kernel, "backend": backend, "seconds": median, "vectors_per_s": count / median})
    shape = {"vectors": count, "vector_dim": DIM, "codebook_size": SIZE, "num_codebooks": NUMBER, "repeats": repeats}
    native = kernels.instruction_set()
    machine = environment() | {"threads": torch.get_num_threads(), "instruction_set": native}
    store.write(NAME, {"environment": machine, "quick": options.quick, "shape": shape, "rows": rows})


def jobs(count: int) -> dict[str, dict[str, Callable[[], Any]]]:
    """Kernel to backend to one call of it, all on the same random vectors and codes."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(count, DIM, generator=generator)
    codebooks = torch.randn(NUMBER, SIZE, DIM, generator=generator)
    codes = torch.randint(SIZE, (count, NUMBER), generator=generator, dtype=torch.int32)
    # Squared error as the kernel takes it: |x|² is the same for all codewords and left out.
    products, offset = (-2 * codebooks[0].T).contiguous(), (codebooks[0] ** 2).sum(dim=1)
    bias = torch.rand(1, SIZE, generator=generator)
    index = faiss.IndexFlatL2(DIM)
    index.add(codebooks[0].numpy())
    return {
        "nearest": {
            "native": lambda: kernels.nearest(vectors, products, offset),
            "torch": lambda: twins.nearest(vectors, products, offset),
            "faiss": lambda: index.search(vectors.numpy(), 1),
        },
        "nearest with rate": {
            "native": lambda: kernels.nearest(vectors, products, offset, bias=bias),
            "torch": lambda: twins.nearest(vectors, products, offset, bias=bias),
        },
        "decode": {
            "native": lambda: kernels.decode(codes, codebooks),
            "torch": lambda: twins.decode(codes, codebooks),
        },
        "pair counts": {
            "native": lambda: kernels.cooccurrence(codes, SIZE),
            "torch": lambda: twins.cooccurrence(codes, SIZE, None),
        },
    }


def race(backends: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each backend, after one untimed call, taking turns so that all see the same machine."""
    times: dict[str, list[float]] = {backend: [] for backend in backends}
    for call in backends.values():
        call()
    for _ in range(repeats):
        for backend, call in backends.items():
            start = time.perf_counter()
            call()
            times[backend].append(time.perf_counter() - start)
    return {backend: statistics.median(seconds) for backend, seconds in times.items()}
