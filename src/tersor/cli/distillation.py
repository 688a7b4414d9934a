"""Options of training against the original network, shared by the commands that tune."""

from __future__ import annotations

import argparse
from typing import Any

_KEYWORDS = (
    "share",
    "every",
    "temperature",
    "labelled",
    "label_weight",
    "features",
    "feature_weight",
    "precision",
    "lr",
)


def add_tuning_options(sub: argparse.ArgumentParser, *, required: bool) -> None:
    """Data, steps, what is trained and how; those not given are left to `tersor.distill`."""
    how = sub.add_argument_group("how it is tuned" if required else "to tune every candidate before it is judged")
    how.add_argument(
        "--data", required=required, metavar="FUNCTION", help="returns an iterable of batches, called for each pass"
    )
    how.add_argument("--steps", required=required, type=int, metavar="N", help="batches to learn from")
    how.add_argument(
        "--fixed", action="store_true", help="codes stay; train codebooks, bases, scales and kept tensors only"
    )
    how.add_argument("--share", type=float, metavar="F", help="of the vectors, the part whose codes may move at a time")
    how.add_argument("--every", type=int, metavar="N", help="steps between choices of codes")
    how.add_argument("--lr", type=float, metavar="F", help="the highest rate of learning")
    how.add_argument("--temperature", type=float, metavar="T", help="of the divergence from the original's output")
    how.add_argument("--labelled", action="store_true", default=None, help="batches end with labels")
    how.add_argument("--label-weight", type=float, metavar="W", help="share of the labels in the loss, 0 to 1")
    how.add_argument("--features", nargs="+", metavar="NAME", help="submodules whose outputs are matched as well")
    how.add_argument("--feature-weight", type=float, metavar="W", help="of the features in the loss")
    how.add_argument("--precision", choices=("fp32", "bf16", "fp16"), help="of the forward and backward pass")


def tuning_keywords(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `tersor.distill` that were given."""
    return {name: getattr(options, name) for name in _KEYWORDS if getattr(options, name) is not None}
