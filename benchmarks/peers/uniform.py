"""Uniform scalar quantization with rate-aware rounding and a static ANS code per tensor, as a real byte stream.

One step for all tensors (best for plain squared error). Each value takes the cheapest of floor, ceil and zero by
`error² + multiplier · step² · bits`; the bits come from the tensor's own counts and are re-estimated three times. The
multiplier 0.11 is the slope of an entropy-coded uniform quantizer at high rates (D = step²/12, dD/dR = -2 ln 2 · D).
Counted: step, frequency tables and ANS words. Not counted, in its favour: names and shapes.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator

import constriction
import numpy as np
import numpy.typing as npt
import zstandard

from benchmarks.points import Point, measured
from benchmarks.weights import Array, Weights, flat

MULTIPLIERS = (0.11, 0.2)
FINEST_BPW = 4.3
PRECISION = 4096

Symbols = npt.NDArray[np.int32]
Table = tuple[int, npt.NDArray[np.int64]]
"""(smallest symbol, frequencies of it and its successors, 0 where a symbol never occurs)"""


def run(weights: Weights, quick: bool = False) -> list[Point]:
    """Steps from coarse to fine until more than `FINEST_BPW` is spent."""
    points = []
    for multiplier in MULTIPLIERS[: 1 if quick else None]:
        for step in steps(weights, 0.5 if quick else 0.8):
            start = time.perf_counter()
            blob = encode({k: round_by_rate(v / step, multiplier) for k, v in weights.items()}, step)
            encoded = time.perf_counter()
            back = decode(blob, weights)
            decoded = time.perf_counter()
            setting = f"step {step:.6g}, multiplier {multiplier}"
            points.append(measured("uniform", setting, weights, back, len(blob), encoded - start, decoded - encoded))
            if points[-1]["bpw"] > FINEST_BPW:
                break
    return points


def steps(weights: Weights, factor: float) -> Iterator[float]:
    """Endless finer steps, starting at four standard deviations of all weights."""
    step = 4 * float(flat(weights).std())
    while True:
        yield float(np.float32(step))
        step *= factor


def round_by_rate(scaled: Array, multiplier: float) -> Symbols:
    """Integers for values in units of the step."""
    values = scaled.ravel()
    below = np.floor(values)
    candidates = np.stack([below, below + 1, np.zeros_like(below)]).astype(np.int32)
    errors = (candidates - values) ** 2
    symbols = np.rint(values).astype(np.int32)
    low = min(int(candidates.min()), 0)
    size = int(candidates.max()) - low + 1
    for _ in range(3):
        counts = np.bincount(symbols - low, minlength=size) + 0.1
        bits = -np.log2(counts / counts.sum())
        choice = np.argmin(errors + multiplier * bits[candidates - low], axis=0)
        symbols = np.take_along_axis(candidates, choice[None], axis=0)[0]
    return symbols.reshape(scaled.shape)


def encode(tensors: dict[str, Symbols], step: float) -> bytes:
    """Layout: step (float32), length of the tables (uint32), tables (varints under zstd), ANS words."""
    coder = constriction.stream.stack.AnsCoder()
    tables = {k: frequencies(v) for k, v in tensors.items()}
    for key, symbols in reversed(tensors.items()):
        low, table = tables[key]
        if table.size > 1:
            coder.encode_reverse(symbols.ravel() - np.int32(low), _model(table))
    packed = zstandard.compress(b"".join(_pack(table) for table in tables.values()), 19)
    return struct.pack("<fI", step, len(packed)) + packed + coder.get_compressed().tobytes()


def decode(blob: bytes, shapes: Weights) -> Weights:
    """The tensors of a stream; names and shapes are taken from `shapes`."""
    step, length = struct.unpack_from("<fI", blob)
    numbers = _varints(zstandard.decompress(blob[8 : 8 + length]))
    coder = constriction.stream.stack.AnsCoder(np.frombuffer(blob[8 + length :], dtype=np.uint32))
    back: Weights = {}
    for key, like in shapes.items():
        zigzag, size = next(numbers), next(numbers)
        low = (zigzag >> 1) ^ -(zigzag & 1)
        table = np.array([next(numbers) for _ in range(size)])
        symbols = coder.decode(_model(table), like.size) if size > 1 else np.zeros(like.size, np.int32)
        back[key] = ((symbols + low) * np.float32(step)).astype(np.float32).reshape(like.shape)
    return back


def frequencies(symbols: Symbols) -> Table:
    """Counts scaled to `PRECISION`, at least 1 for every symbol that occurs."""
    low = int(symbols.min())
    counts = np.bincount(symbols.ravel() - low)
    scaled = np.maximum(np.rint(counts * (PRECISION / symbols.size)), 1).astype(np.int64)
    return low, np.where(counts > 0, scaled, 0)


def _model(table: npt.NDArray[np.int64]) -> constriction.stream.model.Categorical:
    probabilities = (table / table.sum()).astype(np.float32)
    return constriction.stream.model.Categorical(probabilities, lazy=False, perfect=False)


def _pack(table: Table) -> bytes:
    low, counts = table
    out = bytearray()
    for number in (2 * low if low >= 0 else -2 * low - 1, counts.size, *counts.tolist()):
        while number > 127:
            out.append(number & 127 | 128)
            number >>= 7
        out.append(number)
    return bytes(out)


def _varints(data: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in data:
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            yield number
            number = shift = 0
