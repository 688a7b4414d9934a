"""`tersor report`."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from tersor.cli.shared import add_command, check_out, print_json, progress

if TYPE_CHECKING:
    from tersor.cli.shared import Commands

_ABOUT = """examples:
  tersor report model.tersor                                     (writes model.html)
  tersor report model.tersor --against model.safetensors -o report.html --title "ResNet-20 at 15x"

The page needs no network and no other file. What each of its sections means: docs/report.md. If `tersor search` made
the file, its record beside it (FILE.search.json) gives the rate-accuracy curve.
"""


def add_to(commands: Commands) -> None:
    """The command and its options."""
    text = "write an HTML page about a file: sizes, bits, errors, codebooks, the curve of a search"
    sub = add_command(commands, "report", _run, text, _ABOUT)
    sub.add_argument("file", metavar="FILE", help="an archive")
    sub.add_argument(
        "--against",
        metavar="CHECKPOINT",
        help="the dense checkpoint it was made from, a file or pkg.module:function: errors are measured against it",
    )
    sub.add_argument("-o", "--out", metavar="PAGE", help="the page to write (FILE with .html in place of its suffix)")
    sub.add_argument("--title", metavar="TEXT", help="of the page (the file's name)")
    sub.add_argument("--force", action="store_true", help="overwrite the page if it exists")


def _run(options: argparse.Namespace) -> None:
    out = options.out or os.path.splitext(options.file)[0] + ".html"
    check_out(options.file, out, options.force)
    from tersor.cli.shared import checkpoint_of
    from tersor.report import write

    against = None if options.against is None else checkpoint_of(options.against)
    with progress() as show:
        size = write(options.file, out, against=against, title=options.title, force=options.force, progress=show)
    if options.json:
        print_json({"file": options.file, "page": out, "size": size, "against": options.against})
    else:
        print(f"{out}: {size:,} B")
