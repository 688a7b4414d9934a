"""`tersor diff`."""

from __future__ import annotations

import argparse
import math
import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from tersor.cli.shared import (
    FUNCTION,
    add_command,
    faults_of,
    made_by,
    model_of,
    print_json,
    progress,
    seed_everything,
    usage_error,
)
from tersor.user.loader import load_function

if TYPE_CHECKING:
    from tersor.cli.shared import Commands

_ABOUT = """examples:
  tersor diff model.safetensors model.tersor
  tersor diff first.tersor second.tersor --model nets:resnet --data nets:batches --batches 10

The error of a tensor is the difference's energy over A's, in decibels: -20 dB is a hundredth. Values that are NaN or
infinite in one and not the same in the other are counted and left out of it. --json tells of all tensors; what is no
number there is null.
With --model and --data both are loaded into the network, and its outputs are compared: nets.py has resnet(), which
returns the network, and batches(), which yields what it takes.
"""


def add_to(commands: Commands) -> None:
    """The command and its options."""
    text = "show what differs between two files of one network, per tensor and in its outputs"
    sub = add_command(commands, "diff", _run, text, _ABOUT)
    what = "an archive, .safetensors, a folder of shards, .pt, or a function that gives a module or a state dict"
    sub.add_argument("a", metavar="A", help=f"{what} ({FUNCTION})")
    sub.add_argument("b", metavar="B", help="what is compared with A, of the same kinds")
    sub.add_argument("--all", action="store_true", help="list all tensors, not only those that differ most")
    sub.add_argument("--model", metavar="FUNCTION", help="returns the network, to compare its outputs")
    sub.add_argument("--data", metavar="FUNCTION", help="returns an iterable of batches for the network")
    sub.add_argument("--batches", type=int, metavar="N", help="of the data, at most; all by default")
    sub.add_argument("--labelled", action="store_true", help="batches end with labels, which are left out")
    sub.add_argument("--seed", type=int, default=0, help="of everything random in the data")


def _run(options: argparse.Namespace) -> None:
    if (options.model is None) != (options.data is None):
        raise usage_error("diff: outputs need both --model and --data; give both or neither")
    from tersor.diff import compare
    from tersor.diff.told import MOST, lines

    a, b = (made_by(s) if ":" in s and not os.path.exists(s) else s for s in (options.a, options.b))
    data = None if options.data is None else load_function(options.data)
    model = None if options.model is None else model_of(options.model)
    seed_everything(options.seed)
    called = nullcontext() if model is None else faults_of(f"{options.model} on {options.data}")
    with progress() as show, called:
        found = compare(a, b, model=model, data=data, labelled=options.labelled, batches=options.batches, progress=show)
    if options.json:
        print_json(_plain(found))
    else:
        print("\n".join(lines(found, None if options.all else MOST)))


def _plain(value: Any) -> Any:
    """The same with None for numbers that JSON lacks."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
