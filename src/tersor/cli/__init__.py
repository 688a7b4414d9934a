"""The command line: positional IN OUT, progress where a person looks, `--json` for scripts.

Exit codes: 0 done, 1 bad input or an impossible request (one line on stderr), 2 wrong usage. Built on argparse, and
everything heavy is imported where it is used: `--help`, `inspect` and `verify` answer at once.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence

from tersor.cli import compress, diff, export, files, importance, report, search, tune
from tersor.errors import TersorError

__all__ = ["main", "parser"]

_EXAMPLES = """examples:
  tersor compress model.safetensors model.tersor --ratio 16
  tersor compress checkpoint.pt small.tersor --size 1.5MB --effort best
  tersor tune model.tersor tuned.tersor --model nets:resnet --data nets:batches --steps 1000
  tersor search best.tersor --model nets:resnet --evaluate nets:accuracy --max-drop 0.5
  tersor inspect model.tersor
  tersor decompress model.tersor plain.safetensors
  tersor export model.tersor model.onnx --model nets:resnet --input 1x3x32x32
  tersor report model.tersor --against model.safetensors
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
    for family in (compress, importance, tune, search, files, diff, report, export):
        family.add_to(commands)
    return root


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
    except KeyboardInterrupt as stop:
        print(f"tersor: interrupted; {str(stop) or 'nothing written'}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe left; nobody is there to tell
