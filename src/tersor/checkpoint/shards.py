"""Writing a checkpoint as a folder of safetensors shards and their index, as transformers and others read it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import BinaryIO

from tersor.checkpoint.inventory import Entry
from tersor.checkpoint.layout import Layout, layout_of, nbytes, with_ties
from tersor.checkpoint.writer import Arriving, fill
from tersor.errors import TersorError
from tersor.files import atomic_folder, reserve

INDEX_NAME = "model.safetensors.index.json"
MOST = 500
"""Shards, all of which are open at once: systems allow a process 1024 files and fewer."""


def stream_shards(
    folder: str | os.PathLike[str],
    entries: Sequence[Entry],
    arriving: Arriving,
    *,
    limit: int,
    ties: Mapping[str, str] | None = None,
    force: bool = False,
) -> list[int]:
    """Write tensors as they arrive to shards `model-00001-of-00002.safetensors` and so on; returns their bytes.

    Args:
        folder: is made; with `force` it may replace one that holds nothing but safetensors and their index.
        entries: of all tensors but those that `ties` maps to another; shards take them in their order.
        arriving: these tensors, in any order.
        limit: bytes of the tensors of a shard; a larger tensor has one to itself, with those that are tied to it.
        ties: as for `save_safetensors`; tied tensors are in one shard.

    Raises:
        TersorError: as `stream_safetensors`, or the limit would make more than `MOST` shards.
    """
    ties = ties or {}
    shards = _divided(with_ties(folder, entries, ties), ties, limit)
    if len(shards) > MOST:
        raise TersorError(f"cannot write {folder}: {len(shards)} shards are more than {MOST}; allow larger ones")
    names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    places: dict[str, tuple[BinaryIO, Layout]] = {}
    sizes = []
    with atomic_folder(folder, force=force, ours=_is_ours) as made, ExitStack() as files:
        for name, shard in zip(names, shards, strict=True):
            inside = {entry.name for entry in shard}
            layout = layout_of(folder, shard, {a: owner for a, owner in ties.items() if a in inside})
            out = files.enter_context(open(made / name, "xb"))
            reserve(out, layout.size)
            out.write(layout.header)
            places |= {entry.name: (out, layout) for entry in shard}
            sizes.append(layout.size)
        fill(places, arriving, ties)
        where = {entry.name: name for name, shard in zip(names, shards, strict=True) for entry in shard}
        total = sum(nbytes(entry) for shard in shards for entry in shard)
        text = json.dumps({"metadata": {"total_size": total}, "weight_map": where}, ensure_ascii=False, indent=1)
        (made / INDEX_NAME).write_text(text + "\n", encoding="utf-8")
    return sizes


def _divided(entries: Sequence[Entry], ties: Mapping[str, str], limit: int) -> list[list[Entry]]:
    """Entries shard by shard, those that are tied beside their owner."""
    together: dict[str, list[Entry]] = {}
    for entry in entries:
        together.setdefault(ties.get(entry.name, entry.name), []).append(entry)
    shards: list[list[Entry]] = [[]]
    filled = 0
    for tied in together.values():
        size = sum(map(nbytes, tied))
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1] += tied
        filled += size
    return shards


def _is_ours(name: str) -> bool:
    return name.endswith((".safetensors", ".safetensors.index.json"))
