"""`tersor search`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tersor.cli.distillation import add_tuning_options, tuning_keywords
from tersor.cli.recipes import add_recipe_options, recipe_fields
from tersor.cli.shared import (
    FUNCTION,
    add_command,
    model_of,
    note,
    print_json,
    progress,
    read_importance,
    seed_everything,
    usage_error,
)
from tersor.errors import TersorError
from tersor.user.loader import load_function

if TYPE_CHECKING:
    import torch
    from torch import nn

    from tersor.archive import Archive
    from tersor.cli.shared import Commands, Show
    from tersor.search import SearchResult, Trial

_ABOUT = """examples, with nets.py in the current folder:
  tersor search best.tersor --model nets:resnet --evaluate nets:accuracy --max-drop 0.5
  tersor search best.tersor --model nets:resnet --evaluate nets:accuracy --max-drop 0.5 --data nets:batches --steps 2000

nets.py:
  def resnet(): ...             returns the trained network
  def accuracy(network): ...    returns its score, higher for better; --max-drop is in the unit of these scores: 0.5 is
                                half a point if they are in percent, but 50 points if they are from 0 to 1. Where lower
                                is better (a perplexity), return its negative
  def batches(): ...            yields batches to tune on, as for `tersor tune`

OUT is the best file so far, from the first trial on: the smallest that is within the drop, or else the one of the
highest score. OUT.search.json holds all trials, OUT.search.svg is their chart. --resume goes on after an interrupt, or
with more --trials. Exit code 1 if no trial was within the drop; the nearest is kept.
"""


def add_to(commands: Commands) -> None:
    """The command and its options."""
    text = "find the smallest file that loses at most so much accuracy"
    sub = add_command(commands, "search", _run, text, _ABOUT)
    sub.add_argument("out", metavar="OUT", help="the archive to write")
    sub.add_argument("--model", required=True, metavar="FUNCTION", help=f"returns the trained network ({FUNCTION})")
    sub.add_argument(
        "--evaluate", required=True, metavar="FUNCTION", help="gives the score of a network, higher for better"
    )
    sub.add_argument(
        "--max-drop", required=True, type=float, metavar="F", help="the largest loss of score, in the score's unit"
    )
    how = sub.add_argument_group("how it is searched")
    how.add_argument(
        "--ratios",
        nargs=2,
        type=float,
        default=(2.0, 64.0),
        metavar=("LOW", "HIGH"),
        help="the least compression wanted, and one that is probably too much (2 64)",
    )
    how.add_argument("--trials", type=int, default=10, metavar="N", help="candidates in all (10)")
    how.add_argument("--tolerance", type=float, default=0.03, metavar="F", help="how exactly bytes are found (0.03)")
    how.add_argument("--baseline", type=float, metavar="F", help="the original's score, where it is known")
    add_recipe_options(sub)
    add_tuning_options(sub, required=False)
    sub.add_argument("--resume", action="store_true", help="go on with an earlier search, where there is one")
    sub.add_argument("--force", action="store_true", help="overwrite OUT, and an earlier search")


def _run(options: argparse.Namespace) -> None:
    if (options.data is None) != (options.steps is None):
        raise usage_error("search: to tune every candidate, give both --data and --steps")
    keywords = tuning_keywords(options)
    if options.data is None and (keywords or options.fixed):
        name = next(iter(keywords), "fixed").replace("_", "-")
        raise usage_error(f"search: --{name} says how to tune; give --data and --steps, or leave it out")
    fields = recipe_fields(options)
    evaluate = load_function(options.evaluate)
    data = load_function(options.data) if options.data else None
    model = model_of(options.model)
    importance = read_importance(options.importance)
    from tersor.search import search

    count = 0

    def judged(trial: Trial) -> None:
        nonlocal count
        count += 1
        (note if options.json else print)(trial_line(trial))

    try:
        with progress() as show:
            result = search(
                model,
                evaluate,
                max_drop=options.max_drop,
                out=options.out,
                recipe=fields,
                tune=None if data is None else _tuning(options, data, importance, show),
                importance=importance,
                ratios=tuple(options.ratios),
                tolerance=options.tolerance,
                trials=options.trials,
                baseline=options.baseline,
                settings=_settings(options, keywords),
                resume=options.resume,
                force=options.force,
                progress=show,
                judged=judged,
            )
    except KeyboardInterrupt as stop:
        kept = f"{count} trials judged in this run are kept, --resume goes on"
        raise KeyboardInterrupt(kept) from stop
    _tell(result, options)


def _settings(options: argparse.Namespace, keywords: dict[str, Any]) -> dict[str, Any]:
    """What the scores depend on besides the recipe: a search with other functions is another one."""
    chosen = {"model function": options.model, "evaluate": options.evaluate, "data": options.data}
    return {**chosen, "steps": options.steps, "fixed": options.fixed, **keywords}


def _tuning(
    options: argparse.Namespace, data: Callable[..., Any], importance: dict[str, torch.Tensor] | None, show: Show
) -> Callable[[Archive, nn.Module], Archive]:
    """Distillation of one candidate; the same for each, whatever came before it."""
    from tersor.cli.tune import show_status
    from tersor.tune.distill import distill
    from tersor.tune.tunable import tunable

    def tune(archive: Archive, model: nn.Module) -> Archive:
        if not archive.index.groups:
            return archive  # everything is exact
        seed_everything(options.seed or 0)
        net = tunable(model, archive, moving=not options.fixed, importance=importance)
        result = distill(
            net,
            model,
            data,
            steps=options.steps,
            progress=lambda status: show_status(show, status),
            **tuning_keywords(options),
        )
        if result.stopped:
            print(f"tersor: {result.stopped}", file=sys.stderr)
        return net.freeze()

    return tune


def trial_line(trial: Trial) -> str:
    """A trial for a person."""
    if trial.score is None:
        return f"ratio {trial.asked:.2f}: {trial.note}"
    verdict = "within" if trial.feasible else "too much"
    return f"ratio {trial.ratio:.2f}: {trial.bytes:,} B, score {trial.score:.6g}, drop {trial.drop:.4g} ({verdict})"


def _tell(result: SearchResult, options: argparse.Namespace) -> None:
    drop = result.baseline - result.score
    size = result.archive.size
    ratio = next(t.ratio for t in result.trials if t.bytes == size and t.score == result.score)
    if options.json:
        from dataclasses import asdict

        found = {
            "file": result.path,
            "size": size,
            "ratio": ratio,
            "met": result.met,
            "score": result.score,
            "baseline": result.baseline,
            "drop": drop,
            "max_drop": options.max_drop,
            "trials": [asdict(trial) for trial in result.trials],
        }
        print_json(found)
    if not result.met:
        raise TersorError(
            f"no file of ratio {options.ratios[0]:g} or more within a drop of {options.max_drop:g} in "
            f"{len(result.trials)} trials; the nearest, with a drop of {drop:.4g}, is {result.path}: allow more, lower "
            "--ratios, or tune with --data and --steps"
        )
    if not options.json:
        print(
            f"{result.path}: {size:,} B, {ratio:.2f}x, score {result.score:.6g} of {result.baseline:.6g}, "
            f"{len(result.trials)} trials; curve in {result.path}.search.svg"
        )
