"""The one file of every tuned baseline: a header as of a tersor archive, coded sections, everything else as bfloat16.

Layout: length of the header (uint32), header (msgpack under zstd 19), sections. The header names the method, all
tensors with types, shapes and ties, the method's settings, and the lengths of the sections; the last sections are those
of the tensors without codes (`kept.sections`).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import torch
import zstandard

from tersor.checkpoint.header import ITEM_BYTES
from tersor.index import DTYPES
from tersor.representations import kept

Listing = list[tuple[str, int, tuple[int, ...], int]]
"""Per tensor of the state dict: name, position of its type in `DTYPES`, shape, position of the one it is tied to."""


def listing(state: Mapping[str, torch.Tensor]) -> Listing:
    """The tensors of a state dict taken with `keep_vars=True`; tied ones are the same object."""
    first: dict[int, int] = {}
    return [
        (name, DTYPES.index(_name(value.dtype)), tuple(value.shape), first.setdefault(id(value), i))
        for i, (name, value) in enumerate(state.items())
    ]


def assemble(method: str, tensors: Listing, settings: Any, coded: Sequence[bytes], rest: Sequence[bytes]) -> bytes:
    """The whole file. `settings` are plain data."""
    columns = [list(column) for column in zip(*tensors, strict=True)]
    lengths = [list(map(len, coded)), list(map(len, rest))]
    header = zstandard.compress(msgspec.msgpack.encode([method, columns, settings, lengths]), 19)
    return struct.pack("<I", len(header)) + header + b"".join(coded) + b"".join(rest)


def parse(blob: bytes, method: str, tensors: Listing) -> tuple[Any, list[bytes], list[bytes]]:
    """(settings, coded sections, other sections) of a file of this method and network."""
    (length,) = struct.unpack_from("<I", blob)
    found, columns, settings, lengths = msgspec.msgpack.decode(zstandard.decompress(blob[4 : 4 + length]))
    mine = [[list(v) if isinstance(v, tuple) else v for v in column] for column in zip(*tensors, strict=True)]
    if found != method or columns != mine:
        raise ValueError(f"a file of {found}, or of another network, is no file of {method} and this one")
    at, parts = 4 + length, []
    for count in (*lengths[0], *lengths[1]):
        parts.append(blob[at : at + count])
        at += count
    if at != len(blob):
        raise ValueError("the file has the wrong length")
    return settings, parts[: len(lengths[0])], parts[len(lengths[0]) :]


def pack_kept(tensors: Sequence[torch.Tensor]) -> list[bytes]:
    """Sections of tensors without codes: floats as bfloat16, all others as they are."""
    stored = [_stored(t) for t in tensors]
    return kept.sections([(kept.raw(t), DTYPES.index(_name(t.dtype)), _name(t.dtype)) for t in stored])


@torch.no_grad()
def unpack_kept(sections: Sequence[bytes], tensors: Sequence[torch.Tensor]) -> None:
    """Put what `pack_kept` wrote into tensors of the same types and shapes, in place."""
    pools: dict[int, list[torch.Tensor]] = {}
    large = []
    for tensor in tensors:
        dtype = _stored(tensor[:0] if tensor.ndim else tensor).dtype
        if tensor.numel() * dtype.itemsize <= kept.POOLED:
            pools.setdefault(DTYPES.index(_name(dtype)), []).append(tensor)
        else:
            large.append((dtype, [tensor]))
    groups = [(getattr(torch, DTYPES[kind]), members) for kind, members in sorted(pools.items())] + large
    for section, (dtype, members) in zip(sections, groups, strict=True):
        count = sum(t.numel() for t in members)
        data = kept.unpack(section, ITEM_BYTES[_name(dtype)], count) if count else b""
        values = torch.frombuffer(bytearray(data), dtype=dtype) if count else torch.empty(0, dtype=dtype)
        for tensor, row in zip(members, values.split([t.numel() for t in members]), strict=True):
            tensor.copy_(row.reshape(tensor.shape))


def _stored(tensor: torch.Tensor) -> torch.Tensor:
    value = tensor.detach().cpu()
    return value.bfloat16() if value.is_floating_point() else value


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
