"""faiss' additive quantizers at their defaults: `ResidualQuantizer` (RQ) and `LocalSearchQuantizer` (LSQ).

Counted: packed codes, and codebooks at 16 bits an entry (decoded with 32, in their favour).
"""

from __future__ import annotations

import time
from typing import NamedTuple

import faiss

from benchmarks.points import Point, measured
from benchmarks.weights import Array, Weights, unvectors, vectors

SHAPES = ((8, 2), (8, 3), (4, 2))
"""(vector_dim, num_codebooks), codebooks of 256."""

LSQ_WEIGHTS = 600_000

QUANTIZERS = {"rq": faiss.ResidualQuantizer, "lsq": faiss.LocalSearchQuantizer}


class Coded(NamedTuple):
    """What came back, float32 of the input's shape, with the bytes of codes and codebooks and the seconds spent."""

    decoded: Array
    nbytes: int
    encode_s: float
    decode_s: float


def run(weights: Weights, quick: bool = False) -> list[Point]:
    """Both quantizers at every shape; LSQ, a minute per million weights and codebook, on small ones only."""
    slow = quick or sum(v.size for v in weights.values()) > LSQ_WEIGHTS
    return [
        point(kind, weights, dim, num_codebooks, codebook_size=256)
        for dim, num_codebooks in SHAPES[: 1 if quick else None]
        for kind in (("rq",) if slow else QUANTIZERS)
    ]


def point(kind: str, weights: Weights, dim: int, num_codebooks: int, codebook_size: int) -> Point:
    """One quantizer on all weights."""
    coded = code(kind, vectors(weights, dim), num_codebooks, codebook_size)
    back = unvectors(coded.decoded, weights)
    setting = f"{num_codebooks}x{codebook_size}d{dim}"
    return measured(f"faiss-{kind}", setting, weights, back, coded.nbytes, coded.encode_s, coded.decode_s)


def code(kind: str, rows: Array, num_codebooks: int, codebook_size: int) -> Coded:
    """Train on all `rows` (N, vector_dim) and code them with `kind` "rq" or "lsq"; `codebook_size` a power of two."""
    dim = rows.shape[1]
    quantizer = QUANTIZERS[kind](dim, num_codebooks, codebook_size.bit_length() - 1)
    start = time.perf_counter()
    quantizer.train(rows)
    codes = quantizer.compute_codes(rows)
    encoded = time.perf_counter()
    decoded = quantizer.decode(codes)
    done = time.perf_counter()
    return Coded(decoded, codes.nbytes + 2 * num_codebooks * codebook_size * dim, encoded - start, done - encoded)
