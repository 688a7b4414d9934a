"""Kept tensors: stored without codes, exactly.

The bytes of all values are regrouped by significance (all first bytes, all second bytes, ...), because the exponents
of floats and the high bytes of integers repeat while their low bytes do not; each plane is then compressed by zstd, or
left as it is where that is shorter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import zstandard

from tersor.checkpoint.header import ITEM_BYTES
from tersor.errors import ArchiveError

if TYPE_CHECKING:
    import torch

_LEVEL = 19

POOLED = 1 << 20
"""Kept tensors up to this many bytes share a section with the others of their type."""


def raw(tensor: torch.Tensor) -> bytes:
    """The bytes of a tensor's elements, in storage order."""
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def units(tensors: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Which tensors, given as (position of the stored type in the format's list, bytes), share each section.

    Small ones of a type share, types in order; then each large one has its own. Places in the sequence are returned.
    """
    pools: dict[int, list[int]] = {}
    large = []
    for i, (kind, size) in enumerate(tensors):
        if size <= POOLED:
            pools.setdefault(kind, []).append(i)
        else:
            large.append([i])
    return [members for _, members in sorted(pools.items())] + large


def sections(tensors: Sequence[tuple[bytes, int, str]]) -> list[bytes]:
    """Sections of tensors given as (bytes, position of the type in the format's list, type)."""
    return [
        pack(b"".join(tensors[i][0] for i in members), ITEM_BYTES[tensors[members[0]][2]])
        for members in units([(kind, len(data)) for data, kind, _ in tensors])
    ]


def pack(data: bytes, itemsize: int) -> bytes:
    """Compress values of `itemsize` bytes each.

    Layout: per byte plane a four-byte little-endian length (top bit set where the plane is compressed), and the plane.
    """
    out = []
    for i in range(itemsize):
        plane = data[i::itemsize]
        small = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False).compress(plane)
        flag, plane = (1 << 31, small) if len(small) < len(plane) else (0, plane)
        out.append((len(plane) | flag).to_bytes(4, "little") + plane)
    return b"".join(out)


def unpack(data: bytes, itemsize: int, count: int) -> bytes:
    """The values' bytes, `itemsize * count` of them.

    Raises:
        ArchiveError: the bytes are not what `pack` writes for that many values.
    """
    planes, at = [], 0
    for _ in range(itemsize):
        head = int.from_bytes(data[at : at + 4], "little")
        length = head & ~(1 << 31)
        plane = data[at + 4 : at + 4 + length]
        at += 4 + length
        if at > len(data):
            raise ArchiveError("kept tensors are cut short")
        if head >> 31:
            plane = _decompress(plane, count)
        if len(plane) != count:
            raise ArchiveError("kept tensors have the wrong size")
        planes.append(plane)
    if at != len(data):
        raise ArchiveError("kept tensors are followed by stray bytes")
    out = bytearray(itemsize * count)
    for i, plane in enumerate(planes):
        out[i::itemsize] = plane
    return bytes(out)


def _decompress(plane: bytes, count: int) -> bytes:
    try:
        if zstandard.frame_content_size(plane) != count:
            raise ArchiveError("kept tensors have the wrong size")
        return zstandard.ZstdDecompressor().decompress(plane, max_output_size=count, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ArchiveError("kept tensors are damaged") from error
