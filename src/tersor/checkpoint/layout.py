"""Where tensors lie in a safetensors file, from their names, dtypes and shapes alone.

Layout: the length of the header (8 bytes, little-endian), the header (JSON, padded to 8 bytes), the tensors. The
header keeps the order of the names; the tensors lie by descending element size, so that all are aligned.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tersor.checkpoint.header import ITEM_BYTES, SAFETENSORS_CODES, TIES_KEY, to_header_shape
from tersor.checkpoint.inventory import Entry
from tersor.errors import TersorError


@dataclass(frozen=True)
class Layout:
    """A file before its tensors are there.

    Attributes:
        header: its first bytes, the length included.
        starts: where each tensor begins in the file, by name, in the order in which they lie there.
        size: of the whole file.
    """

    header: bytes
    starts: dict[str, int]
    size: int


def with_ties(path: str | os.PathLike[str], entries: Sequence[Entry], ties: Mapping[str, str]) -> list[Entry]:
    """The entries, tied as `ties` says, and behind them those of tied names that are not among them.

    Raises:
        TersorError: a name is tied to what is no tensor of its own, or to one of another dtype or shape.
    """
    named = {entry.name: entry for entry in entries}
    for alias, name in ties.items():
        owner = named.get(name)
        if owner is None or name in ties:
            raise TersorError(f"cannot write {path}: {alias!r} is tied to {name!r}, which is no tensor of its own")
        repeat = named.setdefault(alias, Entry(alias, owner.dtype, owner.shape))
        if (repeat.dtype, repeat.shape) != (owner.dtype, owner.shape):
            raise TersorError(f"cannot write {path}: {alias!r} and {name!r} are tied but differ in dtype or shape")
        named[alias] = Entry(alias, owner.dtype, owner.shape, name)
    return list(named.values())


def layout_of(
    path: str | os.PathLike[str],
    entries: Sequence[Entry],
    metadata: Mapping[str, str] | None = None,
) -> Layout:
    """The layout of a file of these tensors; those that are tied to another are in it in full, and so noted.

    Ties are metadata, and with metadata goes `"format": "pt"`, without which transformers refuses a file.

    Raises:
        TersorError: a name or a dtype that the format cannot hold.
    """
    for entry in entries:
        if entry.name == "__metadata__":
            raise TersorError(f"cannot write {path}: safetensors reserves the name '__metadata__'; rename the tensor")
        if entry.dtype not in SAFETENSORS_CODES:
            raise TersorError(
                f"cannot write {path}: tensor {entry.name!r} has dtype {entry.dtype}, which safetensors lacks; "
                "convert it first"
            )
    spans: dict[str, list[int]] = {}
    end = 0
    for entry in sorted(entries, key=lambda entry: -ITEM_BYTES[entry.dtype]):
        start, end = end, end + entry.nbytes
        spans[entry.name] = [start, end]
    about = dict(metadata or {})
    ties = {entry.name: entry.tied_to for entry in entries if entry.tied_to is not None}
    if ties:
        about = {"format": "pt", **about, TIES_KEY: json.dumps(ties, ensure_ascii=False)}
    content: dict[str, Any] = {"__metadata__": about} if about else {}
    for entry in entries:
        try:
            shape = to_header_shape(entry.dtype, entry.shape)
        except ValueError as error:
            raise TersorError(f"cannot write {path}: tensor {entry.name!r}: {error}; reshape it first") from error
        content[entry.name] = {
            "dtype": SAFETENSORS_CODES[entry.dtype], "shape": shape, "data_offsets": spans[entry.name]
        }  # fmt: skip
    try:
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise TersorError(f"cannot write {path}: a name is not valid Unicode ({error.reason}); rename it") from error
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    return Layout(header, {name: len(header) + start for name, (start, _) in spans.items()}, len(header) + end)
