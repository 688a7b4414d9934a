from __future__ import annotations

import pytest
import torch

import tersor
from tersor.recipe import Recipe
from tersor.usage import describe, lines


def pruned(rows: int = 120) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    state = {"conv": torch.randn(rows, 16, 3, 3, generator=g), "fc": torch.randn(rows, 90, generator=g)}
    return {name: t * (t.abs() > 1) for name, t in state.items()} | {"gone": torch.zeros(30, 20)}


@pytest.mark.parametrize(
    ("recipe", "scheme", "masked"),
    [
        (Recipe(ratio=8), "sparse lattice", True),
        (Recipe(ratio=100, scales="row"), "sparse lattice / tensor scales", False),
        (Recipe(ratio=9, scheme="2x16d4", effort="draft"), "sparse 2x16d4", True),
        (Recipe(ratio=9, scheme="2x16d4+lattice", effort="draft"), "sparse 2x16d4+lattice", True),
    ],
    ids=str,
)
def test_sparsity_is_told(recipe: Recipe, scheme: str, masked: bool) -> None:
    state = pruned()
    archive = tersor.compress(state, recipe)
    found = describe(archive)
    values = archive.state_dict()
    assert [g["representation"] for g in found["groups"]] == [scheme]
    for tensor in found["tensors"]:
        zeros = int((values[tensor["name"]] == 0).sum())
        assert tensor["representation"] == scheme and tensor["zeros"] <= zeros
        assert tensor["zeros"] == zeros or "2x16d4" in scheme  # sums of codewords may be zero, and are not counted
        assert (tensor["mask_bits_per_weight"] is not None) is masked
    bits = sum(t["bytes"] for t in found["tensors"])
    assert 0.85 * archive.size - 400 < bits < archive.size
    text = "\n".join(lines(found))
    assert f"group 0: {scheme}, 3 tensors" in text and "% zeros" in text
    assert ("among the symbols" in text) is not masked


def test_dense_groups_tell_no_zeros() -> None:
    found = describe(tersor.compress(pruned(), Recipe(ratio=8, sparsity="ignore")))
    assert all("zeros" not in t for t in found["tensors"]) and "zeros" not in "\n".join(lines(found))
