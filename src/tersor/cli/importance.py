"""`tersor importance`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tersor.cli.shared import (
    FUNCTION,
    add_command,
    check_out,
    faults_of,
    model_of,
    print_json,
    progress,
    seed_everything,
)
from tersor.errors import TersorError
from tersor.user.loader import load_function

if TYPE_CHECKING:
    from tersor.cli.shared import Commands

_ABOUT = """example, with nets.py in the current folder:
  tersor importance weights.safetensors --model nets:resnet --data nets:batches --batches 64
  tersor compress nets:resnet model.tersor --ratio 16 --importance weights.safetensors

nets.py:
  def resnet(): ...        returns the trained network
  def batches(): ...       yields batches: a tensor, a dict of arguments, or a tuple; with --labelled its last is the
                           labels
With torchrun --nproc-per-node N -m tersor importance ..., processes share the batches.
"""


def add_to(commands: Commands) -> None:
    """The command and its options."""
    text = "measure on data how much each weight's error matters, for `tersor compress --importance`"
    sub = add_command(commands, "importance", _run, text, _ABOUT)
    sub.add_argument("out", metavar="OUT", help="the .safetensors file to write")
    sub.add_argument("--model", required=True, metavar="FUNCTION", help=f"returns the trained network ({FUNCTION})")
    sub.add_argument("--data", required=True, metavar="FUNCTION", help="returns an iterable of batches")
    sub.add_argument(
        "--kind",
        default="fisher",
        help="fisher (default): how much the outputs change, compares all weights; activation: one forward pass, "
        "compares the weights of one layer",
    )
    sub.add_argument("--batches", type=int, metavar="N", help="of the data, at most; all by default")
    sub.add_argument("--labelled", action="store_true", help="batches end with labels, which are left out")
    sub.add_argument("--seed", type=int, default=0, help="of everything random")
    sub.add_argument("--force", action="store_true", help="overwrite OUT if it exists")


def _run(options: argparse.Namespace) -> None:
    if not options.out.endswith(".safetensors"):
        raise TersorError(f"{options.out}: importance is written as .safetensors; give a name that ends so")
    check_out(None, options.out, options.force)
    data = load_function(options.data)
    model = model_of(options.model)
    from tersor.checkpoint import save_safetensors
    from tersor.tune.importance import importance
    from tersor.tune.ranks import started

    seed_everything(options.seed)
    with started() as ranks, progress(quiet=ranks.rank > 0) as show, faults_of(f"{options.model} on {options.data}"):
        found = importance(
            model,
            data,
            kind=options.kind,
            batches=options.batches,
            labelled=options.labelled,
            seed=options.seed,
            distributed=ranks.size > 1,
            progress=show,
        )
    if ranks.rank > 0:
        return
    size = save_safetensors(options.out, found, force=options.force)
    if options.json:
        print_json({"file": options.out, "size": size, "kind": options.kind, "tensors": list(found)})
        return
    print(f"{options.out}: {options.kind} importance of {len(found)} tensors, {size:,} B")
    print(f"next: tersor compress {options.model} OUT --ratio 16 --importance {options.out}")
