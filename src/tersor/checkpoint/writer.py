"""Writing plain safetensors, one tensor at a time, so that no second copy of the network is ever in memory.

Layout: the length of the header (8 bytes, little-endian), the header (JSON, padded to 8 bytes), the tensors. The
header keeps the order of the names; the tensors lie by descending element size, so that all are aligned.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tersor.checkpoint.header import ITEM_BYTES, SAFETENSORS_CODES, TIES_KEY, to_header_shape
from tersor.errors import TersorError
from tersor.files import atomic_output

if TYPE_CHECKING:
    import torch


def save_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, torch.Tensor] | Iterable[tuple[str, torch.Tensor]],
    *,
    ties: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
    force: bool = False,
) -> int:
    """Write tensors under their names, in their order, and return the bytes written.

    `ties` maps a name to the name whose tensor it repeats. Each such name is in the file in full (from its owner,
    where `tensors` lacks it), so any loader finds it, and metadata `tersor.ties` lets `open_checkpoint` tie it again.

    Raises:
        TersorError: a name, a dtype or a tie that the format cannot hold, or the file cannot be written
            (see `atomic_output`).
    """
    import torch

    from tersor.checkpoint.memory import settle

    named = _named(path, tensors)
    _add_ties(path, named, ties or {})
    about = {**(metadata or {}), **({TIES_KEY: json.dumps(dict(ties), ensure_ascii=False)} if ties else {})}
    header, order = _layout(path, named, about)
    with atomic_output(path, force=force) as out:
        out.write(header)
        for name in order:
            out.write(settle(named[name]).reshape(-1).view(torch.uint8).numpy().data)
        return out.tell()


def _named(
    path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor] | Iterable[tuple[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    from tersor.checkpoint.memory import check_plain

    named: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items() if isinstance(tensors, Mapping) else tensors:
        if name in named:
            raise TersorError(f"cannot write {path}: two tensors are named {name!r}; rename one")
        named[name] = check_plain(name, tensor, f"cannot write {path}")
    return named


def _add_ties(path: str | os.PathLike[str], named: dict[str, torch.Tensor], ties: Mapping[str, str]) -> None:
    for alias, name in ties.items():
        owner = named.get(name)
        if owner is None or name in ties:
            raise TersorError(f"cannot write {path}: {alias!r} is tied to {name!r}, which is no tensor of its own")
        repeat = named.setdefault(alias, owner)
        if (repeat.dtype, repeat.shape) != (owner.dtype, owner.shape):
            raise TersorError(f"cannot write {path}: {alias!r} and {name!r} are tied but differ in dtype or shape")


def _layout(
    path: str | os.PathLike[str], named: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> tuple[bytes, list[str]]:
    """The header, its length in front, and the names in the order in which their tensors follow it."""
    from tersor.checkpoint.memory import dtype_name

    dtypes = {name: dtype_name(tensor) for name, tensor in named.items()}
    for name, dtype in dtypes.items():
        if name == "__metadata__":
            raise TersorError(f"cannot write {path}: safetensors reserves the name '__metadata__'; rename the tensor")
        if dtype not in SAFETENSORS_CODES:
            raise TersorError(
                f"cannot write {path}: tensor {name!r} has dtype {dtype}, which safetensors lacks; convert it first"
            )
    order = sorted(named, key=lambda name: -ITEM_BYTES[dtypes[name]])
    spans: dict[str, list[int]] = {}
    end = 0
    for name in order:
        start, end = end, end + named[name].numel() * ITEM_BYTES[dtypes[name]]
        spans[name] = [start, end]
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    for name, tensor in named.items():
        try:
            shape = to_header_shape(dtypes[name], tuple(tensor.shape))
        except ValueError as error:
            raise TersorError(f"cannot write {path}: tensor {name!r}: {error}; reshape it first") from error
        header[name] = {"dtype": SAFETENSORS_CODES[dtypes[name]], "shape": shape, "data_offsets": spans[name]}
    try:
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise TersorError(f"cannot write {path}: a name is not valid Unicode ({error.reason}); rename it") from error
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, order
