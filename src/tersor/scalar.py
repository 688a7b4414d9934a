"""Tensors whose weights are each one of few values, and tensors that are rules: from a checkpoint to sections."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tersor.archive import restore
from tersor.checkpoint import Checkpoint
from tersor.errors import TersorError
from tersor.plan import Plan, ScalarPlan
from tersor.recipe import Recipe
from tersor.representations import measures, scalars
from tersor.representations.affine import Grid
from tersor.representations.made import make
from tersor.representations.scalars import ScalarRecord
from tersor.representations.sharing import QUANTIZERS
from tersor.values import checked


def encode_scalars(
    checkpoint: Checkpoint,
    plan: ScalarPlan,
    recipe: Recipe,
    grids: Mapping[str, Grid],
    weights: Mapping[str, NDArray[np.float32]] | None,
) -> tuple[ScalarRecord, list[bytes], list[int]]:
    """Record, sections and errors (in half decibels) of a group of the plan.

    Args:
        checkpoint: the tensors.
        plan: which, and how.
        recipe: for the seed.
        grids: of tensors that are on one already.
        weights: importance by name, for shared values.
    """
    names = [checkpoint.entries[i].name for i in plan.tensors]
    arrays = [checked(checkpoint.source, name, checkpoint.read(name)) for name in names]
    if plan.bits:
        known = [grids.get(name) for name in names]
        record, sections, decoded = scalars.encode_integers(
            plan.tensors, arrays, plan.bits, plan.block, plan.zero, known
        )
    else:
        flat = np.concatenate([a.ravel() for a in arrays])
        mattering = None
        if weights is not None:
            one = np.ones((), dtype=np.float32)
            parts = [weights.get(n, np.broadcast_to(one, a.shape)) for n, a in zip(names, arrays, strict=True)]
            mattering = np.concatenate([part.ravel() for part in parts])
        shared = QUANTIZERS[plan.quantizer](flat, plan.size, seed=recipe.seed, weights=mattering)
        record, sections, decoded = scalars.encode_shared(plan.tensors, arrays, shared)
    errors = [_half(a, d) for a, d in zip(arrays, decoded, strict=True)]
    return record, sections, errors


def _half(array: NDArray[np.float32], decoded: NDArray[np.float32]) -> int:
    error, energy = measures.energy(array - decoded), measures.energy(array)
    return measures.half_decibels(error, energy)


def check_made(checkpoint: Checkpoint, plan: Plan) -> None:
    """Make sure that rules give the very tensors they stand for.

    Raises:
        TersorError: one does not; names the tensor.
    """
    import torch

    for i, made in plan.made:
        entry = checkpoint.entries[i]
        found = restore(torch.from_numpy(make(made, entry.shape)), entry.dtype)
        if not torch.equal(checkpoint.read(entry.name), found):
            raise TersorError(
                f"{checkpoint.source}: {entry.name} is not what its rule gives; leave the tensor as it is"
            )


def coded_shapes(plan: Plan) -> dict[str, tuple[int, ...]]:
    """Shapes of all coded tensors by name."""
    return {plan.entries[i].name: plan.entries[i].shape for members, _ in plan.coded for i in members}
