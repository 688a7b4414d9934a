"""Archives of every kind of group, for whoever decodes in another way than a reader does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import tersor
from networks import network

GOLDEN = sorted((Path(__file__).parent.parent / "golden").glob("*.tersor"))
RECIPES = {
    "lattice": tersor.Recipe(bpp=3),
    "coarse": tersor.Recipe(bpp=1),
    "fine": tersor.Recipe(bpp=10),
    "additive": tersor.Recipe(bpp=3, scheme="additive"),
    "narrow": tersor.Recipe(bpp=4, scheme="2x32d2"),
    "both": tersor.Recipe(bpp=4, scheme="1x64d4+lattice"),
    "rows": tersor.Recipe(bpp=3, scales="row"),
    "int4": tersor.Recipe(scheme="int4/16+zero"),
    "int8": tersor.Recipe(scheme="int8"),
    "shared": tersor.Recipe(scheme="shared16"),
}


def state(zeros: float = 0.0) -> dict[str, torch.Tensor]:
    """A small network's tensors, a share of its kernels zero, one of them half precision, one tied."""
    made = network(width=24)
    g = torch.Generator().manual_seed(5)
    for name in ("conv.weight", "point.weight", "fc.weight"):
        made[name][torch.rand(made[name].shape, generator=g) < zeros] = 0
    made["halved.weight"] = made["fc.weight"][:16].half()
    made["tied.weight"] = made["fc.weight"]
    return made


def archives() -> Iterator[object]:
    """Parameters for pytest: golden files, and small networks by recipe."""
    for path in GOLDEN:
        yield pytest.param(lambda path=path: tersor.open(path), id=path.stem)
    for name, recipe in RECIPES.items():
        yield pytest.param(lambda recipe=recipe: tersor.compress(state(), recipe), id=name)
    for name in ("lattice", "coarse", "additive", "both"):
        yield pytest.param(lambda name=name: tersor.compress(state(0.8), RECIPES[name]), id=f"sparse-{name}")
