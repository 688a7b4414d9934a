"""NNCodec streams of a given size, and their weights; run with the Python of `.venv-nncodec`.

Usage: python nncodec_decode.py encode WEIGHTS.safetensors STREAM BYTES    # one JSON line says which setting was taken
       python nncodec_decode.py decode STREAM WEIGHTS.npz

Encoding takes, of dependent quantization at every `lambda_scale` below, the stream with the least squared error that
fits; `qp` is found by bisection, in sixteenths of an octave of the step, and the best once more with the next finer
step and a larger `lambda_scale`, which fills the size. Stand-ins as in ../shared/baselines/nncodec_rd.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest.mock import MagicMock

for name in (
    "torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional",
    "torchvision.models", "torchvision.models.segmentation", "torchmetrics", "flwr", "flwr.common", "cv2", "ptflops",
):  # fmt: skip
    sys.modules[name] = MagicMock()

import nncodec.nnc as nnc  # noqa: E402
import numpy as np  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402

Weights = dict[str, np.ndarray]
Stream = tuple[float, int, float, bytes]
"""Squared error, qp, lambda_scale, bytes."""

LAMBDAS = (0.0, 0.5, 1.0, 2.0)
DENSITY = 4  # steps are powers of 2**(2**-DENSITY)
COARSEST, FINEST = 0, -14  # octaves


def encode(path: str, stream: str, target: int) -> None:
    weights = load_file(path)
    found = []
    for lam in LAMBDAS:
        fit, over = COARSEST * 2**DENSITY, FINEST * 2**DENSITY
        blob = _compressed(weights, fit, lam)
        while fit - over > 1:
            middle = (fit + over) // 2
            trial = _compressed(weights, middle, lam)
            fit, over, blob = (middle, over, trial) if len(trial) <= target else (fit, middle, blob)
        if len(blob) <= target:
            found.append(_judged(weights, blob, fit, lam))
    if not found:
        raise SystemExit(f"NNCodec cannot make a stream of {target} bytes")
    found.append(_filled(weights, target, *min(found)))
    error, qp, lam, blob = min(found)
    Path(stream).write_bytes(blob)
    print(json.dumps({"bytes": len(blob), "qp": qp, "qp_density": DENSITY, "lambda_scale": lam, "error": error}))


def _filled(weights: Weights, target: int, error: float, qp: int, lam: float, blob: bytes) -> Stream:
    """The stream of the next finer step with the least `lambda_scale` that fits; the one given if none does."""
    low, high, best = lam, 2 * lam + 0.5, (error, qp, lam, blob)
    for _ in range(5):
        middle = (low + high) / 2
        trial = _compressed(weights, qp - 1, middle)
        if len(trial) <= target:
            high, best = middle, _judged(weights, trial, qp - 1, middle)
        else:
            low = middle
    return best


def _judged(weights: Weights, blob: bytes, qp: int, lam: float) -> Stream:
    back = nnc.decompress(bytearray(blob))
    return sum(float(((v - back[k]) ** 2).sum()) for k, v in weights.items()), qp, lam, blob


def decode(stream: str, path: str) -> None:
    back = nnc.decompress(bytearray(Path(stream).read_bytes()))
    np.savez(path, **{key: np.asarray(value, np.float32) for key, value in back.items()})


def _compressed(weights: Weights, qp: int, lam: float) -> bytes:
    return bytes(
        nnc.compress(
            dict(weights), qp=qp, qp_density=DENSITY, use_dq=True, lambda_scale=lam, return_bitstream=True,
            bitstream_path=None,
        )
    )  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1] == "encode":
        encode(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        decode(sys.argv[2], sys.argv[3])
