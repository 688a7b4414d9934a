"""One candidate: made at a ratio, tuned, and judged by the user's own function."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tersor.api import Progress, compress
from tersor.archive import Archive
from tersor.checkpoint import Checkpoint
from tersor.checkpoint.fingerprint import of_bytes
from tersor.errors import TargetError, TersorError
from tersor.recipe import Recipe
from tersor.search.trial import Trial, is_feasible
from tersor.user.calls import copied, named, scored

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Judge:
    """All that a candidate depends on besides its ratio; the model itself is never given away, only copies of it."""

    model: nn.Module
    checkpoint: Checkpoint
    evaluate: Callable[[nn.Module], float]
    recipe: Mapping[str, Any]
    tune: Callable[[Archive, nn.Module], Archive] | None
    importance: Mapping[str, torch.Tensor] | None
    max_drop: float

    def baseline(self) -> float:
        """The score of the original network."""
        return scored(self.evaluate, copied(self.model), "the original model")

    def trial(self, asked: float, baseline: float, number: int, progress: Progress | None) -> tuple[Trial, bytes]:
        """Make and judge the candidate of a ratio; with the bytes of its file, or none where there can be no file.

        Raises:
            TersorError: a function of the user's raised or gave nonsense; names the trial.
        """
        started, where = time.perf_counter(), f"trial {number} (ratio {asked:.4g})"
        recipe = Recipe.from_dict({**self.recipe, "ratio": asked})
        try:
            archive = compress(self.checkpoint, recipe, importance=self.importance, progress=progress)
            if self.tune is not None:
                with named(where, "tune"):
                    archive = self.tune(archive, copied(self.model))
        except TargetError as error:
            seconds = round(time.perf_counter() - started, 2)
            return Trial(asked, None, None, None, None, False, seconds, note=str(error)), b""
        if not isinstance(archive, Archive):
            raise TersorError(f"{where}: tune returned a {type(archive).__name__}; return an archive")
        data = archive.to_bytes()
        score = scored(self.evaluate, archive.apply_(copied(self.model)), where)
        trial = Trial(
            asked=asked,
            bytes=len(data),
            ratio=round(self.checkpoint.nbytes / len(data), 4),
            score=score,
            drop=baseline - score,
            feasible=is_feasible(score, baseline, self.max_drop),
            seconds=round(time.perf_counter() - started, 2),
            digest=of_bytes(data),
        )
        return trial, data
