"""`tersor compress`."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from tersor.cli.recipes import TARGETS, add_recipe_options, recipe_fields
from tersor.cli.shared import (
    add_command,
    check_out,
    checkpoint_of,
    duration,
    note,
    print_json,
    progress,
    read_importance,
    usage_error,
)

if TYPE_CHECKING:
    from tersor.archive import Archive
    from tersor.checkpoint import Checkpoint
    from tersor.cli.shared import Commands
    from tersor.recipe import Recipe

_ABOUT = """examples:
  tersor compress model.safetensors model.tersor --ratio 16
  tersor compress checkpoint.pt small.tersor --size 1.5MB --effort best
  tersor compress shards/ model.tersor --bpp 2 --exclude 'head.*' --dry-run
  tersor compress nets:resnet model.tersor --ratio 16
      (nets.py in the current folder has a function resnet() that returns the network, or its state dict)
  tersor compress nets:resnet model.tersor --ratio 16 --importance weights.safetensors
      (made by `tersor importance`: errors are put where they matter least)
"""


def add_to(commands: Commands) -> None:
    """The command and its options."""
    sub = add_command(commands, "compress", _run, "compress a checkpoint to a target number of bytes", _ABOUT)
    sub.add_argument(
        "source",
        metavar="IN",
        help=".safetensors, .pt/.pth/.th, a folder of shards, or pkg.module:function that returns a network",
    )
    sub.add_argument("out", metavar="OUT", help="the archive to write, for example model.tersor")
    target = sub.add_argument_group("target (one of them, here or in the recipe; the file is never over it)")
    target.add_argument("--ratio", type=float, help="bytes of all tensors over bytes of the file")
    target.add_argument("--size", help="bytes of the file: 300kB, 1.5MB, 2MiB")
    target.add_argument("--bpp", type=float, help="bits of the file per parameter")
    add_recipe_options(sub)
    sub.add_argument("--dry-run", action="store_true", help="print the plan and the predicted size; write nothing")
    sub.add_argument("--force", action="store_true", help="overwrite OUT if it exists")


def _run(options: argparse.Namespace) -> None:
    from tersor.recipe import Recipe

    fields = recipe_fields(options)
    target = {name: getattr(options, name) for name in TARGETS if getattr(options, name) is not None}
    if target:
        fields = {**{name: value for name, value in fields.items() if name not in TARGETS}, **target}
    if not any(name in fields for name in TARGETS):
        raise usage_error("compress: give a target: --ratio 16, --size 1.5MB or --bpp 2")
    recipe = Recipe.from_dict(fields)
    if options.dry_run:
        _dry_run(options.source, recipe, options.json)
        return
    check_out(options.source, options.out, options.force)
    _compress(options.source, options.out, recipe, options.importance, options.force, options.json)


def _dry_run(source: str, recipe: Recipe, as_json: bool) -> None:
    from tersor.api import dry_run
    from tersor.encode import seconds

    plan = dry_run(checkpoint_of(source), recipe)
    if as_json:
        print_json({**plan.as_dict(), "predicted_seconds": round(seconds(plan, recipe), 1)})
        return
    print("\n".join(plan.lines()))
    print(plan.coverage())
    print(f"predicted size {plan.predicted:,} B, predicted time {duration(seconds(plan, recipe))}; nothing written")


def _compress(source: str, out: str, recipe: Recipe, importance: str | None, force: bool, as_json: bool) -> None:
    from tersor.api import compress, dry_run
    from tersor.encode import seconds

    started = time.perf_counter()
    checkpoint = checkpoint_of(source)
    plan = dry_run(checkpoint, recipe)
    weights = read_importance(importance)
    if not as_json:
        for line in plan.lines():
            note(line)
        note(f"predicted time {duration(seconds(plan, recipe))}")
    with progress() as show:
        archive = compress(checkpoint, recipe, importance=weights, progress=show)
    size = archive.save(out, force=force)
    if as_json:
        print_json(_made(archive, checkpoint, out, size, time.perf_counter() - started))
        return
    bpp = 8 * size / max(plan.parameters, 1)
    print(f"{out}: {plan.nbytes:,} B -> {size:,} B, {plan.nbytes / size:.2f}x, {bpp:.3f} bits per parameter")
    print(archive.coverage)
    if size < 0.98 * plan.budget:
        spent = "everything is exact" if not archive.index.groups else "this scheme has nothing to spend more on"
        print(f"smaller than the {plan.budget:,} B asked for: {spent}")
    if checkpoint.skipped:
        print(f"left out (no tensors, or beside the state dict): {', '.join(checkpoint.skipped[:10])}")


def _made(archive: Archive, checkpoint: Checkpoint, out: str, size: int, seconds: float) -> dict[str, Any]:
    """What was written, for scripts."""
    from tersor.index import REASONS
    from tersor.usage import representation

    names = archive.index.names
    return {
        "source": checkpoint.source,
        "bytes": checkpoint.nbytes,
        "parameters": checkpoint.parameters,
        "file": out,
        "size": size,
        "ratio": round(checkpoint.nbytes / size, 4),
        "bits_per_parameter": round(8 * size / max(checkpoint.parameters, 1), 4),
        "seconds": round(seconds, 2),
        "coverage": archive.coverage,
        "groups": [
            {"scheme": representation(r), "tensors": [names[i] for i in r.tensors]} for r in archive.index.groups
        ],
        "kept": [{"name": names[i], "reason": REASONS[reason]} for i, reason, _ in archive.index.kept],
        "tied": {names[i]: names[owner] for i, owner in archive.index.ties.items()},
        "skipped": list(checkpoint.skipped),
    }
