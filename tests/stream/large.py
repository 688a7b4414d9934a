"""Checkpoints that count as large in tests, and what is made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tersor
from tersor.stream import blocks

State = dict[str, torch.Tensor]
RECIPE = tersor.Recipe(bpp=2.5)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Little is trained on, pieces are small: networks of a test have many chunks and blocks."""
    monkeypatch.setattr("tersor.encode.TRAINED", 1 << 14)
    monkeypatch.setattr("tersor.lattice.planes.PIECE", 1 << 12)
    monkeypatch.setattr("tersor.lattice.planes.CHUNK", 1 << 11)
    monkeypatch.setattr(blocks, "CHUNKS", 2)
    yield


def state(seed: int = 0) -> State:
    """Matrices, kernels, a long vector, a transposed half: 60,000 values to code, and some to keep."""
    g = torch.Generator().manual_seed(seed)

    def heavy(*shape: int) -> torch.Tensor:
        scale = torch.rand(shape[0], *[1] * (len(shape) - 1), generator=g) + 0.1
        return 0.05 * scale * torch.randn(shape, generator=g) / (torch.rand(shape, generator=g) + 0.3)

    return {
        "a": heavy(100, 200),
        "kernels": heavy(32, 40, 3, 3),
        "norm": torch.rand(32, generator=g),
        "odd": heavy(37, 53),
        "long": heavy(5000),
        "half": heavy(90, 110).to(torch.bfloat16),
        "steps": torch.tensor(7),
        "deep": heavy(64, 16, 3, 3),
    }


def shards(folder: Path, tensors: Mapping[str, torch.Tensor]) -> Path:
    """The same as a folder of two shards."""
    import json

    folder.mkdir(exist_ok=True)
    names = list(tensors)
    places = {}
    for i, part in enumerate((names[::2], names[1::2])):
        save_file({n: tensors[n].clone() for n in part}, folder / f"model-{i}.safetensors")
        places |= dict.fromkeys(part, f"model-{i}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {n: places[n] for n in names}}))
    return folder
