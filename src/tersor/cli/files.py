"""`tersor decompress`, `inspect` and `verify`: what there is to do with a finished file."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tersor.cli.shared import add_command, check_out, print_json, progress

if TYPE_CHECKING:
    from tersor.cli.shared import Commands


def add_to(commands: Commands) -> None:
    """The commands and their options."""
    text = "decompress an archive to plain safetensors, which any tool loads"
    sub = add_command(commands, "decompress", _decompress, text, _example("decompress model.tersor plain.safetensors"))
    sub.add_argument("source", metavar="IN", help="an archive")
    sub.add_argument("out", metavar="OUT", help="the .safetensors file to write")
    sub.add_argument("--force", action="store_true", help="overwrite OUT if it exists")

    text = "show what is inside: per tensor its representation, bits and error"
    sub = add_command(commands, "inspect", _inspect, text, _example("inspect model.tersor"))
    sub.add_argument("file", metavar="FILE", help="an archive")

    text = "check every byte: checksums, and that every stream decodes to its end"
    sub = add_command(commands, "verify", _verify, text, _example("verify model.tersor"))
    sub.add_argument("file", metavar="FILE", help="an archive")


def _example(line: str) -> str:
    return f"example:\n  tersor {line}\n"


def _decompress(options: argparse.Namespace) -> None:
    check_out(options.source, options.out, options.force)
    from tersor.api import open as open_archive
    from tersor.checkpoint import save_safetensors

    archive = open_archive(options.source)
    names = archive.index.names
    ties = {names[i]: names[owner] for i, owner in archive.index.ties.items()}
    size = save_safetensors(options.out, archive.state_dict(), ties=ties, force=options.force)
    if options.json:
        print_json({"file": options.out, "size": size, "tensors": len(archive)})
    else:
        print(f"{options.out}: {len(archive)} tensors, {size:,} B")


def _inspect(options: argparse.Namespace) -> None:
    from tersor.api import open as open_archive
    from tersor.usage import describe, lines

    found = describe(open_archive(options.file))
    if options.json:
        print_json(found)
    else:
        print("\n".join(lines(found)))


def _verify(options: argparse.Namespace) -> None:
    from tersor.api import open as open_archive

    archive = open_archive(options.file)
    with progress() as show:
        archive.verify(lambda done, total: show("verifying", done, total))
    sections = len(archive.index.lengths)
    if options.json:
        result = {"file": options.file, "size": archive.size, "sections": sections, "tensors": len(archive), "ok": True}
        print_json(result)
    else:
        print(f"{options.file}: {archive.size:,} B, {sections} sections, {len(archive)} tensors: all good")
