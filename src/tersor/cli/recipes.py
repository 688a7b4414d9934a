"""Options that say how a network is coded, shared by the commands that code one."""

from __future__ import annotations

import argparse
from typing import Any

TARGETS = ("ratio", "size", "bpp")
_FIELDS = ("scheme", "effort", "keep", "exclude", "scales", "groups", "sparsity", "min_size", "seed")


def add_recipe_options(sub: argparse.ArgumentParser) -> None:
    """All fields of a recipe but its target, and the importance of errors."""
    how = sub.add_argument_group("how it is coded")
    how.add_argument("--recipe", help="a .toml or .json recipe; options here override it")
    how.add_argument("--effort", help="draft, default or best")
    how.add_argument(
        "--scheme",
        help="auto, lattice, additive, 4x128d9 (4 codebooks of 128 codewords over 9 weights), 4x128d9+lattice; "
        "without a target int8 (int2 to int8), int4/64, shared32, fp16, bf16",
    )
    how.add_argument("--keep", help="floats that are not coded: lossless, or rounded to bf16")
    how.add_argument("--exclude", action="append", metavar="PATTERN", help="keep tensors whose names match; may repeat")
    how.add_argument("--scales", help="judge errors as they are (none), or relative to each tensor or row")
    how.add_argument(
        "--importance",
        metavar="FILE",
        help="weight of each element's error, as `tersor importance` measures it: names and shapes of the network",
    )
    how.add_argument("--groups", help="one set of codebooks and tables per kernel size (kernel), or one in all")
    how.add_argument(
        "--sparsity", help="zeros stay zeros: where there are many (auto), all (keep), or as it comes (ignore)"
    )
    how.add_argument("--min-size", type=int, help="keep tensors with fewer elements")
    how.add_argument("--seed", type=int, help="of everything random")


def recipe_fields(options: argparse.Namespace) -> dict[str, Any]:
    """The fields given, here or in the recipe's file; a target only from the file."""
    from tersor.recipe import load_fields

    fields: dict[str, Any] = load_fields(options.recipe) if options.recipe else {}
    given = {name: getattr(options, name) for name in _FIELDS if getattr(options, name) is not None}
    return {**fields, **given}
