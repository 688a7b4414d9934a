"""One measured point: a coder at one setting, its bytes, its error and its times."""

from __future__ import annotations

import math
from typing import TypedDict

import numpy as np

from benchmarks.weights import Weights, count, flat


class _Measured(TypedDict):
    coder: str
    setting: str
    bytes: int
    bpw: float
    snr_db: float | None
    encode_s: float
    decode_s: float


class Point(_Measured, total=False):
    """`bpw` is 8 * bytes / weights; `snr_db` None where nothing is lost; `target_bpp` what tersor was asked for."""

    target_bpp: float


def snr_db(weights: Weights, decoded: Weights) -> float | None:
    """Variance of all weights over the mean squared error, in dB (as the NNCodec baseline counts); None if exact."""
    squares = (float(((v.astype(np.float64) - decoded[k]) ** 2).sum()) for k, v in weights.items())
    error = sum(squares) / count(weights)
    return 10 * math.log10(float(flat(weights).astype(np.float64).var()) / error) if error else None


def measured(
    coder: str, setting: str, weights: Weights, decoded: Weights, nbytes: int, encode_s: float, decode_s: float
) -> Point:
    """The point of a coder that gave `decoded` back from `nbytes` bytes."""
    ratio = snr_db(weights, decoded)
    return {
        "coder": coder,
        "setting": setting,
        "bytes": nbytes,
        "bpw": round(8 * nbytes / count(weights), 5),
        "snr_db": None if ratio is None else round(ratio, 4),
        "encode_s": round(encode_s, 4),
        "decode_s": round(decode_s, 4),
    }
