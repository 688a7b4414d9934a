"""zstd -19: on the raw float bytes, and on the symbols of a uniform quantizer, a byte each.

What a general compressor gives: it finds almost nothing in trained floats, and its literals are coded with whole-bit
Huffman codes, so skewed symbols cost more than their entropy.
"""

from __future__ import annotations

import time

import numpy as np
import zstandard

from benchmarks.peers.uniform import FINEST_BPW, steps
from benchmarks.points import Point, measured
from benchmarks.weights import Weights, flat, unvectors

LEVEL = 19


def run(weights: Weights, quick: bool = False) -> list[Point]:
    """The lossless point and a sweep of steps, plain rounding, as long as symbols fit in a signed byte."""
    points = [_coded(weights, 0.0)]
    for step in steps(weights, 0.4 if quick else 0.7):
        if float(np.abs(flat(weights)).max()) / step > 127:
            break
        points.append(_coded(weights, step))
        if points[-1]["bpw"] > FINEST_BPW:
            break
    return points


def _coded(weights: Weights, step: float) -> Point:
    values = flat(weights)
    start = time.perf_counter()
    data = np.rint(values / step).astype(np.int8).tobytes() if step else values.tobytes()
    blob = zstandard.compress(data, LEVEL)
    encoded = time.perf_counter()
    data = zstandard.decompress(blob)
    row = np.frombuffer(data, np.int8) * np.float32(step) if step else np.frombuffer(data, np.float32)
    decoded = time.perf_counter()
    back = unvectors(row[:, None], weights)
    setting = f"int8 symbols, step {step:.6g}" if step else "float32 bytes, lossless"
    return measured("zstd", setting, weights, back, len(blob) + 4 * bool(step), encoded - start, decoded - encoded)
