"""Makes the golden files of the current format version: `python tests/golden/make_golden.py`.

Run it once for a new version, never for an old one: a file of an old version stays as it was written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

import tersor
from tersor.codec.container import VERSION

HERE = Path(__file__).parent
RECIPES = {
    "lattice": tersor.Recipe(bpp=3),
    "lattice-coarse": tersor.Recipe(bpp=1.6, effort="best", keep="bf16", scales="row"),
    "additive": tersor.Recipe(bpp=4, scheme="3x16d4", effort="draft"),
    "wide": tersor.Recipe(size=24_000),
    "wide-codes": tersor.Recipe(size=30_000, scheme="2x64d6+lattice", effort="draft"),
    "both": tersor.Recipe(bpp=4, scheme="2x16d3+lattice", effort="draft", scales="tensor"),
}


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
    for name, recipe in RECIPES.items():
        path = HERE / f"v{VERSION}-{name}.tersor"
        tersor.compress(wide() if name.startswith("wide") else checkpoint(), recipe).save(path, force=True)
        hashes[path.name] = digests(tersor.open(path).state_dict())
    (HERE / f"v{VERSION}.json").write_text(json.dumps(hashes, indent=1) + "\n")


if __name__ == "__main__":
    main()
