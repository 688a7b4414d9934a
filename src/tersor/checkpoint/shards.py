"""Writing a checkpoint as a folder of safetensors shards and their index, named as transformers names them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from typing import BinaryIO

from tersor.checkpoint.inventory import Entry
from tersor.checkpoint.layout import Layout, layout_of
from tersor.checkpoint.writer import Arriving, fill
from tersor.errors import TersorError
from tersor.files import atomic_folder, reserve

INDEX_NAME = "model.safetensors.index.json"
MOST = 200
"""Shards, all of which are open at once: some systems allow a process 256 files."""


def stream_shards(
    folder: str | os.PathLike[str], entries: Sequence[Entry], arriving: Arriving, *, limit: int, force: bool = False
) -> list[int]:
    """Write tensors as they arrive to shards `model-00001-of-00002.safetensors` and so on; returns their bytes.

    Args:
        folder: is made; with `force` it may replace one that holds nothing but such shards and their index.
        entries: of all names; shards take them in their order, tied ones together.
        arriving: name and tensor of all that are not tied to another, in any order.
        limit: bytes of the tensors of a shard; a larger tensor has one to itself, with those that are tied to it.
        force: replace what is there.

    Raises:
        TersorError: as `stream_safetensors`, or the limit would make more than `MOST` shards.
    """
    shards = _divided(entries, limit)
    if len(shards) > MOST:
        raise TersorError(f"cannot write {folder}: {len(shards)} shards are more than {MOST}; allow larger ones")
    names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    places: dict[str, tuple[BinaryIO, Layout]] = {}
    sizes = []
    with atomic_folder(folder, force=force, ours=is_shard) as made:
        with ExitStack() as files:
            for name, shard in zip(names, shards, strict=True):
                layout = layout_of(folder, shard)
                out = files.enter_context(open(made / name, "xb"))
                reserve(out, layout.size)
                out.write(layout.header)
                places |= dict.fromkeys(layout.starts, (out, layout))
                sizes.append(layout.size)
            fill(folder, entries, places, arriving)
        shard_of = {entry.name: name for name, shard in zip(names, shards, strict=True) for entry in shard}
        index = {
            "metadata": {"total_size": sum(entry.nbytes for entry in entries)},
            "weight_map": {entry.name: shard_of[entry.name] for entry in entries},
        }
        text = json.dumps(index, ensure_ascii=False, indent=1)
        (made / INDEX_NAME).write_text(text + "\n", encoding="utf-8")
    return sizes


def is_shard(name: str) -> bool:
    """Whether `stream_shards` gives such names to files."""
    return name == INDEX_NAME or re.fullmatch(r"model-\d{5}-of-\d{5}\.safetensors", name) is not None


def _divided(entries: Sequence[Entry], limit: int) -> list[list[Entry]]:
    """Entries shard by shard, those that are tied beside their owner."""
    together: dict[str, list[Entry]] = {}
    for entry in entries:
        together.setdefault(entry.owner, []).append(entry)
    shards: list[list[Entry]] = [[]]
    filled = 0
    for tied in together.values():
        size = sum(entry.nbytes for entry in tied)
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1] += tied
        filled += size
    return shards
