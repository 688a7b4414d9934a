"""Makes the golden files of the newest format version: `python tests/golden/make_golden.py`.

Run it once for a new version, never for an old one: a file of an old version stays as it was written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

import tersor
from tersor.checkpoint import open_checkpoint
from tersor.codec.container import VERSION
from tersor.encode import encode
from tersor.plan import make_plan
from tersor.representations import made

HERE = Path(__file__).parent


def checkpoint() -> dict[str, torch.Tensor]:
    """Tensors of many kinds, the same on every machine: NumPy promises the stream of Philox."""
    random = np.random.Generator(np.random.Philox(20261122))

    def values(*shape: int) -> torch.Tensor:
        uniform = random.integers(-1000, 1001, size=shape)
        return torch.from_numpy((uniform.astype(np.float32) / np.float32(1024)) ** 3)

    tied = values(40, 16)
    return {
        "conv.weight": values(24, 8, 3, 3),
        "conv.running": values(24).abs(),
        "conv.steps": torch.tensor(12345),
        "depthwise.weight": values(600, 1, 3, 3).to(torch.float16),
        "embedding": tied,
        "head": tied,
        "experts": values(3, 10, 12).to(torch.bfloat16),
        "long": values(4500).double(),
        "mask": values(33) > 0,
        "empty": torch.zeros(0, 4),
    }


def wide() -> dict[str, torch.Tensor]:
    """What small networks do not reach: a basis, several pieces and chunks, large symbols, large kept tensors."""
    random = np.random.Generator(np.random.Philox(7))
    plain = random.integers(-1000, 1001, size=(48, 40, 9)).astype(np.float32) / 1024
    smooth = plain + np.roll(plain, 1, axis=2) + np.roll(plain, 3, axis=2)
    smooth[0, 0, 0] = 4000.0
    sparse = np.zeros((700, 1000), dtype=np.float32)
    sparse[::7, ::11] = random.integers(-3, 4, size=sparse[::7, ::11].shape)
    return {
        "conv": torch.from_numpy(smooth).reshape(48, 40, 3, 3),
        "sparse": torch.from_numpy(sparse),
        "narrow": torch.from_numpy(plain.reshape(-1, 5)[:777]),
        "half": torch.from_numpy(plain.reshape(-1, 8)[:64] * 64000).half(),
        "counter": torch.arange(200_000) // 1000,
        "flags": torch.zeros(40, dtype=torch.uint8),
        "more": torch.ones(3, 3, dtype=torch.uint8),
        "none": torch.zeros(0, dtype=torch.int16),
    }


def pruned() -> dict[str, torch.Tensor]:
    """Masks of all kinds of blocks and effects, and none: dead channels, N of M, few ones, nothing or all left."""
    random = np.random.Generator(np.random.Philox(99))

    def values(*shape: int) -> np.ndarray:
        return (random.integers(-1000, 1001, size=shape).astype(np.float32) / np.float32(1024)) ** 3

    def thinned(array: np.ndarray, percent: int) -> np.ndarray:
        return np.where(random.integers(0, 100, size=array.shape) < percent, array, np.float32(0))

    conv = thinned(values(24, 16, 3, 3), 60)
    conv[::3], conv[:, 5] = 0, 0
    kernels = values(20, 24, 3, 3) * (random.integers(0, 3, size=(20, 24, 1, 1)) == 0)
    inputs = values(16, 3, 3, 16)
    inputs[..., ::2] *= random.integers(0, 2, size=(16, 3, 3, 8))
    inputs[..., 1::2] *= inputs[..., ::2] == 0
    matrix = values(60, 64).reshape(-1, 4)
    np.put_along_axis(matrix, np.argsort(np.abs(matrix), axis=1)[:, :2], 0, axis=1)
    tied = torch.from_numpy(thinned(values(50, 30), 20)).to(torch.bfloat16)
    return {
        "conv": torch.from_numpy(conv),
        "kernels": torch.from_numpy(kernels.astype(np.float32)),
        "inputs": torch.from_numpy(np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))),
        "matrix": torch.from_numpy(matrix.reshape(60, 64)),
        "long": torch.from_numpy(thinned(values(5000), 3)).double(),
        "experts": torch.from_numpy(thinned(values(3, 20, 12), 50)).half(),
        "embedding": tied,
        "head": tied,
        "gone": torch.zeros(40, 30),
        "dense": torch.from_numpy(values(30, 20) + np.float32(2)),
        "steps": torch.tensor(3),
    }


def pruned_wide() -> dict[str, torch.Tensor]:
    """Survivors in several rows and chunks."""
    random = np.random.Generator(np.random.Philox(5))
    state = {}
    for name, rows in {"first": 300, "second": 290, "third": 40}.items():
        values = 2 * random.integers(0, 2, size=(rows, 500)).astype(np.float32) - 1
        values[:, random.integers(0, 500, size=300)] = 0
        state[name] = torch.from_numpy(values)
    return state


def few() -> dict[str, torch.Tensor]:
    """Few values, so that each code of symbols is the smallest for some tensor."""
    random = np.random.Generator(np.random.Philox(11))
    dead = random.integers(-3, 4, size=(64, 96))
    dead[::2] = 0
    return {
        "even": torch.from_numpy(random.integers(1, 9, size=(40, 80)).astype(np.float32)),
        "skewed": torch.from_numpy(np.minimum(random.geometric(0.4, size=(60, 80)), 12).astype(np.float32)),
        "dead": torch.from_numpy(dead.astype(np.float32)),
        "one": torch.full((20, 20), 0.3),
        "tiny": torch.from_numpy(random.integers(0, 2, size=(16, 16)).astype(np.float32)),
        "rare": torch.from_numpy((random.integers(0, 60, size=(16, 30)) == 0).astype(np.float32)),
    }


RULES = {
    "identity": made.identity(5, 2),
    "gaussian": made.gaussian(7, 0.1),
    "cosine": made.cosines(2, (3, 3)),
    "regression": made.squared_exponential(9, 2.0, 0.1, 1, (8, 8), 2),
}
_SHAPES = {"identity": (8, 30), "gaussian": (16, 4, 3, 3), "cosine": (6, 2, 3, 3), "regression": (20, 64)}


def rules() -> dict[str, torch.Tensor]:
    """What rules make, and a tensor that is coded."""
    found = {name: torch.from_numpy(made.make(rule, _SHAPES[name])) for name, rule in RULES.items()}
    return {**found, "w": checkpoint()["conv.weight"]}


Made = tuple[Callable[[], dict[str, torch.Tensor]], tersor.Recipe]
RECIPES: dict[int, dict[str, Made]] = {
    1: {
        "lattice": (checkpoint, tersor.Recipe(bpp=3)),
        "lattice-coarse": (checkpoint, tersor.Recipe(bpp=1.6, effort="best", keep="bf16", scales="row")),
        "additive": (checkpoint, tersor.Recipe(bpp=4, scheme="3x16d4", effort="draft")),
        "wide": (wide, tersor.Recipe(size=24_000)),
        "wide-codes": (wide, tersor.Recipe(size=30_000, scheme="2x64d6+lattice", effort="draft")),
        "both": (checkpoint, tersor.Recipe(bpp=4, scheme="2x16d3+lattice", effort="draft", scales="tensor")),
    },
    2: {
        "masks": (pruned, tersor.Recipe(size=9_000, sparsity="keep")),
        "symbols": (pruned, tersor.Recipe(size=3_000, sparsity="keep", scales="row")),
        "codes": (pruned, tersor.Recipe(size=3_800, scheme="2x16d4", effort="draft")),
        "both": (pruned, tersor.Recipe(size=8_000, scheme="2x16d3+lattice", effort="draft", scales="tensor")),
        "wide": (pruned_wide, tersor.Recipe(size=30_000, scheme="1x4d2", effort="draft")),
    },
    3: {
        "integers": (checkpoint, tersor.Recipe(scheme="int4/8+zero")),
        "integers-pruned": (pruned, tersor.Recipe(scheme="int8/tensor")),
        "shared": (few, tersor.Recipe(scheme="shared16/entropy", groups="tensor")),
        "half": (checkpoint, tersor.Recipe(scheme="fp16")),
        "rules": (rules, tersor.Recipe(bpp=4)),
    },
}
"""What the files of each version were made from; the files of a version show what it was the first to hold."""


def digests(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """SHA-256 of each tensor's type, shape and bytes."""
    out = {}
    for name, tensor in tensors.items():
        raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        head = f"{tensor.dtype} {list(tensor.shape)} ".encode()
        out[name] = hashlib.sha256(head + raw).hexdigest()
    return out


def main() -> None:
    hashes = {}
    for name, (state, recipe) in RECIPES[VERSION].items():
        path = HERE / f"v{VERSION}-{name}.tersor"
        source = open_checkpoint(state())
        known = RULES if state is rules else {}
        archive = tersor.Archive(encode(source, make_plan(source, recipe, made=known), recipe)) if known else None
        archive = archive or tersor.compress(source, recipe)
        assert archive.version == VERSION
        archive.save(path, force=True)
        hashes[path.name] = digests(tersor.open(path).state_dict())
    (HERE / f"v{VERSION}.json").write_text(json.dumps(hashes, indent=1) + "\n")


if __name__ == "__main__":
    main()
