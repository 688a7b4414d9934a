"""What runs from codes: ONNX files by size, start-up and difference; memory of lazy networks; linear layers.

Cases: `onnx` (labelled networks and the .onnx file of ../shared/data, at two bits a weight, lattice and additive),
`lazy` (peak memory of a synthetic stack of layers, each run in a process of its own), `linear` (a 4096 x 4096 layer).
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from torch import nn

import tersor
from benchmarks import store
from benchmarks.environment import environment
from benchmarks.options import Options
from benchmarks.tasks import TASKS
from tersor.export.onnx_file import export_onnx
from tersor.export.pt2 import export_pt2

log = logging.getLogger("benchmarks")

NAME = "runtime"
CASES = ("onnx", "lazy", "linear")
SCHEMES = {"lattice": "auto", "additive": "2x256d8"}
BPP = 2.0
REPEATS = 25
GRAPHS = ("nanodet_m_320",)
WIDTH, DEPTH = 1024, 64


def run(options: Options) -> None:
    """The cases asked for, to runtime.json; others keep their results."""
    for case in options.cases or CASES:
        if case == "onnx":
            for name in options.checkpoints:
                _keep(case, {f"{name}, {label}": row for label, row in onnx_rows(name, options.quick).items()})
        else:
            _keep(case, {"lazy": lazy_rows, "linear": linear_rows}[case](options.quick))


def _keep(case: str, found: dict[str, Any]) -> None:
    """Add to what is stored."""
    results = store.read(NAME)
    results[case] = results.get(case, {}) | found
    store.write(NAME, results)


# ---------------------------------------------------------------------- ONNX
def onnx_rows(name: str, quick: bool) -> dict[str, dict[str, Any]]:
    """A row for each scheme; nothing for checkpoints that are weights alone."""
    if name not in TASKS and name not in GRAPHS:
        return {}
    out = {}
    for label, scheme in SCHEMES.items():
        effort = "draft" if quick else "default"
        recipe = tersor.Recipe(bpp=BPP, scheme=scheme, effort=effort)
        with tempfile.TemporaryDirectory() as folder:
            row = (_traced if name in TASKS else _given)(name, recipe, Path(folder))
        out[label] = {**row, "scheme": scheme, "bpp": BPP, "quick": quick, "environment": environment()}
        log.info("onnx, %s, %s: %.2fx, start %.2fx, off by %.1e", name, label, row["times_smaller"], row["start"],
                 row["difference"])  # fmt: skip
    return out


def _traced(name: str, recipe: tersor.Recipe, folder: Path) -> dict[str, Any]:
    """From torch."""
    task = TASKS[name]
    net = task.load()
    batch = next(iter(task.data(0)()))
    x = (batch[0] if isinstance(batch, (tuple, list)) else batch)[:1].contiguous()
    archive = tersor.compress(net, recipe)
    made = export_onnx(archive, folder / "codes.onnx", net, [x])
    dense = export_onnx(archive, folder / "dense.onnx", net, [x], form="dense")
    program = export_pt2(archive, folder / "net.pt2", net, [x])
    with torch.no_grad():
        want = archive.apply_(net)(x)
    wanted = (want[0] if isinstance(want, tuple) else want).numpy()
    return {**_compared(folder, x.numpy(), wanted), "archive": archive.size, "codes": made.codes, "onnx": made.size,
            "dense": dense.size, "pt2": program.size, "times_smaller": dense.size / made.size}  # fmt: skip


def _given(name: str, recipe: tersor.Recipe, folder: Path) -> dict[str, Any]:
    """From an .onnx file; the reference is ONNX Runtime on the same weights, dense."""
    source = store.SHARED / "data" / f"{name}.onnx"
    archive = tersor.compress(source, recipe)
    made = export_onnx(archive, folder / "codes.onnx", graph=source)
    dense = export_onnx(archive, folder / "dense.onnx", graph=source, form="dense")
    x = np.random.default_rng(0).normal(size=(1, 3, 320, 320)).astype(np.float32)
    session = _session(folder / "dense.onnx")
    wanted = session.run(None, {session.get_inputs()[0].name: x})[0]
    return {**_compared(folder, x, wanted), "archive": archive.size, "codes": made.codes, "onnx": made.size,
            "dense": dense.size, "times_smaller": dense.size / made.size}  # fmt: skip


def _compared(folder: Path, x: np.ndarray, wanted: np.ndarray) -> dict[str, Any]:
    """Seconds until the first answer, best of runs that take turns; the largest difference from the reference."""
    seconds = {"codes": np.inf, "dense": np.inf}
    found = None
    for _ in range(REPEATS):
        for form in seconds:
            started = time.perf_counter()
            session = _session(folder / f"{form}.onnx")
            answer = session.run(None, {session.get_inputs()[0].name: x})[0]
            seconds[form] = min(seconds[form], time.perf_counter() - started)
            found = answer if form == "codes" else found
    assert found is not None
    return {
        "start_codes": float(seconds["codes"]), "start_dense": float(seconds["dense"]),
        "start": float(seconds["codes"] / seconds["dense"]),
        "difference": float(np.abs(found - wanted).max()), "largest": float(np.abs(wanted).max()),
    }  # fmt: skip


def _session(path: Path) -> onnxruntime.InferenceSession:
    """As it comes, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options)


# ---------------------------------------------------------------------- memory
CHILD = """
import gc, json, sys
import torch
from pathlib import Path
import tersor
from benchmarks.runtime import stack

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))

path, hold, batch, depth = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(1)
with torch.no_grad():
    torch.nn.Linear(64, 64)(torch.randn(8, 64))
    x = torch.randn(batch, 1024)
    archive = tersor.open(path)
    archive["0.weight"]  # what decoding imports
    before = status("VmRSS")
    if hold == "loaded":
        net = archive.apply_(stack(depth))
    else:
        with torch.device("meta"):
            net = stack(depth)
        net = tersor.lazy(net, archive, hold=hold)
    gc.collect()
    loading, loaded = status("VmHWM") - before, status("VmRSS") - before
    Path("/proc/self/clear_refs").write_text("5")
    y = net(x)
    y = net(x)
    print(json.dumps({"loading": loading, "loaded": loaded, "peak": status("VmHWM") - before, "sum": float(y.sum())}))
"""


def stack(depth: int) -> nn.Module:
    """Linear layers, each small beside all of them."""
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(depth))).eval()


def lazy_rows(quick: bool) -> dict[str, Any]:
    """Peak memory above what the process had before the network, over the dense weights."""
    depth = 8 if quick else DEPTH
    torch.manual_seed(0)
    net = stack(depth)
    dense = sum(p.nbytes for p in net.parameters())
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stack.tersor"
        tersor.compress(net, tersor.Recipe(bpp=BPP, effort="draft"), out=path)
        for hold, batch in (("loaded", 16), ("codes", 16), ("codes", 1), ("file", 16)):
            command = [sys.executable, "-c", CHILD, str(path), hold, str(batch), str(depth)]
            told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found = json.loads(told.splitlines()[-1])
            row = {"hold": hold, "batch": batch, **found, "share": found["peak"] / dense}
            log.info("lazy, %s, batch %d: peak %.1f %% of dense", hold, batch, 100 * row["share"])
            rows.append(row)
    return {"rows": rows, "dense": dense, "layers": depth, "width": WIDTH, "quick": quick, "environment": environment()}


# ---------------------------------------------------------------------- linear layers
def linear_rows(quick: bool) -> dict[str, Any]:
    """Seconds of a layer at batch 1, dense and from codes, on one and two threads; turns over cold layers."""
    size, copies = (1024, 24) if quick else (4096, 3)
    torch.manual_seed(0)
    layers = [nn.Linear(size, size) for _ in range(copies)]
    x = torch.randn(1, size)
    rows = []
    for label, scheme in SCHEMES.items():
        nets = []
        for layer in layers:
            archive = tersor.compress(layer, tersor.Recipe(bpp=BPP, scheme=scheme, effort="draft"))
            nets.append(tersor.lazy(layer, archive))
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with torch.no_grad():
                dense = _best([lambda net=net: F.linear(x, net.weight, net.bias) for net in layers])
                codes = _best([lambda net=net: net(x) for net in nets])
            rows.append({"coding": label, "threads": threads, "dense": dense, "codes": codes, "faster": dense / codes})
            log.info(
                "linear, %s, %d threads: %.2f ms dense, %.2f ms from codes", label, threads, 1e3 * dense, 1e3 * codes
            )
    return {"rows": rows, "size": size, "quick": quick, "environment": environment()}


def _best(calls: list[Callable[[], torch.Tensor]]) -> float:
    """The least seconds of a call, in turns."""
    least = np.inf
    for _ in range(40):
        for call in calls:
            started = time.perf_counter()
            call()
            least = min(least, time.perf_counter() - started)
    return float(least)
