"""Additive codes of fixed rate against faiss LSQ and RQ: same vectors, same M, K and d, plain squared error.

Nothing is entropy-coded here: this measures the search for codes and codebooks by itself.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
import torch

from benchmarks import store, weights
from benchmarks.environment import environment
from benchmarks.options import Options
from benchmarks.peers import faiss_vq
from tersor.additive.alternate import fit
from tersor.additive.scheme import Scheme

log = logging.getLogger("benchmarks")

NAME = "fixed_rate"
SCHEMES = ((8, 256, 2), (8, 256, 3), (4, 256, 2), (9, 256, 2), (8, 16, 4))
"""(vector_dim, codebook_size, num_codebooks)"""

MOST_VECTORS = 1 << 14


def run(options: Options) -> None:
    """Every checkpoint at every scheme; results go to fixed_rate.json after each checkpoint."""
    results = store.read(NAME)
    for name in options.checkpoints:
        values = weights.load(name)
        rows = []
        for dim, size, number in SCHEMES[-1:] if options.quick else SCHEMES:
            log.info("%s: %dx%dd%d", name, number, size, dim)
            rows.append(compare(values, dim, size, number))
        results[name] = {"environment": environment(), "quick": options.quick, "rows": rows}
        store.write(NAME, results)


def compare(values: weights.Weights, dim: int, size: int, number: int) -> dict[str, Any]:
    """SNR in dB and seconds to train and code, of tersor and the two peers, on the same vectors."""
    rows = sample(weights.vectors(values, dim))
    start = time.perf_counter()
    decoded = additive(rows, dim, size, number)
    seconds = time.perf_counter() - start
    row: dict[str, Any] = {"scheme": f"{number}x{size}d{dim}", "vectors": len(rows)}
    row |= {"tersor_db": snr(rows, decoded), "tersor_s": round(seconds, 3)}
    for kind in faiss_vq.QUANTIZERS:
        peer = faiss_vq.code(kind, rows, number, size)
        row |= {f"{kind}_db": snr(rows, peer.decoded), f"{kind}_s": round(peer.encode_s, 3)}
    return row


def sample(rows: weights.Array) -> weights.Array:
    """At most `MOST_VECTORS` rows, evenly spaced: LSQ takes minutes on every 30,000."""
    stride = -(-len(rows) // MOST_VECTORS)
    return np.ascontiguousarray(rows[::stride])


def snr(rows: weights.Array, decoded: weights.Array) -> float:
    """Variance of the rows over mean squared error, in dB."""
    error = np.square(rows.astype(np.float64) - decoded).mean()
    return round(float(10 * np.log10(rows.astype(np.float64).var() / error)), 3)


def additive(rows: weights.Array, dim: int, size: int, number: int) -> weights.Array:
    """What tersor's additive codes make of `rows` (N, dim), without any rate in the search."""
    scheme = Scheme(number, size, dim)
    found = fit(torch.from_numpy(rows), scheme, effort="best")
    parts = [found.codebooks[m][found.codes[:, m].long()] for m in range(number)]
    return torch.stack(parts).sum(dim=0).numpy()
