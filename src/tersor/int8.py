"""Copies with int8 weights: for runtimes that multiply integers and know no codes.

A tensor NAME is int8 of its own shape, and NAME.scale is float32, one number per row of the first dimension; q is
within -127..127, symmetric. Source: weights per output channel (Krishnamoorthi, "Quantizing deep convolutional networks
for efficient inference", 2018, section 3.1). Reading one back:

file = safetensors.safe_open("out.safetensors", "numpy")
q, scale = file.get_tensor(name), file.get_tensor(f"{name}.scale")
w = q * scale.reshape(-1, *[1] * (q.ndim - 1))
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tersor.archive import Archive
from tersor.checkpoint import Entry, stream_shards
from tersor.checkpoint.layout import layout_of
from tersor.checkpoint.survey import PART, to_float32
from tersor.checkpoint.writer import Arriving, fill
from tersor.diff.gap import decibels
from tersor.errors import TersorError
from tersor.files import atomic_output, reserve
from tersor.representations import affine

if TYPE_CHECKING:
    import torch

SUFFIX = ".scale"
INT8_KEY = "tersor.int8"
"""Metadata key of a JSON list: names of the tensors that are int8 with scales beside them."""

_BITS = 8
_LEAST = np.finfo(np.float32).tiny  # a scale below it would lose digits


class Int8Copy:
    """An archive's tensors on their way to a file: coded floats of two or more dimensions as int8, others as they are.

    Attributes:
        names: of the tensors that become int8; those tied to them are so too.
        entries: of all tensors to be written, each scale behind its tensor.
    """

    def __init__(self, archive: Archive) -> None:
        """Decide from the index alone.

        Raises:
            TersorError: a scale's name is another tensor's.
        """
        coded = {archive.index.names[i] for members in archive.index.coded for i in members}
        self.names = [e.name for e in archive.entries if e.owner in coded and len(e.shape) > 1]
        clash = next((name for name in self.names if name + SUFFIX in archive), None)
        if clash is not None:
            raise TersorError(
                f"{archive.name}: the scales of {clash!r} would be named {clash + SUFFIX!r}, which is another tensor; "
                "rename one of them"
            )
        self.entries: list[Entry] = []
        chosen = set(self.names)
        for entry in archive.entries:
            if entry.name not in chosen:
                self.entries.append(entry)
                continue
            owner = None if entry.tied_to is None else entry.tied_to + SUFFIX
            self.entries.append(Entry(entry.name, "int8", entry.shape, entry.tied_to))
            self.entries.append(Entry(entry.name + SUFFIX, "float32", entry.shape[:1], owner))
        self._error = self._energy = 0.0

    @property
    def error_db(self) -> float | None:
        """Energy of what int8 changed over that of the tensors as decoded, in decibels, once they all went through.

        None where nothing changed.
        """
        return decibels(self._error, self._energy)

    def convert(self, arriving: Arriving) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors to be written, from the archive's as they come; measures the error on the way."""
        import torch

        chosen = set(self.names)
        for name, tensor in arriving:
            if name not in chosen:
                yield name, tensor
                continue
            integers, scales, error, energy = quantized(to_float32(tensor))
            del tensor
            self._error, self._energy = self._error + error, self._energy + energy
            yield name, torch.from_numpy(integers)
            yield name + SUFFIX, torch.from_numpy(scales)
            del integers

    def write(
        self, path: str | os.PathLike[str], arriving: Arriving, *, limit: int | None = None, force: bool = False
    ) -> list[int]:
        """Write the copy as tensors arrive, to one file or to shards of `limit` bytes; returns their bytes.

        One file says in its metadata which tensors are int8 (`INT8_KEY`).

        Raises:
            TersorError: as `stream_safetensors`, or `stream_shards`.
        """
        if limit is not None:
            return stream_shards(path, self.entries, self.convert(arriving), limit=limit, force=force)
        about = {"format": "pt", INT8_KEY: json.dumps(self.names, ensure_ascii=False)}
        layout = layout_of(path, self.entries, about)
        with atomic_output(path, force=force) as out:
            reserve(out, layout.size)
            out.write(layout.header)
            fill(path, self.entries, dict.fromkeys(layout.starts, (out, layout)), self.convert(arriving))
        return [layout.size]


def quantize_rows(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A float tensor of two or more dimensions as int8 in its shape, and float32 scales [rows]."""
    import torch

    integers, scales, _, _ = quantized(to_float32(tensor))
    return torch.from_numpy(integers), torch.from_numpy(scales)


def quantized(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32], float, float]:
    """Integers and scales of a tensor, the energy of their error, and the tensor's own.

    Args:
        values: finite, of two or more dimensions.

    Returns:
        int8 in the tensor's shape; float32 [rows], above 0; two sums of squares.
    """
    rows = values.reshape(len(values), -1)
    integers, scales = np.empty(rows.shape, dtype=np.int8), np.empty(len(rows), dtype=np.float32)
    error = energy = 0.0
    for part in _parts(*rows.shape):
        x = rows[part]
        grid = affine.Grid(_scales(x), np.zeros(len(x), dtype=np.int32))
        q = affine.quantize(x, grid, _BITS, affine.PER_ROW)
        error += float(np.square(x - affine.dequantize(q, grid, affine.PER_ROW), dtype=np.float64).sum())
        energy += float(np.square(x, dtype=np.float64).sum())
        integers[part], scales[part] = q, grid.scales
    return integers.reshape(values.shape), scales, error, energy


def _scales(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each row its largest magnitude / 127; 1 of zeros.

    Clipping the largest gains nothing at 8 bits: at best 0.03 dB over 21 shares down to a half, on three networks.
    """
    largest = np.abs(x).max(axis=1, initial=0)
    _, high = affine.limits(_BITS, False)
    with np.errstate(under="ignore"):
        scales = np.maximum(largest / np.float32(high), _LEAST)
    return np.where(largest > 0, scales, np.float32(1))


def _parts(rows: int, length: int) -> Iterable[slice]:
    """Rows a few million values at a time."""
    step = max(1, PART // max(length, 1))
    return (slice(at, at + step) for at in range(0, rows, step))
