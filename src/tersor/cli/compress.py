"""`tersor compress`."""

from __future__ import annotations

import argparse
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tersor.cli.folder import folder_of
from tersor.cli.recipes import TARGETS, add_recipe_options, recipe_fields
from tersor.cli.shared import (
    add_command,
    check_out,
    checkpoint_of,
    duration,
    faults_of,
    model_of,
    note,
    print_json,
    progress,
    usage_error,
)
from tersor.errors import TersorError

if TYPE_CHECKING:
    from tersor.archive import Archive
    from tersor.checkpoint import Checkpoint
    from tersor.cli.shared import Commands
    from tersor.hf.source import ModelFolder
    from tersor.recipe import Recipe

_ABOUT = """examples:
  tersor compress model.safetensors model.tersor --ratio 16
  tersor compress checkpoint.pt small.tersor --size 1.5MB --effort best
  tersor compress shards/ model.tersor --bpp 2 --exclude 'head.*' --dry-run
  tersor compress llama/ llama-small/ --ratio 8
      (a folder of transformers, with config.json, to one that from_pretrained loads after `import tersor.hf`)
  tersor compress nets:resnet model.tersor --ratio 16
      (nets.py in the current folder has a function resnet() that returns the network, or its state dict)
  tersor compress nets:resnet model.tersor --ratio 16 --importance weights.safetensors
      (made by `tersor importance`: errors are put where they matter least)

passes change the network before it is coded; `tersor passes` lists them
  tersor compress nets:resnet model.tersor --ratio 27 --data nets:batches \\
      --pass 'prune(sparsity=0.6, criterion=obd, rounds=3, steps=200)' --pass 'tune(steps=600)'

larger than memory: what is finished is kept in OUT.work until OUT is whole
  tersor compress shards/ model.tersor --ratio 16 --memory 2GB
  tersor compress shards/ model.tersor --ratio 16 --resume        (after a break: the same command again)
  torchrun --nproc-per-node 2 -m tersor compress shards/ model.tersor --ratio 16
      (any number of processes and machines that see both paths; the bytes are the same)
"""


def add_to(commands: Commands) -> None:
    """The command and its options."""
    sub = add_command(commands, "compress", _run, "compress a checkpoint to a target number of bytes", _ABOUT)
    sub.add_argument(
        "source",
        metavar="IN",
        help=".safetensors, .pt/.pth/.th, a folder of shards, or pkg.module:function that returns a network",
    )
    sub.add_argument("out", metavar="OUT", help="the archive to write, like model.tersor, or a folder of transformers")
    target = sub.add_argument_group("target (one of them, here or in the recipe; the file is never over it)")
    target.add_argument("--ratio", type=float, help="bytes of all tensors over bytes of the file")
    target.add_argument("--size", help="bytes of the file: 300kB, 1.5MB, 2MiB")
    target.add_argument("--bpp", type=float, help="bits of the file per parameter")
    add_recipe_options(sub)
    passes = sub.add_argument_group("passes (here or in the recipe; IN is then a function that returns the network)")
    passes.add_argument(
        "--pass",
        action="append",
        dest="passes",
        metavar="STEP",
        help="like 'prune(sparsity=0.8)'; may repeat, in order",
    )
    passes.add_argument("--data", metavar="FUNCTION", help="returns an iterable of batches, for passes that need data")
    passes.add_argument("--labelled", action="store_true", help="batches end with labels")
    sub.add_argument("--dry-run", action="store_true", help="print the plan and the predicted size; write nothing")
    sub.add_argument("--force", action="store_true", help="overwrite OUT if it exists, and what a broken run left")
    sub.add_argument("--memory", metavar="SIZE", help="what each process may take, like 2GB; unlimited by default")
    sub.add_argument("--device", default="cpu", help="where codes are searched: cpu (default), cuda, cuda:1")
    sub.add_argument("--resume", action="store_true", help="go on with a run of the same input and recipe")


def _run(options: argparse.Namespace) -> None:
    from tersor.recipe import SIZED, Recipe

    fields = recipe_fields(options)
    target = {name: getattr(options, name) for name in TARGETS if getattr(options, name) is not None}
    if target:
        fields = {**{name: value for name, value in fields.items() if name not in TARGETS}, **target}
    if options.passes:
        fields["passes"] = options.passes
    if not any(name in fields for name in TARGETS) and not re.fullmatch(SIZED, str(fields.get("scheme", ""))):
        raise usage_error("compress: give a target: --ratio 16, --size 1.5MB or --bpp 2")
    recipe = Recipe.from_dict(fields)
    if recipe.passes:
        _through_passes(options, recipe)
        return
    if not options.dry_run:
        check_out(options.source, options.out, options.force)
    folder = folder_of(options, _place()[1])
    checkpoint = checkpoint_of(options.source) if folder is None else folder.checkpoint
    if options.dry_run:
        _dry_run(checkpoint, recipe, options.json)
    else:
        _compress(options, recipe, checkpoint, folder)


def _through_passes(options: argparse.Namespace, recipe: Recipe) -> None:
    """Passes, coding, tuning of the user's network."""
    from tersor.api import compress
    from tersor.checkpoint import open_checkpoint
    from tersor.passes.registry import steps_of
    from tersor.passes.step import Stage
    from tersor.user.loader import load_function

    steps = steps_of(recipe)
    chain = [*(str(step) for step in steps if step.stage < Stage.TUNE), f"code as {recipe.scheme}"]
    chain += [str(step) for step in steps if step.stage is Stage.TUNE]
    if options.dry_run and options.json:
        print_json({"passes": chain})
        return
    if options.dry_run:
        print("\n".join([*chain, "nothing written; sizes follow from the passes' work"]))
        return
    check_out(None, options.out, options.force)
    if ":" not in options.source:
        raise TersorError(
            f"{options.source} has tensors, and passes need the network: give module:function that returns it"
        )
    data = None if options.data is None else load_function(options.data)
    model = model_of(options.source)
    weights = None if options.importance is None else checkpoint_of(options.importance)
    started, told = time.perf_counter(), []

    def tell(line: str) -> None:
        told.append(line)
        if not options.json:
            print(line, flush=True)

    if not options.json:
        note(" -> ".join(chain))
    with progress() as show, faults_of(options.source if data is None else f"{options.source} on {options.data}"):
        archive = compress(
            model, recipe, importance=weights, progress=show, out=options.out, force=options.force,
            device=options.device, data=data, labelled=options.labelled, tell=tell, memory=options.memory,
            resume=options.resume, distributed=_place()[1] > 1,
        )  # fmt: skip
    given = open_checkpoint(model)
    if options.json:
        made = _made(archive, given, options.out, archive.size, time.perf_counter() - started)
        print_json({**made, "passes": chain, "told": told})
        return
    print(
        f"{options.out}: {given.nbytes:,} B -> {archive.size:,} B, {given.nbytes / archive.size:.2f}x, "
        f"{8 * archive.size / max(given.parameters, 1):.3f} bits per parameter of the original"
    )
    print(archive.coverage)


def _dry_run(checkpoint: Checkpoint, recipe: Recipe, as_json: bool) -> None:
    from tersor.api import dry_run
    from tersor.encode import seconds

    plan = dry_run(checkpoint, recipe)
    if as_json:
        print_json({**plan.as_dict(), "predicted_seconds": round(seconds(plan, recipe), 1)})
        return
    print("\n".join(plan.lines()))
    print(plan.coverage())
    print(f"predicted size {plan.predicted:,} B, predicted time {duration(seconds(plan, recipe))}; nothing written")


def _compress(options: argparse.Namespace, recipe: Recipe, checkpoint: Checkpoint, folder: ModelFolder | None) -> None:
    from tersor.api import compress, dry_run
    from tersor.encode import seconds
    from tersor.plan import make_plan
    from tersor.stream.run import is_large

    started = time.perf_counter()
    out, rank, processes = options.out, *_place()
    weights = None if options.importance is None else checkpoint_of(options.importance)
    plan = make_plan(checkpoint, recipe) if is_large(checkpoint, recipe) else dry_run(checkpoint, recipe)
    if not options.json and rank == 0:
        for line in plan.lines():
            note(line)
        note(f"predicted time {duration(seconds(plan, recipe) / processes)}")
    with progress(quiet=rank > 0) as show, _ended_by_others(processes), _interrupted(out):
        common: dict[str, Any] = {
            "importance": weights, "progress": show, "out": out, "force": options.force, "memory": options.memory,
            "device": options.device,
        }  # fmt: skip
        if folder is None:
            archive = compress(checkpoint, recipe, resume=options.resume, distributed=processes > 1, **common)
        else:
            from tersor.hf import compress_folder

            archive = compress_folder(folder, recipe=recipe, **common)
    if rank > 0:
        return
    size = archive.size
    if options.json:
        left_out = {} if folder is None else {"left_out": list(folder.left_out)}
        print_json({**_made(archive, checkpoint, out, size, time.perf_counter() - started), **left_out})
        return
    bpp = 8 * size / max(plan.parameters, 1)
    print(f"{out}: {plan.nbytes:,} B -> {size:,} B, {plan.nbytes / size:.2f}x, {bpp:.3f} bits per parameter")
    print(archive.coverage)
    if recipe.target and size < 0.98 * plan.budget:
        spent = "everything is exact" if not archive.index.groups else "this scheme has nothing to spend more on"
        print(f"smaller than the {plan.budget:,} B asked for: {spent}")
    if checkpoint.skipped:
        print(f"left out (no tensors, or beside the state dict): {', '.join(checkpoint.skipped[:10])}")
    if folder is not None and folder.left_out:
        print(f"not copied: {', '.join(folder.left_out[:10])}")


def _place() -> tuple[int, int]:
    """Which of the processes that torchrun started this one is, and how many there are."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def _interrupted(out: str) -> Iterator[None]:
    """Say what is left where there is something."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if os.path.isdir(f"{os.path.realpath(out)}.work"):
            raise KeyboardInterrupt("what is finished is kept: the same command with --resume goes on") from stop
        raise


@contextmanager
def _ended_by_others(processes: int) -> Iterator[None]:
    """With several processes, tell in a line that this one was ended: torchrun does so when another one died."""

    def end(number: int, frame: object) -> None:
        raise TersorError(f"stopped, as another process ended or the run was called off; {GO_ON}")

    if processes == 1:
        yield
        return
    from tersor.stream.team import GO_ON

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
            *({"scheme": representation(r), "tensors": [names[i] for i in r.tensors]} for r in archive.index.groups),
            *({"scheme": r.text, "tensors": [names[i] for i in r.tensors]} for r in archive.index.scalars),
        ],
        "kept": [{"name": names[i], "reason": REASONS[reason]} for i, reason, _ in archive.index.kept],
        "tied": {names[i]: names[owner] for i, owner in archive.index.ties.items()},
        "skipped": list(checkpoint.skipped),
    }
