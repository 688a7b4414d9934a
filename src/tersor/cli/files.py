"""`tersor decompress`, `inspect` and `verify`: what there is to do with a finished file."""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tersor.cli.shared import add_command, check_out, print_json, progress
from tersor.errors import TersorError

if TYPE_CHECKING:
    import torch

    from tersor.archive import Archive
    from tersor.cli.shared import Commands, Show


def add_to(commands: Commands) -> None:
    """The commands and their options."""
    text = "decompress an archive to plain safetensors, which any tool loads"
    sub = add_command(commands, "decompress", _decompress, text, _example("decompress model.tersor plain.safetensors"))
    sub.add_argument("source", metavar="IN", help="an archive")
    sub.add_argument("out", metavar="OUT", help="the .safetensors file to write; with --shard-size a folder")
    sub.add_argument(
        "--shard-size",
        metavar="SIZE",
        help="write a folder of shards of at most this size (2GB), larger tensors alone, and their index",
    )
    text = "write coded matrices and kernels as int8, and beside each a float32 NAME.scale, one for each row"
    sub.add_argument("--int8", action="store_true", help=text)
    sub.add_argument("--force", action="store_true", help="overwrite OUT if it exists")

    text = "show what is inside: per tensor its representation, bits and error"
    sub = add_command(commands, "inspect", _inspect, text, _example("inspect model.tersor"))
    sub.add_argument("file", metavar="FILE", help="an archive")

    text = "check every byte: checksums, and that every stream decodes to its end"
    sub = add_command(commands, "verify", _verify, text, _example("verify model.tersor"))
    sub.add_argument("file", metavar="FILE", help="an archive")

    text = "list the passes that a recipe may have, or the settings of one"
    sub = add_command(commands, "passes", _passes, text, _example("passes prune"))
    sub.add_argument("name", nargs="?", metavar="PASS", help="one of them")


def _passes(options: argparse.Namespace) -> None:
    import inspect

    from tersor.passes.registry import PASSES, kind_of

    if options.name is not None:
        kind = kind_of(options.name)
        if options.json:
            print_json({"pass": kind.name, "settings": list(kind.__struct_fields__), "about": kind.about})
        else:
            print(f"{kind.name}: {kind.about}\n\n{inspect.getdoc(kind)}\n\nsettings and defaults:")
            for field, value in zip(kind.__struct_fields__, kind.__struct_defaults__, strict=True):
                print(f"  {field} = {value!r}")
        return
    known = {name: kind_of(name).about for name in PASSES}
    if options.json:
        print_json({"passes": known})
    else:
        print("\n".join(f"{name:<10} {about}" for name, about in known.items()))


def _example(line: str) -> str:
    return f"example:\n  tersor {line}\n"


def _decompress(options: argparse.Namespace) -> None:
    check_out(options.source, options.out, options.force)
    from tersor.api import open as open_archive
    from tersor.checkpoint import stream_safetensors, stream_shards
    from tersor.recipe import parse_size

    limit = None if options.shard_size is None else parse_size(options.shard_size, "--shard-size")
    if limit is not None and limit < 1:
        raise TersorError(f"--shard-size {options.shard_size} holds nothing; give a size like 2GB")
    if Path(os.path.realpath(options.out)) in Path(os.path.realpath(options.source)).parents and limit is not None:
        raise TersorError(f"{options.source} is in {options.out}, which would be replaced; give another folder")
    archive = open_archive(options.source)
    copy = None
    if options.int8:
        from tersor.int8 import Int8Copy

        copy = Int8Copy(archive)
    with progress() as show:
        arriving = _shown(archive, show)
        if copy is not None:
            sizes = copy.write(options.out, arriving, limit=limit, force=options.force)
        elif limit is None:
            sizes = [stream_safetensors(options.out, archive.entries, arriving, force=options.force)]
        else:
            sizes = stream_shards(options.out, archive.entries, arriving, limit=limit, force=options.force)
    size = sum(sizes)
    if options.json:
        shards = {} if limit is None else {"shards": len(sizes)}
        int8 = {} if copy is None else {"int8": len(copy.names), "int8_error_db": copy.error_db}
        print_json({"file": options.out, "size": size, "tensors": len(archive), **shards, **int8})
    else:
        shards_told = "" if limit is None else f" in {len(sizes)} shards"
        print(f"{options.out}: {len(archive)} tensors, {size:,} B{shards_told}")
        if copy is not None:
            error = "no error" if copy.error_db is None else f"error {copy.error_db:.1f} dB"
            print(f"{len(copy.names)} as int8, {error} beside the archive's own values")


def _shown(archive: Archive, show: Show) -> Iterator[tuple[str, torch.Tensor]]:
    """The archive's tensors, with progress."""
    total, done = sum(entry.tied_to is None for entry in archive.entries), itertools.count(1)
    for name, tensor in archive.tensors():
        yield name, tensor
        del tensor  # before the next one is decoded
        show("decoding", next(done), total)


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
