"""The outer container: a valid safetensors file with two entries, `index` and `data`.

Everything small lives in the index (compressed, its own checksum in front); `data` is sections one after the other,
whose lengths and checksums the index lists. The safetensors header follows from the two lengths, so a reader rebuilds
it and compares: no byte of it can be wrong unnoticed. Layout: `docs/format.md`.
"""

from __future__ import annotations

import json
import re
import zlib
from typing import BinaryIO

from tersor.errors import ArchiveError

VERSION = 3
"""The newest format version there is; files say the oldest that has all they need."""
_MAX_HEADER = 4096


def header(index_length: int, data_length: int, version: int = 1) -> bytes:
    """The safetensors header, length word included, for an index and data of these lengths."""
    end = index_length + data_length
    text = (
        f'{{"__metadata__":{{"tersor":"{version}"}},'
        f'"index":{{"dtype":"U8","shape":[{index_length}],"data_offsets":[0,{index_length}]}},'
        f'"data":{{"dtype":"U8","shape":[{data_length}],"data_offsets":[{index_length},{end}]}}}}'
    )
    text += " " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text.encode()


def read_header(file: BinaryIO, size: int) -> tuple[int, int, int, int]:
    """Start and length of the index, length of the data, format version, from a file of `size` bytes at its beginning.

    Raises:
        ArchiveError: not an archive, a newer version, truncated, or a header that is not the canonical one.
    """
    word = file.read(8)
    length = int.from_bytes(word, "little")
    if size == 0:
        raise ArchiveError("the file is empty")
    if size < 8 or length > min(_MAX_HEADER, size - 8):
        raise ArchiveError("not a tersor archive (or one cut short)")
    text = file.read(length)
    try:
        parsed = json.loads(text)
        version = parsed["__metadata__"]["tersor"]
        lengths = [parsed[name]["shape"][0] for name in ("index", "data")]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise ArchiveError("not a tersor archive") from error
    number = int(version) if isinstance(version, str) and re.fullmatch(r"[0-9]{1,9}", version) else 0
    if number > VERSION:
        raise ArchiveError(f"format version {version} is newer than this tersor reads ({VERSION}): upgrade tersor")
    known = number > 0 and all(isinstance(n, int) and 0 <= n <= size for n in lengths)
    if not known or word + text != header(lengths[0], lengths[1], number):
        raise ArchiveError("the header is damaged")
    if size != 8 + length + sum(lengths):
        raise ArchiveError(f"the file has {size} bytes where its header says {8 + length + sum(lengths)}: cut short?")
    return 8 + length, lengths[0], lengths[1], number


def checksum(data: bytes) -> int:
    """CRC-32 of a section."""
    return zlib.crc32(data)
