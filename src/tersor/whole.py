"""A checkpoint that is held in memory, from its recipe to the bytes of an archive."""

from __future__ import annotations

from collections.abc import Mapping

from tersor.checkpoint import Checkpoint, count_zeros
from tersor.encode import NEARLY, ROUNDS, assembled, encode, group_coder, keep_all, stretched
from tersor.plan import Plan, countable, make_plan
from tersor.recipe import Recipe
from tersor.representations.affine import Grid
from tersor.representations.control import Progress
from tersor.representations.made import Made
from tersor.scalar import check_made


def encode_whole(
    checkpoint: Checkpoint,
    recipe: Recipe,
    importance: Checkpoint | None = None,
    progress: Progress | None = None,
    device: str = "cpu",
    made: Mapping[str, Made] | None = None,
    grids: Mapping[str, Grid] | None = None,
) -> bytes:
    """A checkpoint held in memory, from its recipe to the bytes of an archive.

    Args:
        checkpoint: the tensors.
        recipe: the target and how to get there.
        importance: weights of errors by tensor name.
        progress: called with a stage's name, steps done and steps expected.
        device: where codes are searched.
        made: rules of tensors that follow from one.
        grids: of tensors that are on a grid of integers already.

    Raises:
        TersorError: as `encode`, and what `make_plan` raises.
    """
    zeros = count_zeros(checkpoint, countable(checkpoint, recipe))
    given = None if importance is None else {e.name: importance.read(e.name) for e in importance.entries}

    def attempt(stretch: float) -> bytes:
        plan = make_plan(checkpoint, recipe, stretch, zeros, made)
        return encode(checkpoint, plan, recipe, given, progress, device, grids)

    if recipe.scheme != "additive":
        return attempt(1.0)
    return stretched(attempt, len, NEARLY * recipe.budget(checkpoint.nbytes, checkpoint.parameters))


def encode_at(checkpoint: Checkpoint, plan: Plan, recipe: Recipe, step: float) -> bytes:
    """The bytes of an archive whose groups have this step, whatever its size: for comparisons at equal error."""
    check_made(checkpoint, plan)
    rest = keep_all(checkpoint, plan.kept, recipe)
    coders = [group_coder(checkpoint, plan, recipe, g, None) for g in range(len(plan.groups))]
    for coder in coders:
        for _ in range(ROUNDS[recipe.effort][0]):
            coder.at(step)
        coder.settle()
    return assembled(plan, recipe, rest, [c.finish() for c in coders])
