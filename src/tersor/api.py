"""The calls users start from: `compress` and `open`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tersor.archive import Archive
from tersor.checkpoint import Checkpoint, count_zeros, open_checkpoint
from tersor.errors import TargetError, TersorError
from tersor.plan import Plan, countable, make_plan
from tersor.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from torch import nn


Progress = Callable[[str, int, int], None]
_ATTEMPTS = 5


def dry_run(source: nn.Module | Mapping[str, Any] | str | os.PathLike[str] | Checkpoint, recipe: Recipe) -> Plan:
    """What `compress` would do, tensor by tensor, without doing it; counts zeros, unless the recipe ignores them.

    Args:
        source: as for `compress`.
        recipe: the target and how to get there.

    Raises:
        TersorError: the source cannot be read, or the recipe does not fit it.
    """
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    return make_plan(checkpoint, recipe, zeros=count_zeros(checkpoint, countable(checkpoint, recipe)))


def compress(
    source: nn.Module | Mapping[str, Any] | str | os.PathLike[str] | Checkpoint,
    recipe: Recipe,
    *,
    importance: Mapping[str, torch.Tensor] | None = None,
    progress: Progress | None = None,
) -> Archive:
    """Compress a checkpoint to the recipe's target.

    Args:
        source: a module, a state dict, or a path to .safetensors, a sharded folder, or .pt/.pth/.th.
        recipe: the target and how to get there.
        importance: weight of a squared error, element by element, non-negative; by tensor name. Only ratios
            matter; tensors not named weigh as much as the average.
        progress: called with a stage's name, steps done and steps expected.

    Returns:
        The archive, in memory; `save` writes it.

    Raises:
        TersorError: the source cannot be read or holds NaN or infinity; the target cannot be met; `importance` does not
            fit.
    """
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    if importance is not None:
        unknown = sorted(set(importance) - {e.name for e in checkpoint.entries})
        if unknown:
            raise TersorError(f"importance names tensors that {checkpoint.source} lacks: {', '.join(unknown[:10])}")
    zeros = count_zeros(checkpoint, countable(checkpoint, recipe))
    if recipe.scheme == "additive":
        return Archive(_additive(checkpoint, recipe, zeros, importance, progress))
    from tersor.encode import encode

    return Archive(encode(checkpoint, make_plan(checkpoint, recipe, zeros=zeros), recipe, importance, progress))


def _additive(
    checkpoint: Checkpoint,
    recipe: Recipe,
    zeros: Mapping[str, int],
    importance: Mapping[str, torch.Tensor] | None,
    progress: Progress | None,
) -> bytes:
    """Encode with codebooks as large as the target wants: too few leave bytes unused, too many do not fit."""
    from tersor.encode import NEARLY, encode

    stretch, best = 1.0, b""
    refusal: TargetError | None = None
    for _ in range(_ATTEMPTS):
        plan = make_plan(checkpoint, recipe, stretch, zeros)
        try:
            data = encode(checkpoint, plan, recipe, importance, progress)
        except TargetError as error:
            if best:
                break
            refusal, stretch = error, stretch / 2
            continue
        best = max(best, data, key=len)
        if len(best) >= NEARLY * plan.budget or refusal is not None:
            break
        stretch *= 1.5
    if refusal is not None and not best:
        raise refusal
    return best


def open(path: str | os.PathLike[str]) -> Archive:
    """Open an archive; reads its index only.

    Raises:
        ArchiveError: missing, damaged, truncated, or of a newer version.
    """
    return Archive(os.fspath(path))
