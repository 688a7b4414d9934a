"""Sparse groups: tensors with zeros that stay zeros, as masks and runs of survivors (see `mask`).

The mask of a tensor stands in the section of the chunk in which its survivors end; one whose elements are all zero, or
all not, needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tersor.lattice.planes import Planes
from tersor.representations import mask, mask_fit, vectors

Number = TypeVar("Number", np.float32, np.int32)
_HOLD = np.float32(1e9)  # importance of an error where nothing but zero will do


class Masks:
    """The masks of a group that is being encoded.

    Where `whole` is set, tensors are coded with their zeros: masks say that everything survives, and the search is held
    to the level zero where a tensor is zero. At coarse steps, where survivors fall to zero in numbers, that costs less.

    Args:
        tensors: in order; where they are zero they are to stay zero.
    """

    def __init__(self, tensors: Iterable[NDArray[np.float32]]) -> None:
        self._alive = [values != 0 for values in tensors]
        self.counts = [int(np.count_nonzero(m)) for m in self._alive]
        self.whole = False
        self._made: list[bytes] | None = None

    @property
    def survivors(self) -> tuple[int, ...]:
        """Elements of each tensor that its mask, as it is to be written, leaves."""
        return tuple(m.size for m in self._alive) if self.whole else tuple(self.counts)

    def cut(self, t: int, values: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
        """Vectors [rows, cols, dim] of values shaped like tensor t, zero where it is."""
        alive = self._alive[t]
        if self.whole or self.counts[t] == alive.size:
            return vectors.cut(np.where(alive, values, np.float32(0)), dim)
        return vectors.cut_run(values[alive], dim)

    def join(self, t: int, cut: NDArray[np.float32]) -> NDArray[np.float32]:
        """Tensor t from its vectors."""
        return vectors.join(cut, self._alive[t].shape) if self.whole else scatter(cut, self._alive[t])

    def alive(self, t: int, cut: NDArray[np.float32]) -> NDArray[np.float32]:
        """What of the vectors of tensor t is not zero there, [n, 1, 1]."""
        flat = cut.reshape(-1)
        return (flat[: self._alive[t].size][self._alive[t].reshape(-1)] if self.whole else flat).reshape(-1, 1, 1)

    def held(self, t: int, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        """Importance [rows, cols, dim] of tensor t that lets zeros be nothing but zero."""
        return np.where(self.cut(t, self._alive[t].astype(np.float32), weight.shape[-1]) > 0, weight, _HOLD)

    def sections(self, planes: Planes) -> list[bytes]:
        """The section of each chunk."""
        return [b""] * (len(planes.chunk_starts) - 1) if self.whole else self._packed(planes)

    def _packed(self, planes: Planes) -> list[bytes]:
        if self._made is None:
            models = [mask_fit.fit(m) for m in self._alive]
            self._made = [mask.pack([self._alive[t] for t in ts], [models[t] for t in ts]) for ts in ends(planes)]
        return self._made


class MaskReader:
    """The masks of a group in a file, decoded when asked for.

    Args:
        shapes: of the tensors.
        survivors: of each tensor.
        planes: the scan order of the survivors.
        section: reads the masks of a chunk.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, ...]],
        survivors: Sequence[int],
        planes: Planes,
        section: Callable[[int], bytes],
    ) -> None:
        self.shapes, self.survivors, self._section = shapes, survivors, section
        self._ending = ends(planes)
        self._chunk = {t: c for c, ending in enumerate(self._ending) for t in ending}
        self._last: tuple[int, dict[int, NDArray[np.bool_]]] = (-1, {})
        self.bits = np.zeros(len(shapes))
        """What each mask takes, as far as they were read."""

    def read(self, chunk: int) -> dict[int, NDArray[np.bool_]]:
        """The masks that stand in a chunk, by tensor, shaped like it.

        Raises:
            ArchiveError: the section is not what shapes and survivors promise.
        """
        if self._last[0] != chunk:
            ending = self._ending[chunk]
            shapes, survivors = [self.shapes[t] for t in ending], [self.survivors[t] for t in ending]
            masks, bits = mask.unpack(self._section(chunk), shapes, survivors)
            self.bits[ending] = bits
            self._last = chunk, dict(zip(ending, masks, strict=True))
        return self._last[1]

    def mask(self, t: int) -> NDArray[np.bool_]:
        """Where tensor t is not zero, in its shape."""
        return self.read(self._chunk[t])[t] if t in self._chunk else np.zeros(self.shapes[t], dtype=np.bool_)

    def join(self, t: int, run: NDArray[np.float32]) -> NDArray[np.float32]:
        """Tensor t from its vectors."""
        return scatter(run, self.mask(t))


def scatter(run: NDArray[Number], where: NDArray[np.bool_]) -> NDArray[Number]:
    """A tensor of zeros with survivors, in storage order, where the mask is set."""
    out = np.zeros(where.shape, dtype=run.dtype)
    out[where] = run.reshape(-1)[: np.count_nonzero(where)]
    return out


def ends(planes: Planes) -> list[list[int]]:
    """Which tensors end in each chunk; those without survivors in none."""
    last = [
        [p.tensor for p in planes.chunk(c) if p.last == planes.shapes[p.tensor].rows]
        for c in range(len(planes.chunk_starts) - 1)
    ]
    return last
