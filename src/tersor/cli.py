"""The command line: positional IN OUT, progress where a person looks, `--json` for scripts.

Exit codes: 0 done, 1 bad input or an impossible request (one line on stderr), 2 wrong usage. Built on argparse, and
everything heavy is imported where it is used: `--help`, `inspect` and `verify` answer at once.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tersor.errors import TersorError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tersor.archive import Archive
    from tersor.checkpoint import Checkpoint
    from tersor.recipe import Recipe

_EXAMPLES = """examples:
  tersor compress model.safetensors model.tersor --ratio 16
  tersor compress checkpoint.pt small.tersor --size 1.5MB --effort best
  tersor compress shards/ model.tersor --bpp 2 --exclude 'head.*' --dry-run
  tersor inspect model.tersor
  tersor decompress model.tersor plain.safetensors
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = argparse.ArgumentParser(
        prog="tersor",
        description="Any trained neural network as one compact file, and back.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    root.add_argument("--version", action="store_true", help="print the version and exit")
    commands = root.add_subparsers(title="commands", metavar="COMMAND", dest="command")

    def command(name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(run=run)
        sub.add_argument("--json", action="store_true", help="print one JSON object instead of text")
        return sub

    sub = command("compress", _compress_command, "compress a checkpoint to a target number of bytes")
    sub.add_argument("source", metavar="IN", help=".safetensors, .pt/.pth/.th, or a folder of shards")
    sub.add_argument("out", metavar="OUT", help="the archive to write, for example model.tersor")
    target = sub.add_argument_group("target (one of them, here or in the recipe; the file is never over it)")
    target.add_argument("--ratio", type=float, help="bytes of all tensors over bytes of the file")
    target.add_argument("--size", help="bytes of the file: 300kB, 1.5MB, 2MiB")
    target.add_argument("--bpp", type=float, help="bits of the file per parameter")
    how = sub.add_argument_group("how")
    how.add_argument("--recipe", help="a .toml or .json recipe; options here override it")
    how.add_argument("--effort", help="draft, default or best")
    how.add_argument(
        "--scheme",
        help="auto, lattice, additive, 4x128d9 (4 codebooks of 128 codewords over 9 weights), 4x128d9+lattice",
    )
    how.add_argument("--keep", help="floats that are not coded: lossless, or rounded to bf16")
    how.add_argument("--exclude", action="append", metavar="PATTERN", help="keep tensors whose names match; may repeat")
    how.add_argument("--scales", help="judge errors as they are (none), or relative to each tensor or row")
    how.add_argument(
        "--importance", metavar="FILE", help="checkpoint of the same names and shapes: weight of each element's error"
    )
    how.add_argument("--groups", help="one set of codebooks and tables per kernel size (kernel), or one in all")
    how.add_argument("--min-size", type=int, help="keep tensors with fewer elements")
    how.add_argument("--seed", type=int, help="of everything random")
    sub.add_argument("--dry-run", action="store_true", help="print the plan and the predicted size; write nothing")
    sub.add_argument("--force", action="store_true", help="overwrite OUT if it exists")

    sub = command("decompress", _decompress_command, "decompress an archive to plain safetensors, which any tool loads")
    sub.add_argument("source", metavar="IN", help="an archive")
    sub.add_argument("out", metavar="OUT", help="the .safetensors file to write")
    sub.add_argument("--force", action="store_true", help="overwrite OUT if it exists")

    sub = command("inspect", _inspect_command, "show what is inside: per tensor its representation, bits and error")
    sub.add_argument("file", metavar="FILE", help="an archive")

    sub = command("verify", _verify_command, "check every byte: checksums, and that every stream decodes to its end")
    sub.add_argument("file", metavar="FILE", help="an archive")
    return root


def _compress_command(options: argparse.Namespace) -> None:
    from tersor.recipe import Recipe, load_fields

    fields: dict[str, Any] = load_fields(options.recipe) if options.recipe else {}
    targets = ("ratio", "size", "bpp")
    if any(getattr(options, name) is not None for name in targets):
        fields = {name: value for name, value in fields.items() if name not in targets}
    for name in (*targets, "scheme", "effort", "keep", "exclude", "scales", "groups", "min_size", "seed"):
        if getattr(options, name) is not None:
            fields[name] = getattr(options, name)
    if not any(name in fields for name in targets):
        raise SystemExit(_usage("compress: give a target: --ratio 16, --size 1.5MB or --bpp 2"))
    recipe = Recipe.from_dict(fields)
    if options.dry_run:
        _dry_run(options.source, recipe, options.json)
        return
    _check_out(options.source, options.out, options.force)
    _compress(options.source, options.out, recipe, options.importance, options.force, options.json)


def _dry_run(source: str, recipe: Recipe, as_json: bool) -> None:
    from tersor.api import dry_run
    from tersor.encode import seconds

    plan = dry_run(source, recipe)
    if as_json:
        _print_json({**plan.as_dict(), "predicted_seconds": round(seconds(plan, recipe), 1)})
        return
    print("\n".join(plan.lines()))
    print(plan.coverage())
    print(f"predicted size {plan.predicted:,} B, predicted time {_duration(seconds(plan, recipe))}; nothing written")


def _compress(source: str, out: str, recipe: Recipe, importance: str | None, force: bool, as_json: bool) -> None:
    import time

    from tersor.api import compress, dry_run
    from tersor.checkpoint import open_checkpoint
    from tersor.encode import seconds

    started = time.perf_counter()
    checkpoint = open_checkpoint(source)
    plan = dry_run(checkpoint, recipe)
    weights = None
    if importance is not None:
        other = open_checkpoint(importance)
        weights = {e.name: other.read(e.name) for e in other.entries}
    if not as_json:
        for line in plan.lines():
            _note(line)
        _note(f"predicted time {_duration(seconds(plan, recipe))}")
    with _progress() as progress:
        archive = compress(checkpoint, recipe, importance=weights, progress=progress)
    size = archive.save(out, force=force)
    if as_json:
        _print_json(_made(archive, checkpoint, out, size, time.perf_counter() - started))
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


def _decompress_command(options: argparse.Namespace) -> None:
    _check_out(options.source, options.out, options.force)
    from tersor.api import open as open_archive
    from tersor.checkpoint import save_safetensors

    archive = open_archive(options.source)
    names = archive.index.names
    ties = {names[i]: names[owner] for i, owner in archive.index.ties.items()}
    size = save_safetensors(options.out, archive.state_dict(), ties=ties, force=options.force)
    if options.json:
        _print_json({"file": options.out, "size": size, "tensors": len(archive)})
    else:
        print(f"{options.out}: {len(archive)} tensors, {size:,} B")


def _inspect_command(options: argparse.Namespace) -> None:
    from tersor.api import open as open_archive
    from tersor.usage import describe, lines

    found = describe(open_archive(options.file))
    if options.json:
        _print_json(found)
    else:
        print("\n".join(lines(found)))


def _verify_command(options: argparse.Namespace) -> None:
    from tersor.api import open as open_archive

    archive = open_archive(options.file)
    with _progress() as progress:
        archive.verify(lambda done, total: progress("verifying", done, total))
    sections = len(archive.index.lengths)
    if options.json:
        result = {"file": options.file, "size": archive.size, "sections": sections, "tensors": len(archive), "ok": True}
        _print_json(result)
    else:
        print(f"{options.file}: {archive.size:,} B, {sections} sections, {len(archive)} tensors: all good")


def _check_out(source: str, out: str, force: bool) -> None:
    """Fail before the work, not after it; the write checks again."""
    if os.path.lexists(out) and not force:
        raise TersorError(f"{out} exists; pass --force to overwrite it")
    if os.path.exists(out) and os.path.exists(source) and os.path.samefile(source, out):
        raise TersorError(f"{out} is the input itself; give another name")
    folder = os.path.dirname(os.path.abspath(out))
    if not os.path.isdir(folder):
        raise TersorError(f"{folder} does not exist; make it or give another path")


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value))


def _note(line: str) -> None:
    """A line for a person, on stderr, only where there is one."""
    if sys.stderr.isatty():
        print(line, file=sys.stderr)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar with the time left, on a terminal; silence elsewhere."""
    if not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield show


def _usage(problem: str) -> int:
    print(f"tersor {problem}", file=sys.stderr)
    return 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; the only place where errors become exit codes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    root = parser()
    options = root.parse_args(arguments)
    if options.version:
        from tersor import __version__

        print(f"tersor {__version__}")
        return
    if options.command is None:
        root.print_help()
        sys.exit(2)
    try:
        options.run(options)
    except TersorError as error:
        print(f"tersor: {error}", file=sys.stderr)
        sys.exit(1)
    except MemoryError:
        print("tersor: out of memory; use a machine with more, or a smaller checkpoint", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("tersor: interrupted; nothing written", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe left; nobody is there to tell
