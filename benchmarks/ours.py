"""tersor as a coder of the benchmarks: whole files on disk, through its public functions."""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path

import torch

import tersor
from benchmarks.points import Point, measured
from benchmarks.weights import Weights
from tersor.errors import TersorError

log = logging.getLogger("benchmarks")

TARGETS = (0.3, 0.5, 0.75, 1.0, 1.3, 1.6, 2.0, 2.5, 3.0, 4.0)
BEST_TARGETS = (0.5, 1.3)
ADDITIVE = "4x128d9"
ADDITIVE_WEIGHTS = 600_000  # searching additive codes takes half a minute a file here, minutes on larger checkpoints
ADDITIVE_TARGETS = (1.3,)

Refusal = dict[str, str | float]
"""A target that tersor said it cannot meet: `coder`, `target_bpp` and its own `reason`."""


def run(weights: Weights, quick: bool = False) -> tuple[list[Point], list[Refusal]]:
    """All targets as planned, then pure additive codes and effort best; second, what was refused."""
    effort = "draft" if quick else "default"
    jobs = [("tersor", "auto", effort, bpp) for bpp in (TARGETS[2::4] if quick else TARGETS)]
    small = sum(v.size for v in weights.values()) <= ADDITIVE_WEIGHTS
    if small:
        rates = ADDITIVE_TARGETS
        jobs += [(f"tersor-{ADDITIVE}", ADDITIVE, effort, bpp) for bpp in rates]
    if small and not quick:
        jobs += [("tersor-best", "auto", "best", bpp) for bpp in BEST_TARGETS]
    points: list[Point] = []
    refused: list[Refusal] = []
    for coder, scheme, effort, bpp in jobs:
        _attempt(points, refused, coder, weights, bpp, scheme, effort)
    return points, refused


def measure(weights: Weights, bpp: float, scheme: str, effort: str, coder: str = "tersor") -> Point:
    """Compress to a file of `bpp` bits per weight, open it again and take every tensor out.

    `encode_s` includes planning, search and writing the file; `decode_s` opening it and decoding all tensors. Raises
    `TersorError` when the target cannot be met.
    """
    state = {name: torch.from_numpy(value) for name, value in weights.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.tersor"
        start = time.perf_counter()
        nbytes = tersor.compress(state, tersor.Recipe(bpp=bpp, scheme=scheme, effort=effort)).save(path, force=True)
        encoded = time.perf_counter()
        decoded = tersor.open(path).state_dict()
        done = time.perf_counter()
    back = {name: tensor.numpy() for name, tensor in decoded.items()}
    setting = f"bpp {bpp:g}, scheme {scheme}, effort {effort}"
    point = measured(coder, setting, weights, back, nbytes, encoded - start, done - encoded)
    return {**point, "target_bpp": bpp}


def _attempt(
    points: list[Point], refused: list[Refusal], coder: str, weights: Weights, bpp: float, scheme: str, effort: str
) -> None:
    """Measure one file; a target that tersor refuses is a result too, and shown with its reason."""
    try:
        points.append(measure(weights, bpp, scheme, effort, coder))
    except TersorError as error:
        log.warning("%s at %g bpp: %s", coder, bpp, error)
        refused.append({"coder": coder, "target_bpp": bpp, "reason": str(error)})
