"""Meeting a target in accuracy: bisection over bytes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import tersor
from tersor.api import Progress
from tersor.api import open as open_archive
from tersor.archive import Archive
from tersor.checkpoint import fingerprint, open_checkpoint
from tersor.errors import TersorError
from tersor.recipe import Recipe
from tersor.search.bracket import next_ratio
from tersor.search.journal import Journal
from tersor.search.judge import Judge
from tersor.search.shelf import Shelf
from tersor.search.trial import SearchResult, Trial, leader

if TYPE_CHECKING:
    import torch
    from torch import nn


def search(
    model: nn.Module,
    evaluate: Callable[[nn.Module], float],
    *,
    max_drop: float,
    out: str | os.PathLike[str],
    recipe: Mapping[str, Any] | None = None,
    tune: Callable[[Archive, nn.Module], Archive] | None = None,
    importance: Mapping[str, torch.Tensor] | None = None,
    ratios: tuple[float, float] = (2.0, 64.0),
    tolerance: float = 0.03,
    trials: int = 10,
    baseline: float | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    judged: Callable[[Trial], None] | None = None,
) -> SearchResult:
    """Find the smallest file whose score is at most `max_drop` below the original's.

    Each candidate is compressed to a ratio, tuned if `tune` is given, and judged; the ratio is bisected between what
    is feasible and what is not. Scores need not fall evenly with bytes. What is guaranteed: the file at `out` is the
    smallest of the feasible ones that were tried, and was judged as it is, decoded. Only if scores never rise as files
    shrink is it also, up to `tolerance`, the smallest that there is.

    At `out` is always the best file so far: the smallest feasible one or, until there is one, the one of the highest
    score. After each trial `out` + ".search.json" holds all of them, and `out` + ".search.svg" shows them.

    Args:
        model: the network; it stays as it is.
        evaluate: the score of a network, higher for better. It gets a copy of `model` with the decoded weights, in eval
            mode, on the same device. To be chosen by a score flatters it a little: judge the result on other data.
        max_drop: the largest loss of score, in the score's own unit (0.5 is half a point if scores are in percent).
        out: the archive to write.
        recipe: fields of a `Recipe`, without a target.
        tune: gets each candidate and a copy of the model before it is judged; returns the archive to judge. For example
            distillation.
        importance: as for `compress`.
        ratios: the least compression worth a file, and one that is probably too much. The search goes beyond the
            second where that is still feasible, never below the first.
        tolerance: the search is over when it knows the ratio this exactly.
        trials: the number of candidates in all, those of a resumed search included.
        baseline: the original's score where it is known; else it is measured.
        settings: whatever else the scores depend on, by name, as JSON values; recorded, and compared when resuming.
        resume: go on with the search at `out` where there is one. Its settings and the model's weights must be the
            same; `ratios`, `tolerance` and `trials` may differ.
        force: overwrite `out` and an earlier search.
        progress: called with a stage's name, steps done and steps expected.
        judged: called with each trial once it is on disk.

    Returns:
        The result. Where no trial was feasible, `met` is false and the nearest is at `out`.

    Raises:
        TersorError: files are in the way; `evaluate` or `tune` raised or gave nonsense (names the trial; earlier ones
            are kept); no file can be made at all; the settings of a resumed search differ.
    """
    fields = dict(recipe or {})
    _check(fields, max_drop, ratios, tolerance, trials, baseline)
    shelf = Shelf(out)
    shelf.check(resume=resume, force=force)
    checkpoint = open_checkpoint(model)
    judge = Judge(model, checkpoint, evaluate, fields, tune, importance, max_drop)
    depends = {
        "tersor": tersor.__version__,
        "model": fingerprint.of_checkpoint(checkpoint),
        "importance": None if importance is None else fingerprint.of_tensors(importance),
        "recipe": fields,
        "tuned": tune is not None,
        **(settings or {}),
    }
    journal = shelf.resume(depends, max_drop, baseline) if resume else None
    if journal is None:
        journal = Journal(depends, max_drop, judge.baseline() if baseline is None else baseline)
        shelf.clear()
        shelf.keep(journal)
    while len(journal.trials) < trials:
        asked = next_ratio([(t.asked, t.feasible) for t in journal.trials], ratios, tolerance)
        if asked is None:
            break
        number = len(journal.trials) + 1
        if progress is not None:
            progress("trials", number - 1, trials)
        trial, data = judge.trial(asked, journal.baseline, number, progress)
        journal = journal.plus(trial)
        shelf.keep(journal, data if leader(journal.trials) is trial else None)
        if judged is not None:
            judged(trial)
    return _result(shelf, journal)


def _result(shelf: Shelf, journal: Journal) -> SearchResult:
    best = leader(journal.trials)
    if best is None or best.score is None:
        raise TersorError(f"no file of these ratios can be made; give lower ones: {journal.trials[-1].note}")
    return SearchResult(open_archive(shelf.out), shelf.out, best.feasible, best.score, journal.baseline, journal.trials)


def _check(
    fields: dict[str, Any],
    max_drop: float,
    ratios: tuple[float, float],
    tolerance: float,
    trials: int,
    baseline: float | None,
) -> None:
    if given := [name for name in ("ratio", "size", "bpp") if fields.get(name) is not None]:
        raise TersorError(f"recipe: the search finds {given[0]} itself; leave it out")
    low, high = ratios
    if not 0 < low < high < math.inf:
        raise TersorError(f"ratios are {low:g} and {high:g}; give two numbers above 0, the lower first")
    if Recipe.from_dict({**fields, "ratio": low}).passes:
        raise TersorError("recipe: the search codes one network many times, and passes would make another each time; "
                          "leave them out")  # fmt: skip
    if not 0 <= max_drop < math.inf:
        raise TersorError(f"max_drop is {max_drop:g}; give the loss allowed, 0 or more, in the unit of the scores")
    if not 0 < tolerance < math.inf:
        raise TersorError(f"tolerance is {tolerance:g}; give a share above 0, like 0.03")
    if trials < 1:
        raise TersorError(f"trials is {trials}; allow 1 at least")
    if baseline is not None and not math.isfinite(baseline):
        raise TersorError(f"baseline is {baseline}; give the original's score")
