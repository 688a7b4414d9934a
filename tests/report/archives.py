"""Archives of every kind that a report tells of, small and quickly made."""

from __future__ import annotations

from functools import cache

import torch

import tersor
from networks import network
from tersor.checkpoint.fingerprint import of_bytes
from tersor.recipe import Recipe
from tersor.search.journal import Journal
from tersor.search.trial import Trial

KINDS = ("lattice", "additive", "both", "sparse", "int4", "shared16", "kept", "gpt")
SECTIONS = ("size", "bits", "error", "codebooks", "curve", "kept", "recipe", "load", "tensors")


def state(kind: str) -> dict[str, torch.Tensor]:
    """The checkpoint that an archive of this kind is made of."""
    g = torch.Generator().manual_seed(1)
    if kind == "gpt":
        return gpt(30)
    if kind in ("additive", "both"):
        return {f"layers.{k}.weight": torch.randn(64, 64, generator=g) * (k + 1) for k in range(6)} | {
            "layers.0.bias": torch.randn(64, generator=g)
        }
    if kind == "sparse":
        dense = {f"block.{k}.weight": torch.randn(48, 16, 3, 3, generator=g) for k in range(3)}
        return {name: t * (t.abs() > 1) for name, t in dense.items()} | {"gone.weight": torch.zeros(30, 20)}
    return network()


def gpt(blocks: int) -> dict[str, torch.Tensor]:
    """Hundreds of tensors with the names of a language model, in the order of a safetensors file; two are tied."""
    g = torch.Generator().manual_seed(2)
    found = {"transformer.wte.weight": torch.randn(90, 16, generator=g)}
    shapes = {
        "attn.c_attn.weight": (16, 48), "attn.c_attn.bias": (48,), "attn.c_proj.weight": (16, 16), "ln_1.weight": (16,),
        "mlp.c_fc.weight": (16, 64), "mlp.c_proj.weight": (64, 16),
    }  # fmt: skip
    for b in range(blocks):
        for name, shape in shapes.items():
            found[f"transformer.h.{b}.{name}"] = torch.randn(shape, generator=g) / (b + 1)
    found["lm_head.weight"] = found["transformer.wte.weight"]
    return {name: found[name] for name in sorted(found)}


_RECIPES = {
    "lattice": Recipe(ratio=8, effort="draft"),
    "additive": Recipe(ratio=9, scheme="4x64d8", effort="draft"),
    "both": Recipe(ratio=7, scheme="2x16d4+lattice", effort="draft"),
    "sparse": Recipe(ratio=10, effort="draft"),
    "int4": Recipe(scheme="int4/64"),
    "shared16": Recipe(scheme="shared16"),
    "kept": Recipe(ratio=1, exclude=("*",)),
    "gpt": Recipe(ratio=8, effort="draft"),
}


@cache
def archive_bytes(kind: str) -> bytes:
    """The archive of a kind, as bytes."""
    return tersor.compress(state(kind), _RECIPES[kind]).to_bytes()


def journal(data: bytes) -> bytes:
    """The record of a search whose best file is this one; one ratio could not be met, one score lies far below."""
    best = Trial(8.0, len(data), 8.0, 89.7, 0.3, True, 1.0, of_bytes(data))
    others = [
        Trial(2.0, 3 * len(data), 2.7, 90.0, 0.0, True, 1.0, "a"),
        Trial(12.0, len(data) * 2 // 3, 12.0, 88.9, 1.1, False, 1.0, "b"),
        Trial(40.0, len(data) // 5, 40.0, 12.0, 78.0, False, 1.0, "c"),
        Trial(99.0, None, None, None, None, False, 1.0, note="too small"),
    ]
    return Journal({}, 0.5, 90.0, (best, *others)).to_json()
