"""An index and sections become the bytes of a file."""

from __future__ import annotations

import math

from msgspec.structs import replace

import tersor
from tersor import index as indices
from tersor.codec import container
from tersor.index import ELEMENTS_PER_BYTE, GRACE, Index


def assemble(index: Index, sections: list[bytes]) -> bytes:
    """The file: header, index, sections; padded where shapes would otherwise look implausible to a reader.

    Args:
        index: complete but for `tool`, `lengths` and `checks`, which are set here.
        sections: without the padding, which is added here.
    """
    elements = sum(math.prod(shape) for i, shape in enumerate(index.shapes) if i not in index.ties)
    padding = bytes(max(0, elements // ELEMENTS_PER_BYTE - GRACE - sum(map(len, sections))))
    every = [*sections, padding]
    packed = indices.pack(
        replace(
            index,
            tool=tersor.__version__,
            lengths=tuple(map(len, every)),
            checks=tuple(map(container.checksum, every)),
        )
    )
    data = b"".join(every)
    return container.header(len(packed), len(data), indices.version_of(index)) + packed + data
