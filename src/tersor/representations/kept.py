"""Kept tensors: stored without codes, exactly.

The bytes of all values are regrouped by significance (all first bytes, all second bytes, ...), because the exponents
of floats and the high bytes of integers repeat while their low bytes do not; each plane is then compressed by zstd, or
left as it is where that is shorter.
"""

from __future__ import annotations

import zstandard

from tersor.errors import ArchiveError

_LEVEL = 19


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
