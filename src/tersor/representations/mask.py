"""Masks: which elements of a pruned tensor are not zero, bit by bit under a model of their density.

The bits of a tensor stand as [rows, columns, block]: a row is an output channel, a block is a kernel, or a few
neighbouring inputs. The log odds of a bit are a sum of small integers, the *effects*: one number for the tensor, one
for its row, one for its column, one for its position in the block, and one each for how many ones and how many zeros
came before it in its block. Dead rows and columns, kernels dead as a whole and N of every M cost next to nothing so,
and what has no structure costs its entropy: a bitmap for half density, indices for few ones, and all between.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tersor.codec import ans, integers, tables
from tersor.errors import ArchiveError
from tersor.representations.vectors import kernel_size, rows_of

PRECISION = 20
LIMIT = tables.MAX_LEVEL
"""Log odds are quarter octaves from -LIMIT to LIMIT."""
EFFECTS = ("row", "column", "position", "ones", "zeros")
MAX_BLOCK, MAX_UNIT = 32, 6
_SLICE = 1 << 18  # bits coded at once, to bound memory

_ODDS = np.arange(-LIMIT, LIMIT + 1)
_TABLES = tables.frequencies(np.stack([np.maximum(_ODDS, 0), np.maximum(-_ODDS, 0)], axis=1), PRECISION)
COST = tables.bits(_TABLES, PRECISION)
"""Bits of a zero and of a one at each of the log odds, float32 [2 * LIMIT + 1, 2]."""


class Model(NamedTuple):
    """How a tensor's bits are expected to fall.

    Attributes:
        block: length of a block; negative where the block runs along the inputs, kernel position by kernel position.
        base: log odds of a one, in quarter octaves, before any effect.
        units: per effect 0 where it is absent, else 1 + log2 of what its integers are multiples of.
        effects: per effect its log odds, int64 [rows], [columns], [block] three times; empty where absent.
    """

    block: int
    base: int
    units: tuple[int, ...]
    effects: tuple[NDArray[np.int64], ...]

    def filled(self, shape: tuple[int, ...]) -> list[NDArray[np.int16]]:
        """The effects, zeros (that take no memory) where they are absent."""
        pairs = zip(self.effects, effect_sizes(shape, self.block), strict=True)
        return [e.astype(np.int16) if e.size else np.broadcast_to(np.int16(0), n) for e, n in pairs]


def effect_sizes(shape: tuple[int, ...], block: int) -> tuple[int, ...]:
    """Number of integers in each effect."""
    rows = rows_of(shape)
    columns = int(np.prod(shape, dtype=np.int64)) // rows // abs(block)
    return rows, columns, abs(block), abs(block), abs(block)


def fits(shape: tuple[int, ...], block: int) -> bool:
    """Whether rows of this shape can be cut into such blocks."""
    length = int(np.prod(shape, dtype=np.int64)) // rows_of(shape)
    turned = block > 0 or kernel_size(shape) > 1
    return 1 <= abs(block) <= MAX_BLOCK and length % block == 0 and turned


def blocks(mask: NDArray[np.bool_], block: int) -> NDArray[np.bool_]:
    """The bits as [rows, columns, block]."""
    flat = mask.reshape(rows_of(mask.shape), -1)
    if block < 0:
        flat = flat.reshape(len(flat), -1, kernel_size(mask.shape)).transpose(0, 2, 1)
    return np.ascontiguousarray(flat).reshape(len(flat), -1, abs(block))


def regions(rows: int, columns: int, size: int) -> list[tuple[slice, slice]]:
    """All rows and columns in their order, about `size` places at once: some rows, or a part of one."""
    height, width = max(1, size // max(columns, 1)), min(columns, size)
    return [
        (slice(r, min(r + height, rows)), slice(c, min(c + width, columns)))
        for r in range(0, rows, height)
        for c in range(0, columns, max(width, 1))
    ]


def _unblocked(bits: NDArray[np.bool_], shape: tuple[int, ...], block: int) -> NDArray[np.bool_]:
    """The mask of which these are the blocks."""
    if block < 0:
        bits = bits.reshape(len(bits), kernel_size(shape), -1).transpose(0, 2, 1)
    return bits.reshape(shape)


def pack(masks: Sequence[NDArray[np.bool_]], models: Sequence[Model | None]) -> bytes:
    """A section of masks, each under its model; None for a mask of equal bits, which takes no bytes.

    Layout: no bytes if there is nothing to code; else four bytes each for the lengths of two arrays of integers; the
    settings (block, base, units) and the effects in their units, tensor by tensor; then one stream of the bits.
    """
    known = [(mask, model) for mask, model in zip(masks, models, strict=True) if model is not None]
    if not known:
        return b""
    settings = integers.pack([n for _, m in known for n in (m.block, m.base, *m.units)])
    values = [e >> unit - 1 for _, m in known for e, unit in zip(m.effects, m.units, strict=True) if unit]
    effects = integers.pack(np.concatenate([np.zeros(0, dtype=np.int64), *values]))
    head = len(settings).to_bytes(4, "little") + len(effects).to_bytes(4, "little")
    parts = [part for mask, model in known for part in _parts(blocks(mask, model.block), mask.shape, model)]
    return head + settings + effects + ans.encode_each(parts, _TABLES, PRECISION)


def _parts(
    bits: NDArray[np.bool_], shape: tuple[int, ...], model: Model
) -> list[tuple[NDArray[np.bool_], NDArray[np.int16]]]:
    """Bits and their log odds (from 0), in the order in which they are coded."""
    scan, ones = _Scan(shape, model), np.zeros(bits.shape[:2], dtype=np.int8)
    out = []
    for position, at in scan.steps():
        out.append((bits[at][..., position].ravel(), scan.odds(position, at, ones[at]).ravel()))
        ones[at] += bits[at][..., position]
    return out


def unpack(
    data: bytes, shapes: Sequence[tuple[int, ...]], counts: Sequence[int]
) -> tuple[list[NDArray[np.bool_]], list[float]]:
    """The masks of a section, shaped like their tensors, and the bits each takes in the stream.

    Raises:
        ArchiveError: the bytes are not what `pack` writes for tensors of these shapes and numbers of ones.
    """
    sizes = [int(np.prod(shape, dtype=np.int64)) for shape in shapes]
    mixed = [0 < count < size for count, size in zip(counts, sizes, strict=True)]
    if not any(mixed):
        if data:
            raise ArchiveError("a section of masks holds masks that nobody needs")
        return [np.full(shape, count > 0) for shape, count in zip(shapes, counts, strict=True)], [0.0] * len(sizes)
    found, stream = _models(data, [shape for shape, m in zip(shapes, mixed, strict=True) if m])
    decoder, models = ans.EachDecoder(stream, _TABLES, PRECISION), iter(found)
    masks, bits = [], []
    for shape, count, coded in zip(shapes, counts, mixed, strict=True):
        mask, cost = _read(decoder, shape, next(models)) if coded else (np.full(shape, count > 0), 0.0)
        if np.count_nonzero(mask) != count:
            raise ArchiveError("a mask has another number of ones than the index says")
        masks.append(mask)
        bits.append(cost)
    decoder.finish()
    return masks, bits


def _models(data: bytes, shapes: list[tuple[int, ...]]) -> tuple[list[Model], bytes]:
    """Models of the masks, and the stream behind them."""
    lengths = [int.from_bytes(data[at : at + 4], "little") for at in (0, 4)]
    ends = list(accumulate([8, *lengths]))
    if ends[-1] > len(data):
        raise ArchiveError("a section of masks is cut short")
    numbers = integers.unpack(data[8 : ends[1]], (2 + len(EFFECTS)) * len(shapes))
    settings = numbers.reshape(-1, 2 + len(EFFECTS)).tolist()
    for shape, (block, base, *units) in zip(shapes, settings, strict=True):
        if not fits(shape, block) or abs(base) > LIMIT or not 0 <= min(units) <= max(units) <= MAX_UNIT:
            raise ArchiveError("a mask has settings out of range")
    present = [
        n if unit else 0
        for shape, (block, _, *units) in zip(shapes, settings, strict=True)
        for unit, n in zip(units, effect_sizes(shape, block), strict=True)
    ]
    values = integers.unpack(data[ends[1] : ends[2]], sum(present))
    parts, models = iter(np.split(values, np.cumsum(present)[:-1])), []
    for block, base, *units in settings:
        effects = tuple(next(parts) * (1 << max(unit - 1, 0)) for unit in units)
        if any(e.size and np.abs(e).max() > LIMIT for e in effects):
            raise ArchiveError("a mask has an effect out of range")
        models.append(Model(block, base, tuple(units), effects))
    return models, data[ends[2] :]


def _read(decoder: ans.EachDecoder, shape: tuple[int, ...], model: Model) -> tuple[NDArray[np.bool_], float]:
    """A mask, and the bits it takes."""
    scan = _Scan(shape, model)
    bits = np.zeros(scan.shape, dtype=np.bool_)
    ones, cost = np.zeros(scan.shape[:2], dtype=np.int8), 0.0
    for position, at in scan.steps():
        odds = scan.odds(position, at, ones[at])
        found = decoder.next(odds.ravel()).reshape(odds.shape)
        cost += float(COST[odds, found].sum(dtype=np.float64))
        bits[at][..., position] = found
        ones[at] += found.astype(np.int8)
    return _unblocked(bits, shape, model.block), cost


class _Scan:
    """The order of a tensor's bits, and the odds of each: position by position of the block, row by row."""

    def __init__(self, shape: tuple[int, ...], model: Model) -> None:
        self.row, self.column, self.position, self.ones, self.zeros = model.filled(shape)
        self.base = model.base
        self.shape = (len(self.row), len(self.column), len(self.position))

    def steps(self) -> list[tuple[int, tuple[slice, slice]]]:
        """Position, rows and columns of the bits that are coded at once; their odds follow from the steps before."""
        rows, columns, block = self.shape
        return [(p, at) for p in range(block) for at in regions(rows, columns, _SLICE)]

    def odds(self, position: int, at: tuple[slice, slice], ones: NDArray[np.int8]) -> NDArray[np.int16]:
        """Log odds from 0 to 2 * LIMIT of some bits [rows, columns] at a position, `ones` being those before it."""
        total = np.int16(self.base + self.position[position]) + self.row[at[0], None] + self.column[None, at[1]]
        total += self.ones[ones] + self.zeros[position - ones]
        return np.clip(total, -LIMIT, LIMIT) + np.int16(LIMIT)
