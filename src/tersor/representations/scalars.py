"""Scalar groups: tensors whose weights are each one of few values, integers on an affine grid or a shared palette.

Sections of a scalar group: its values (scales and zero points of all tensors, or the palette), then the symbols of each
tensor. Nothing is searched here by rate: what a weight becomes follows from the grid or the palette alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tersor.codec import integers
from tersor.errors import ArchiveError
from tersor.representations import affine, kept, symbols
from tersor.representations.affine import Grid
from tersor.representations.sharing import Shared

MAX_PALETTE = 1 << 16


class ScalarRecord(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What the index says of a scalar group.

    `bits` is 0 for a palette of `size` values; else integers of so many bits, a scale per tensor (`block` 0), per row
    (-1) or per run of `block` weights, with zero points or not. `methods` says how each tensor's symbols are coded.
    """

    tensors: tuple[int, ...]
    bits: int
    block: int
    zeros: bool
    size: int
    methods: tuple[int, ...]

    @property
    def text(self) -> str:
        """The scheme in words."""
        if not self.bits:
            return f"shared{self.size}"
        return affine.scheme(self.bits, self.block, self.zeros)


def check(record: ScalarRecord, shapes: Sequence[tuple[int, ...]]) -> str:
    """What is wrong with a record for tensors of these shapes; empty if nothing is."""
    if len(record.methods) != len(record.tensors) or not record.tensors:
        return "a scalar group of nothing"
    if not all(0 <= m < len(symbols.METHODS) for m in record.methods):
        return "an unknown coding of symbols"
    if record.bits == 0:
        plain = record.block == 0 and not record.zeros
        return "" if plain and 1 <= record.size <= MAX_PALETTE else "a palette out of range"
    if not affine.MIN_BITS <= record.bits <= affine.MAX_BITS or record.size != 1 << record.bits:
        return "integers out of range"
    fitting = record.block >= -1 and all(affine.fits(shape, record.block) for shape in shapes)
    return "" if fitting else "scales that do not fit their tensors"


def section_count(record: ScalarRecord) -> int:
    """Sections of a scalar group."""
    return 1 + len(record.tensors)


def encode_integers(
    tensors: tuple[int, ...],
    arrays: Sequence[NDArray[np.float32]],
    bits: int,
    block: int,
    with_zero: bool,
    grids: Sequence[Grid | None],
) -> tuple[ScalarRecord, list[bytes], list[NDArray[np.float32]]]:
    """Record, sections and decoded values of tensors as integers; `grids` where they are known already."""
    found = [
        given if given is not None else affine.fit(a, bits, block, with_zero)
        for a, given in zip(arrays, grids, strict=True)
    ]
    low, _ = affine.limits(bits, with_zero)
    methods, parts, decoded = [], [], []
    for array, grid in zip(arrays, found, strict=True):
        q = affine.quantize(array, grid, bits, block, with_zero)
        method, data = symbols.pack(q - low, 1 << bits, None if with_zero else -low)
        methods.append(method)
        parts.append(data)
        decoded.append(affine.dequantize(q, grid, block))
    record = ScalarRecord(tensors, bits, block, with_zero, 1 << bits, tuple(methods))
    return record, [pack_grids(found, with_zero), *parts], decoded


def encode_shared(
    tensors: tuple[int, ...], arrays: Sequence[NDArray[np.float32]], shared: Shared
) -> tuple[ScalarRecord, list[bytes], list[NDArray[np.float32]]]:
    """Record, sections and decoded values of tensors that share a palette; codes are those of all, joined flat."""
    zero = zero_of(shared.palette)
    methods, parts, decoded, at = [], [], [], 0
    for array in arrays:
        codes = shared.codes.reshape(-1)[at : at + array.size].reshape(array.shape).astype(np.int32)
        at += array.size
        method, data = symbols.pack(codes, len(shared.palette), zero)
        methods.append(method)
        parts.append(data)
        decoded.append(shared.palette[codes])
    record = ScalarRecord(tensors, 0, 0, False, len(shared.palette), tuple(methods))
    return record, [kept.pack(shared.palette.astype("<f4").tobytes(), 4), *parts], decoded


def pack_grids(grids: Sequence[Grid], with_zero: bool) -> bytes:
    """Scales (the upper halves of float32 numbers), then zero points if there are any."""
    upper = [(g.scales.view(np.uint32) >> 16).astype("<u2").tobytes() for g in grids]
    data = kept.pack(b"".join(upper), 2)
    if not with_zero:
        return data
    return len(data).to_bytes(4, "little") + data + integers.pack(np.concatenate([g.zeros for g in grids]))


def zero_of(palette: NDArray[np.float32]) -> int | None:
    """Which of the values is zero."""
    found = np.flatnonzero(palette == 0)
    return int(found[0]) if found.size else None


class ScalarReader:
    """A scalar group of a file.

    Args:
        record: what the index says.
        shapes: of its tensors.
        section: reads the i-th of its sections.
    """

    def __init__(
        self, record: ScalarRecord, shapes: Sequence[tuple[int, ...]], section: Callable[[int], bytes]
    ) -> None:
        self.record, self.shapes, self._section = record, [tuple(s) for s in shapes], section
        self._values: Any = None

    @property
    def palette(self) -> NDArray[np.float32]:
        """The shared values, float32 [size].

        Raises:
            ArchiveError: damaged.
        """
        if self._values is None:
            raw = kept.unpack(self._section(0), 4, self.record.size)
            self._values = np.frombuffer(raw, dtype="<f4").astype(np.float32)
            if not np.isfinite(self._values).all():
                raise ArchiveError("a palette holds NaN or infinity")
        found: NDArray[np.float32] = self._values
        return found

    @property
    def grids(self) -> list[Grid]:
        """Scales and zero points of each tensor.

        Raises:
            ArchiveError: damaged.
        """
        if self._values is None:
            self._values = self._read_grids()
        found: list[Grid] = self._values
        return found

    def _read_grids(self) -> list[Grid]:
        block = self.record.block
        counts = [_units(shape, block) for shape in self.shapes]
        data, tail = self._section(0), b""
        if self.record.zeros:
            length = int.from_bytes(data[:4], "little")
            data, tail = data[4 : 4 + length], data[4 + length :]
        upper = np.frombuffer(kept.unpack(data, 2, sum(counts)), dtype="<u2").astype(np.uint32)
        scales = (upper << 16).view(np.float32)
        if not (np.isfinite(scales).all() and (scales > 0).all()):
            raise ArchiveError("a scale of integers is out of range")
        zeros = np.zeros(sum(counts), dtype=np.int32)
        if self.record.zeros:
            low, high = affine.limits(self.record.bits, True)
            read = integers.unpack(tail, sum(counts))
            if read.size and not low <= read.min() <= read.max() <= high:
                raise ArchiveError("a zero point is out of range")
            zeros = read.astype(np.int32)
        ends = np.cumsum(counts)[:-1]
        return [Grid(s, z) for s, z in zip(np.split(scales, ends), np.split(zeros, ends), strict=True)]

    def symbols(self, t: int) -> NDArray[np.int32]:
        """Symbols of the t-th tensor, from 0, in its shape.

        Raises:
            ArchiveError: damaged.
        """
        low, _ = affine.limits(max(self.record.bits, 2), self.record.zeros)
        zero = zero_of(self.palette) if not self.record.bits else (None if self.record.zeros else -low)
        return symbols.unpack(self._section(1 + t), self.record.methods[t], self.shapes[t], self.record.size, zero)

    def read(self, t: int) -> NDArray[np.float32]:
        """Values of the t-th tensor.

        Raises:
            ArchiveError: damaged.
        """
        found = self.symbols(t)
        if not self.record.bits:
            return self.palette[found]
        low, _ = affine.limits(self.record.bits, self.record.zeros)
        return affine.dequantize(found + low, self.grids[t], self.record.block)


def _units(shape: tuple[int, ...], block: int) -> int:
    """How many scales a tensor has."""
    if block == affine.PER_TENSOR:
        return 1
    if block == affine.PER_ROW:
        return shape[0] if len(shape) > 1 else 1
    return int(np.prod(shape, dtype=np.int64)) // block
