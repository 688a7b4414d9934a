"""Peak memory of one encode in a fresh process: above what the imports take, over the input's bytes.

The input is a synthetic checkpoint of heavy-tailed weights with ResNet-50's tensor sizes (25.5 M weights, 102 MB).
Linux only: the peak is `VmHWM` of /proc/self/status. `getrusage` would do elsewhere, but on Linux its maximum survives
exec, so that a large parent hides a small child.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from benchmarks import store
from benchmarks.environment import environment
from benchmarks.options import Options
from benchmarks.weights import Weights

log = logging.getLogger("benchmarks")

NAME = "memory"
BPP = 2.0
BLOCKS = ((64, 3), (128, 4), (256, 6), (512, 3))

CHILD = """
import json, sys
import tersor, torch
from pathlib import Path

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))

imported = status("VmRSS")
source, target, bpp, effort = sys.argv[1:]
nbytes = tersor.compress(source, tersor.Recipe(bpp=float(bpp), effort=effort)).save(target, force=True)
print(json.dumps({"imports": imported, "peak": status("VmHWM"), "file": nbytes}))
"""


def run(options: Options) -> None:
    """One encode at default effort, to memory.json."""
    effort = "draft" if options.quick else "default"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "resnet50.safetensors"
        save_file(synthetic(BLOCKS[:2] if options.quick else BLOCKS), source)
        log.info("memory: encoding %.0f MB", source.stat().st_size / 1e6)
        found = encode(source, Path(folder) / "resnet50.tersor", effort)
        found["checkpoint"] = source.stat().st_size
    found["ratio"] = round((found["peak"] - found["imports"]) / found["checkpoint"], 3)
    log.info("memory: %.2f times the checkpoint", found["ratio"])
    store.write(NAME, {"environment": environment(), "quick": options.quick, "bpp": BPP, "effort": effort, **found})


def encode(source: Path, target: Path, effort: str) -> dict[str, Any]:
    """Bytes in memory after the imports and at the peak, and bytes of the file, of one encode in a fresh process."""
    command = [sys.executable, "-c", CHILD, str(source), str(target), str(BPP), effort]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def synthetic(blocks: tuple[tuple[int, int], ...]) -> Weights:
    """Stem, bottleneck blocks of these (width, repeats), classifier; Student's t (4) over the square root of fan-in."""
    generator = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7)}
    inputs = 64
    for stage, (width, repeats) in enumerate(blocks, 1):
        for block in range(repeats):
            name = f"layer{stage}.{block}"
            shapes[f"{name}.conv1.weight"] = (width, inputs, 1, 1)
            shapes[f"{name}.conv2.weight"] = (width, width, 3, 3)
            shapes[f"{name}.conv3.weight"] = (4 * width, width, 1, 1)
            if block == 0:
                shapes[f"{name}.downsample.0.weight"] = (4 * width, inputs, 1, 1)
            inputs = 4 * width
    shapes["fc.weight"] = (1000, inputs)
    return {
        name: (generator.standard_t(4, shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        for name, shape in shapes.items()
    }
