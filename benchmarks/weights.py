"""The weights that every coder gets: float tensors with two dimensions or more of the checkpoints in ../shared/data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file

from benchmarks import store

Array = npt.NDArray[np.float32]
Weights = dict[str, Array]

DATA = store.SHARED / "data"
SINGLE_FILES = ("enet-camvid.pt", "nanodet_m_320.onnx")


class MissingData(Exception):
    """No checkpoints, or not the ones asked for."""


def checkpoints() -> dict[str, Path]:
    """Name to file of all checkpoints; raises `MissingData` when the folder is not there."""
    if not DATA.is_dir():
        raise MissingData(f"{DATA} is missing: the benchmarks need the checkpoints in it (see benchmarks/README.md)")
    paths = [*sorted(DATA.glob("*.safetensors")), *(DATA / name for name in SINGLE_FILES)]
    return {path.stem: path for path in paths}


def select(names: list[str] | None) -> tuple[str, ...]:
    """The checkpoints to run on: those named, or all; raises `MissingData` for a name that is not there."""
    known = checkpoints()
    for name in names or ():
        if name not in known:
            raise MissingData(f"no checkpoint called {name!r} in {DATA}; there are: {', '.join(known)}")
    return tuple(names or known)


def load(name: str) -> Weights:
    """The weights of one checkpoint as float32 arrays. Tied tensors are taken once, under their first name."""
    weights: Weights = {}
    seen: set[tuple[int, tuple[int, ...], tuple[int, ...]]] = set()
    for key, tensor in _tensors(checkpoints()[name]).items():
        place = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        if tensor.ndim >= 2 and tensor.is_floating_point() and tensor.numel() and place not in seen:
            seen.add(place)
            weights[key] = np.ascontiguousarray(tensor.float().numpy())
    return weights


def count(weights: Weights) -> int:
    """The number of weights."""
    return sum(v.size for v in weights.values())


def flat(weights: Weights) -> Array:
    """All weights in one row, in the order of the dict."""
    return np.concatenate([v.ravel() for v in weights.values()])


def vectors(weights: Weights, dim: int) -> Array:
    """All weights as rows of `dim`; every tensor starts a new row and its last row is filled with zeros."""
    rows = [np.pad(v.ravel(), (0, -v.size % dim)).reshape(-1, dim) for v in weights.values()]
    return np.concatenate(rows)


def unvectors(rows: Array, weights: Weights) -> Weights:
    """The inverse of `vectors`: rows back to the names and shapes of `weights`."""
    dim, start, back = rows.shape[1], 0, {}
    for key, value in weights.items():
        end = start + -(-value.size // dim)
        back[key] = rows[start:end].ravel()[: value.size].reshape(value.shape)
        start = end
    return back


def share_of_3x3(weights: Weights) -> float:
    """The part of the weights that sits in 3x3 kernels."""
    return sum(v.size for v in weights.values() if v.shape[2:] == (3, 3)) / count(weights)


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix == ".pt":
        return torch.load(path, map_location="cpu", weights_only=True)
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    return {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in graph.initializer}
