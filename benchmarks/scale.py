"""Large checkpoints: time and memory by size, processes, kills, sampling, decoding.

Cases are named `size`, `processes`, `kills`, `sampling`, `decode`; `--cases` chooses some. Synthetic checkpoints
(`benchmarks.synthetic`) are written once to the folder TERSOR_SCALE, or build/scale; they take 10 GB. Every run is a
process of its own, the command line as a user has it; nothing else should run meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import store, synthetic, weights
from benchmarks.environment import environment
from benchmarks.options import Options

log = logging.getLogger("benchmarks")

NAME = "scale"
CASES = ("size", "processes", "kills", "sampling", "decode")
BPP = 2.0
MEMORY = "2GB"
KILLS = 20
SAMPLED = ("mobilenetv2-weights", "mobilenetv1-075-imagenet")
"""The real networks that are large enough to be trained on a sample."""

CHILD = """
import sys
from pathlib import Path
from tersor.cli import main
main(sys.argv[1:])
lines = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")))
"""


def run(options: Options) -> None:
    """All cases, or those named; results go to scale.json after each."""
    folder = Path(os.environ.get("TERSOR_SCALE", store.ROOT / "build" / "scale"))
    folder.mkdir(parents=True, exist_ok=True)
    for case in options.cases or CASES:
        if case not in CASES:
            sys.exit(f"scale has no case {case!r}; there are: {', '.join(CASES)}")
        log.info("scale: %s", case)
        found = globals()[case](folder, options.quick)
        results = store.read(NAME)
        results[case] = {"environment": environment(), "quick": options.quick, "rows": found}
        store.write(NAME, results)


def size(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Seconds, peak memory and bytes of whole runs at default effort, by number of weights."""
    rows = []
    for name in list(synthetic.SIZES)[: 2 if quick else None]:
        source = synthetic.write(folder, name)
        found = compress(source, folder / "x.tersor", "--memory", MEMORY)
        rows.append({"checkpoint": name, **found, "seconds_per_million": found["seconds"] / found["weights"] * 1e6})
        log.info("scale: %s", rows[-1])
    return rows


def compress(source: Path, out: Path, *options: str, threads: int | None = None) -> dict[str, Any]:
    """One run of the command in a fresh process: wall seconds, peak bytes, what it says of itself."""
    out.unlink(missing_ok=True)
    command = [sys.executable, "-c", CHILD, "compress", str(source), str(out), "--bpp", str(BPP), "--json", *options]
    env = dict(os.environ) if threads is None else {**os.environ, "OMP_NUM_THREADS": str(threads)}
    started = time.perf_counter()
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env).stdout
    seconds = time.perf_counter() - started
    told, peak = output.splitlines()[-2:]
    made = json.loads(told)
    return {
        "weights": made["parameters"],
        "dense": made["bytes"],
        "file": made["size"],
        "seconds": round(seconds, 2),
        "peak": int(peak),
    }


WAYS = (("1 process, 1 thread", 1, 1), ("2 processes, 1 thread each", 2, 1), ("1 process, 2 threads", 1, 2))


def processes(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """One process with one thread, two such, one with two threads, taking turns, at two sizes; medians.

    `seconds` is what the command says of itself; `wall` has the start of torch, and of torchrun, as well.
    """
    sizes = (("50M", 1),) if quick else (("250M", 3), ("2000M", 1))
    return [row for name, times in sizes for row in _processes(folder, name, times)]


def _processes(folder: Path, checkpoint: str, times: int) -> list[dict[str, Any]]:
    source, out = synthetic.write(folder, checkpoint), folder / "x.tersor"
    found: dict[str, list[tuple[float, float]]] = {}
    digests = set()
    for _ in range(times):
        for name, count, threads in WAYS:
            out.unlink(missing_ok=True)
            launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
            command = [sys.executable, *(launcher if count > 1 else [])]
            command += ["-m", "tersor", "compress", str(source), str(out), "--bpp", str(BPP), "--json"]
            started = time.perf_counter()
            env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            told = subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout
            wall = time.perf_counter() - started
            found.setdefault(name, []).append((json.loads(told.splitlines()[-1])["seconds"], wall))
            digests.add(digest(out))
    rows = [
        {
            "checkpoint": checkpoint,
            "how": name,
            "seconds": statistics.median(s for s, _ in taken),
            "wall": statistics.median(w for _, w in taken),
        }
        for name, taken in found.items()
    ]
    log.info("scale: %s", rows)
    return [{**row, "same_bytes": len(digests) == 1} for row in rows]


def kills(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Runs killed (SIGKILL) at random moments of their time, several times each, and resumed until they end."""
    source, out = synthetic.write(folder, "50M"), folder / "killed.tersor"
    started = time.perf_counter()
    compress(source, out)
    whole, expected = time.perf_counter() - started, digest(out)
    moments, rows = random.Random(0), []
    for i in range(3 if quick else KILLS):
        out.unlink(missing_ok=True)
        shutil.rmtree(f"{out}.work", ignore_errors=True)
        at = moments.uniform(0.1, whole)
        command = [sys.executable, "-m", "tersor", "compress", str(source), str(out), "--bpp", str(BPP)]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(at)
        child.send_signal(signal.SIGKILL)
        child.wait()
        finished = len(list(Path(f"{out}.work").glob("*"))) if not out.exists() else -1
        if not out.exists():
            subprocess.run([*command, "--resume"], check=True, stdout=subprocess.DEVNULL)
        rows.append({"at": round(at, 2), "pieces": finished, "same": digest(out) == expected})
        log.info("scale: kill %d %s", i, rows[-1])
    return rows


def sampling(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Error of training on a sample over that of training on everything, in dB at equal bytes."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        sources = [("synthetic 50M", synthetic.write(folder, "50M"))]
        for name in SAMPLED[: 1 if quick else None]:
            sources.append((name, Path(place) / f"{name}.safetensors"))
            _save(weights.load(name), sources[-1][1])
        for name, path in sources:
            for bpp in (2.0,) if quick else (1.0, 2.0, 3.0):
                for scheme in ("auto",) if bpp != 2 or name.startswith("synthetic") else ("auto", "additive"):
                    found = _sampled(path, bpp, scheme)
                    rows.append({"checkpoint": name, "bpp": bpp, "scheme": scheme, **found})
                    log.info("scale: %s", rows[-1])
    return rows


def _save(values: weights.Weights, path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(value) for name, value in values.items()}, path)


def _sampled(path: Path, bpp: float, scheme: str) -> dict[str, Any]:
    import tersor
    from tersor import encode
    from tersor.checkpoint import open_checkpoint
    from tersor.stream.sample import size_of

    checkpoint = open_checkpoint(path)
    before = encode.TRAINED
    try:
        sampled = tersor.compress(checkpoint, tersor.Recipe(bpp=bpp, scheme=scheme))
        encode.TRAINED = 1 << 62
        whole = tersor.compress(checkpoint, tersor.Recipe(size=int(sampled.size / 0.995), scheme=scheme))
    finally:
        encode.TRAINED = before
    errors, energy = [0.0, 0.0], 0.0
    for entry in checkpoint.entries:
        original = checkpoint.read(entry.name).double()
        energy += float(original.square().sum())
        for i, archive in enumerate((sampled, whole)):
            errors[i] += float((archive[entry.name].double() - original).square().sum())
    decibels = [10 * np.log10(energy / error) for error in errors]
    bits = 8 * (whole.size - sampled.size) / checkpoint.parameters
    return {
        "trained": size_of(checkpoint.parameters, scheme == "additive"),
        "weights": checkpoint.parameters,
        "sample_db": decibels[0],
        "whole_db": decibels[1],
        "sample_bytes": sampled.size,
        "whole_bytes": whole.size,
        "loss_db": decibels[1] - decibels[0] - 20 * np.log10(2) * bits,
    }


def decode(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Every tensor of an archive into memory, one after the other, against reading and copying the dense checkpoint."""
    import tersor
    from tersor.checkpoint import open_checkpoint

    source = synthetic.write(folder, "50M" if quick else "2000M")
    out = folder / "x.tersor"
    made = compress(source, out, "--memory", MEMORY)
    rows = []
    for cold in (True, False):
        for path in (*source.iterdir(), out):
            _forget(path) if cold else _warm(path)
        started = time.perf_counter()
        for _, tensor in tersor.open(out).tensors():
            del tensor
        decoding = time.perf_counter() - started
        checkpoint = open_checkpoint(source)
        started = time.perf_counter()
        for entry in checkpoint.entries:
            checkpoint.read(entry.name).clone()
        reading = time.perf_counter() - started
        started = time.perf_counter()
        archive = tersor.open(out)
        opening = time.perf_counter() - started
        name = max(archive, key=lambda n: -next(e.numel for e in archive.entries if e.name == n))
        started = time.perf_counter()
        archive[name]
        rows.append(
            {
                "cold": cold,
                "weights": made["weights"],
                "decode_s": decoding,
                "dense_s": reading,
                "relative": reading / decoding,
                "open_s": opening,
                "smallest_tensor_s": time.perf_counter() - started,
            }
        )
        log.info("scale: %s", rows[-1])
    return rows


def _forget(path: Path) -> None:
    """Let the system drop what it has cached of a file."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _warm(path: Path) -> None:
    with open(path, "rb") as file:
        while file.read(1 << 24):
            pass


def digest(path: Path) -> str:
    """Of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if sys.version_info >= (3, 11) else str(file.read())
