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
        tersor.compress(checkpoint(), recipe).save(path, force=True)
        hashes[path.name] = digests(tersor.open(path).state_dict())
    (HERE / f"v{VERSION}.json").write_text(json.dumps(hashes, indent=1) + "\n")


if __name__ == "__main__":
    main()
