"""`tersor tune`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tersor.cli.distillation import add_tuning_options, tuning_keywords
from tersor.cli.shared import (
    FUNCTION,
    add_command,
    check_out,
    faults_of,
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
    from torch import nn

    from tersor.archive import Archive
    from tersor.cli.shared import Commands, Show
    from tersor.tune.distill import Status
    from tersor.tune.ranks import Ranks
    from tersor.tune.tunable import Tunable

_ABOUT = """example, with nets.py in the current folder:
  tersor tune model.tersor tuned.tersor --model nets:resnet --data nets:batches --steps 2000 --evaluate nets:accuracy

nets.py:
  def resnet(): ...             returns the original network with its original weights: it is the teacher
  def batches(): ...            yields batches: a tensor, a dict of arguments, or a tuple; with --labelled its last is
                                the labels; labels are not needed
  def accuracy(network): ...    returns a number, higher for better, in any unit
The file keeps its size, give or take a few bytes. A long run is safe with --checkpoint run.pt, and --resume goes on.
With torchrun --nproc-per-node N -m tersor tune ..., a step learns from N batches, one for each process.
"""


def add_to(commands: Commands) -> None:
    """The command and its options."""
    text = "tune an archive on data, so that the network answers as the original does"
    sub = add_command(commands, "tune", _run, text, _ABOUT)
    sub.add_argument("source", metavar="IN", help="an archive")
    sub.add_argument("out", metavar="OUT", help="the archive to write")
    sub.add_argument("--model", required=True, metavar="FUNCTION", help=f"returns the original network ({FUNCTION})")
    sub.add_argument("--evaluate", metavar="FUNCTION", help="gives the score of a network, higher for better")
    sub.add_argument(
        "--held-out", metavar="FUNCTION", help="batches not trained on; the state that is best there is kept"
    )
    sub.add_argument("--importance", metavar="FILE", help="weight of each element's error where codes move")
    add_tuning_options(sub, required=True)
    sub.add_argument("--checkpoint", metavar="FILE", help="save the run here at every check")
    sub.add_argument("--resume", action="store_true", help="go on from the checkpoint, where there is one")
    sub.add_argument("--seed", type=int, default=0, help="of everything random, the data's order included")
    sub.add_argument("--force", action="store_true", help="overwrite OUT if it exists")


def _run(options: argparse.Namespace) -> None:
    if options.resume and not options.checkpoint:
        raise usage_error("tune: --resume needs the file to go on from: --checkpoint FILE")
    check_out(options.source, options.out, options.force)
    from tersor.tune.ranks import started

    with started() as ranks:
        _tune(options, ranks)


def _tune(options: argparse.Namespace, ranks: Ranks) -> None:
    from tersor.api import open as open_archive
    from tersor.tune.tunable import tunable
    from tersor.user.calls import copied, scored

    archive = open_archive(options.source)
    data = load_function(options.data)
    held_out = load_function(options.held_out) if options.held_out else None
    evaluate = load_function(options.evaluate) if options.evaluate else None
    model = model_of(options.model)
    importance = read_importance(options.importance)
    seed_everything(options.seed)
    with faults_of(options.model):
        net = tunable(model, archive, moving=not options.fixed, importance=importance)
        before = None if evaluate is None else scored(evaluate, archive.apply_(copied(model)), options.source)
    if not options.json and ranks.rank == 0:
        for line in plan_lines(archive, net, options):
            note(line)
    result = tuned(net, model, data, options, held_out, evaluate, ranks)
    if ranks.rank > 0:
        return
    made = net.freeze()
    size = made.save(options.out, force=options.force)
    if options.json:
        print_json(
            {
                "source": options.source,
                "bytes": archive.size,
                "file": options.out,
                "size": size,
                "steps": options.steps,
                "step": result.step,
                "loss": result.loss,
                "held_out": result.held_out,
                "score_before": before,
                "score": result.score,
                "failed": result.failed,
                "stopped": result.stopped,
            }
        )
    else:
        scores = "" if result.score is None or before is None else f", score {before:.6g} -> {result.score:.6g}"
        held = "" if result.held_out is None else f", held out {result.held_out:.4g}"
        print(f"{options.out}: {archive.size:,} B -> {size:,} B, loss {result.loss:.4g}{held}{scores}")
        target = archive.recipe.budget(*archive.given)
        if size > max(target, archive.size):
            print(f"{size - target:,} B over the recipe's {target:,} B: kept tensors hold more than before tuning")
    if result.failed:
        raise TersorError(f"{result.stopped}; it is in {options.out}")
    if result.stopped:
        print(result.stopped)


def plan_lines(archive: Archive, net: Tunable, options: argparse.Namespace) -> list[str]:
    """What will be done, for a person."""
    index = archive.index
    coded = sum(map(len, index.coded))
    numbers = sum(p.numel() for p in net.parameters() if p.requires_grad)
    what = "codebooks, bases, scales and kept tensors" if options.fixed else "all weights, and their codes move"
    return [
        f"{archive.name}: {archive.size:,} B, {coded} tensors coded, {len(index.kept)} kept",
        f"  trained: {what}; {numbers:,} numbers, {options.steps:,} steps",
    ]


def tuned(
    net: Tunable,
    teacher: nn.Module,
    data: Callable[..., Any],
    options: argparse.Namespace,
    held_out: Callable[..., Any] | None,
    evaluate: Callable[[nn.Module], float] | None,
    ranks: Ranks,
) -> Any:
    """Distill with the options given, with a progress bar; interrupts and the user's own errors told in one line."""
    from tersor.tune.distill import distill
    from tersor.user.calls import scored

    def score(network: nn.Module) -> float:
        assert evaluate is not None
        net.refresh()  # then the network inside, of the class that the user's function knows, has the decoded weights
        return scored(evaluate, net.network, options.evaluate)

    try:
        with progress(quiet=ranks.rank > 0) as show, faults_of(f"{options.model} on {options.data}"):
            return distill(
                net,
                teacher,
                data,
                steps=options.steps,
                held_out=held_out,
                evaluate=None if evaluate is None else score,
                checkpoint=options.checkpoint,
                resume=options.resume,
                distributed=ranks.size > 1,
                progress=lambda status: show_status(show, status),
                **tuning_keywords(options),
            )
    except KeyboardInterrupt as stop:
        if options.checkpoint:
            raise KeyboardInterrupt(f"what {options.checkpoint} holds goes on with --resume") from stop
        raise


def show_status(show: Show, status: Status) -> None:
    """Loss and score beside the bar."""
    held_out = "" if status.held_out is None else f", held out {status.held_out:.4g}"
    score = "" if status.score is None else f", score {status.score:.6g}"
    show("tuning", status.step, status.steps, f"loss {status.loss:.4g}{held_out}{score}")
