"""The lattice stage's four kernels: search, measure, encode, decode. NumPy arrays in and out, CPU only.

The native versions run chunks in parallel; without the extension the Python twins in `twin` give the same
results bit for bit, two orders of magnitude slower.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tersor.codec import ans
from tersor.errors import ArchiveError
from tersor.kernels.native import extension
from tersor.kernels.threads import thread_count
from tersor.lattice import twin
from tersor.lattice.contexts import CONTEXTS
from tersor.lattice.trellis import Trellis


class Scan(NamedTuple):
    """What the kernels visit: planes [planes, 7] (see `Planes.kernel_table`), cut into chunks."""

    planes: NDArray[np.int64]
    chunk_planes: NDArray[np.int64]
    chunk_starts: NDArray[np.int64]

    def chunks(self, which: list[int]) -> Scan:
        """The same with only some of its chunks, in the order given."""
        planes = [self.planes[self.chunk_planes[c] : self.chunk_planes[c + 1]] for c in which]
        sizes = [int(self.chunk_starts[c + 1] - self.chunk_starts[c]) for c in which]
        return Scan(
            np.concatenate([*planes, np.zeros((0, 7), dtype=np.int64)]),
            np.concatenate([[0], np.cumsum([len(p) for p in planes])]).astype(np.int64),
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        )


class Measure(NamedTuple):
    """Counts int64 [2 * contexts, tokens]; bits float64 and sum of levels int64 per plane."""

    counts: NDArray[np.int64]
    bits: NDArray[np.float64]
    levels: NDArray[np.int64]


def search(
    x: NDArray[np.float32],
    step: float,
    weight: NDArray[np.float32] | None,
    scan: Scan,
    cost: NDArray[np.float32],
    lam: float,
    trellis: Trellis,
) -> NDArray[np.int32]:
    """Signed magnitudes that minimise `weight * (x / step - level)**2 + lam * bits` over all paths of the trellis.

    Args:
        x: values, float32 [symbols].
        step: distance of neighbouring levels.
        weight: importance of each value, or None.
        scan: planes and chunks; each chunk starts in state 0.
        cost: bits of each token, uncoded bits included, float32 [2 * CONTEXTS, tokens].
        lam: squared error (in steps) worth one bit.
        trellis: the code.
    """
    out = np.zeros(x.size, dtype=np.int32)
    inverse = np.float32(1.0 / step)
    x, cost = np.ascontiguousarray(x, dtype=np.float32), np.ascontiguousarray(cost, dtype=np.float32)
    module = extension()
    if module is None:
        twin.search(x * inverse, weight, scan, cost, lam, trellis, out)
    else:
        module.trellis_search(x, float(inverse), weight, *scan, cost, float(lam), *trellis, out, thread_count())
    return out


def measure(
    symbols: NDArray[np.signedinteger], scan: Scan, cost: NDArray[np.float32] | None, trellis: Trellis, tokens: int
) -> Measure:
    """Count tokens per context, and add up bits under `cost` and levels per plane."""
    symbols = np.ascontiguousarray(symbols, dtype=np.int32)
    chunks = len(scan.chunk_starts) - 1
    counts = np.zeros((max(chunks, 1), 2 * CONTEXTS, tokens), dtype=np.int64)
    bits = np.zeros(len(scan.planes), dtype=np.float64)
    levels = np.zeros(len(scan.planes), dtype=np.int64)
    module = extension()
    if module is None:
        twin.measure(symbols, scan, cost, trellis, counts, bits, levels)
    elif chunks:
        module.trellis_measure(symbols, *scan, cost, *trellis, tokens, counts, bits, levels, thread_count())
    return Measure(counts.sum(axis=0), bits, levels)


def levels_of(
    symbols: NDArray[np.signedinteger], chunk_starts: NDArray[np.int64], trellis: Trellis
) -> NDArray[np.int32]:
    """Levels (signed multiples of the step) that symbols stand for, int32 [symbols]; each chunk starts in state 0."""
    symbols = np.ascontiguousarray(symbols, dtype=np.int32)
    levels = np.zeros(symbols.size, dtype=np.int32)
    module = extension()
    if module is None:
        twin.levels_of(symbols, chunk_starts, trellis, levels)
    elif len(chunk_starts) > 1:
        module.trellis_levels(symbols, chunk_starts, *trellis, levels, thread_count())
    return levels


def centred(
    levels: NDArray[np.int32], parts: int, shifts: tuple[int, int, int], scale: np.float32
) -> NDArray[np.float32]:
    """What levels stand for: each moved towards zero by the shift of level 1, 2 or above, in `parts` of one; scaled."""
    module = extension()
    if module is None:
        return twin.centred(levels, parts, shifts) * scale
    flat = np.ascontiguousarray(levels, dtype=np.int32).reshape(-1)
    out = np.empty(flat.size, dtype=np.float32)
    module.trellis_centre(flat, parts, *shifts, float(scale), out)
    return out.reshape(levels.shape)


def encode(
    symbols: NDArray[np.signedinteger],
    planes: NDArray[np.int64],
    table: NDArray[np.uint32],
    precision: int,
    trellis: Trellis,
) -> bytes:
    """Code the symbols of one chunk; `table` holds frequencies [2 * CONTEXTS, tokens]."""
    symbols = np.ascontiguousarray(symbols, dtype=np.int32)
    module = extension()
    if module is None:
        return twin.encode(symbols, planes, table, precision, trellis)
    return bytes(module.lattice_encode(symbols, planes, table, precision, *trellis))


def decode(
    streams: list[bytes], scan: Scan, table: NDArray[np.uint32], precision: int, trellis: Trellis
) -> NDArray[np.int32]:
    """Decode chunks to levels (signed multiples of the step), int32 [symbols].

    Raises:
        ArchiveError: a stream does not end exactly with its chunk's last symbol.
    """
    arrays = [ans.words(stream) for stream in streams]
    starts = np.concatenate([[0], np.cumsum([len(a) for a in arrays])]).astype(np.int64)
    words = np.concatenate([*arrays, np.zeros(0, np.uint32)]).astype(np.uint32)
    levels = np.zeros(int(scan.chunk_starts[-1] - scan.chunk_starts[0]), dtype=np.int32)
    module = extension()
    if module is None:
        bad = twin.decode(words, starts, scan, table, precision, trellis, levels)
    else:
        bad = module.lattice_decode(words, starts, *scan, table, precision, *trellis, levels, thread_count())
    if bad >= 0:
        raise ArchiveError("a lattice stream does not end with its last symbol")
    return levels
