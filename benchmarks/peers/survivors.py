"""A sparse tensor as two byte strings: which weights survived, and what they are.

The mask is the shorter of two codes: its bits, or the gaps between survivors, each entropy-coded. Its first byte says
which and the survivors' number precedes the gaps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.peers.tuned import Array, host
from tersor.codec import integers
from tersor.representations import kept


def pack(mask: torch.Tensor, values: torch.Tensor) -> list[bytes]:
    """Sections of the mask and of the survivors' values in row-major order: integers, or float16."""
    alive = host(mask)
    places = np.flatnonzero(alive)
    bitmap = b"\0" + integers.pack(alive.astype(np.int64))
    gaps = b"\1" + len(places).to_bytes(4, "little") + integers.pack(np.diff(places, prepend=-1) - 1)
    row = host(values)
    coded = kept.pack(row.tobytes(), 2) if row.dtype == np.float16 else integers.pack(row)
    return [min(bitmap, gaps, key=len), coded]


def unpack(sections: Sequence[bytes], size: int, bits: int) -> tuple[Array, Array]:
    """(mask, values) of a tensor with `size` weights; `bits` 16 for float16."""
    data, coded = sections
    if data[0] == 0:
        mask = integers.unpack(data[1:], size).astype(bool)
    else:
        count = int.from_bytes(data[1:5], "little")
        mask = np.zeros(size, bool)
        mask[np.cumsum(integers.unpack(data[5:], count) + 1) - 1] = True
    count = int(mask.sum())
    if bits == 16:
        return mask, np.frombuffer(kept.unpack(coded, 2, count), np.float16)
    return mask, integers.unpack(coded, count)
