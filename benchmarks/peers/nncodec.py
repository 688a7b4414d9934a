"""NNCodec (MPEG Neural Network Coding): dependent quantization and CABAC, through the shared baseline script.

It runs in a virtual environment of its own, because its pins clash with ours; the environment is made on first use.
The frontier to compare with is the best over `qp` and `lambda_scale`, which all points together give.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from safetensors.numpy import save_file

from benchmarks import store
from benchmarks.points import Point
from benchmarks.weights import Weights

SCRIPT = store.SHARED / "baselines" / "nncodec_rd.py"
VENV = store.ROOT / ".venv-nncodec"
PACKAGES = ("numpy", "pandas", "h5py", "click", "tqdm", "scikit-learn", "safetensors", "torch==2.13.0")
QPS = (-32, -30, -28, -26, -24, -22, -20, -18, -16, -14, -12, -10)
QUICK_QPS = (-24, -16)


def run(weights: Weights, quick: bool = False) -> list[Point]:
    """One point per `qp` and `lambda_scale`: the bytes of the whole stream, decoded again by NNCodec."""
    return sweep(weights, QUICK_QPS if quick else QPS)


def sweep(weights: Weights, qps: tuple[int, ...], threads: int | None = None) -> list[Point]:
    """Points for these quantization parameters, five settings each; `threads` limits OpenMP."""
    if not SCRIPT.exists():
        raise store.MissingFile(f"{SCRIPT} is missing: the NNCodec baseline cannot run (see benchmarks/README.md)")
    environment = os.environ | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_file(weights, path)
        command = [interpreter(), str(SCRIPT), str(path), *map(str, qps)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    return [_point(json.loads(line)) for line in output.splitlines() if line.startswith("{")]


def interpreter() -> str:
    """The Python that has NNCodec: `TERSOR_NNCODEC_PYTHON`, else the one in `.venv-nncodec`, made when missing."""
    given = os.environ.get("TERSOR_NNCODEC_PYTHON")
    if given:
        return given
    python, ready = VENV / "bin" / "python", VENV / ".ready"
    if not ready.exists():
        venv.create(VENV, with_pip=True, clear=True)
        (VENV / ".gitignore").write_text("*\n")
        install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*install, *PACKAGES], check=True, stdout=sys.stderr)
        subprocess.run([*install, "--no-deps", "nncodec==2.1.3"], check=True, stdout=sys.stderr)
        ready.touch()
    return str(python)


def _point(line: dict[str, float]) -> Point:
    trellis = str(line["coder"]).endswith("-dq")
    quantizer = f"dependent, lambda_scale {line['lambda_scale']:g}" if trellis else "independent"
    return {
        "coder": "nncodec",
        "setting": f"qp {line['qp']}, {quantizer}",
        "bytes": int(line["bytes"]),
        "bpw": line["bpw"],
        "snr_db": line["snr_db"],
        "encode_s": line["encode_s"],
        "decode_s": line["decode_s"],
    }
