"""Choosing the model of a mask: which blocks, and the integers of each effect, by the bits they cost and save.

Effects are chosen one after the other, a few times over. For each, the bits of every row (column, position, ...) are
counted by the log odds that the other effects give them; from these counts the cost of every integer follows exactly,
in whole 2**-16 bits (whose sums are exact in double precision), so that the choice is the same at any thread count.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tersor.codec import rice
from tersor.representations.mask import COST, EFFECTS, LIMIT, MAX_UNIT, Model, blocks, effect_sizes, fits, regions
from tersor.representations.vectors import kernel_size, rows_of

_SWEEPS = 3
_ENOUGH = 1e-3  # a sweep that saves less of the bits is the last
_SAMPLE = 1 << 16  # bits by which the block is chosen
_BITS_PER_INTEGER = 12  # an effect of more integers than the mask has of these cannot pay
_LENGTHS = (4, 8, 16)  # blocks tried beside kernels: N of every M
_RICE = 3  # parameters tried
_FINE = 1 << 16
_SLICE, _PART = 1 << 18, 1 << 12  # bits and integers at once, to bound memory

_WIDE = 2 * LIMIT
_BINS = 2 * _WIDE + 1
_PRICE = np.rint(_FINE * COST.astype(np.float64))
_OTHERS = np.arange(-_WIDE, _WIDE + 1)
_SHIFTED = np.stack(
    [_PRICE[np.clip(_OTHERS + v, -LIMIT, LIMIT) + LIMIT] for v in range(-LIMIT, LIMIT + 1)], axis=-1
).reshape(2 * _BINS, -1)  # fmt: skip
"""Price of a bit by its log odds from the other effects and its value, for each integer: [2 * _BINS, integers]."""


def fit(mask: NDArray[np.bool_]) -> Model | None:
    """The model under which a mask takes the fewest bytes, about; None if its bits are all equal."""
    if int(np.count_nonzero(mask)) in (0, mask.size):
        return None
    sample = _sample(mask)
    tried = [_Fit(sample, block, mask.size / sample.size) for block in _candidates(mask.shape)]
    return _Fit(mask, min(tried, key=lambda t: t.price).block).model()


def _candidates(shape: tuple[int, ...]) -> list[int]:
    kernel = kernel_size(shape)
    tried = [1, kernel, *(-n for n in _LENGTHS)] if kernel > 1 else [1, *_LENGTHS]
    return [block for block in tried if fits(shape, block)]


def _sample(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Some rows, evenly spread, and where those are very long a part of each; all if there are few."""
    rows, kernel = rows_of(mask.shape), kernel_size(mask.shape)
    bits = mask.reshape(rows, *(mask.shape[1:] if kernel > 1 else (-1,)))
    bits = bits[:: max(1, min(rows, mask.size // _SAMPLE))]
    width = max(_LENGTHS[-1], _SAMPLE // (len(bits) * kernel) // _LENGTHS[-1] * _LENGTHS[-1])
    return bits[:, :width] if width < bits.shape[1] else bits


class _Fit:
    """A model being fitted. `price` is what it takes, in 2**-16 bits.

    Args:
        mask: the bits, or some rows of them.
        block: length of a block, as in `Model`.
        times: how many times as many rows there are in all.
    """

    def __init__(self, mask: NDArray[np.bool_], block: int, times: float = 1.0) -> None:
        self.block, self.bits, self.times = block, blocks(mask, block), times
        self.sizes = effect_sizes(mask.shape, block)
        self.effects = [np.zeros(n, dtype=np.int16) for n in self.sizes]
        self.units, self.lengths, self.base = [0] * len(EFFECTS), [0.0] * len(EFFECTS), 0
        counts = [n * (times if i == 0 else 1) for i, n in enumerate(self.sizes)]
        pay = [i for i, n in enumerate(counts) if self.sizes[i] > 1 and n <= mask.size * times / _BITS_PER_INTEGER]
        self.price = self._set_base()
        for _ in range(_SWEEPS if pay else 0):
            before = self.price
            for i in pay:
                self._set(i)
            self.price = self._set_base()
            if self.price > (1 - _ENOUGH) * before:
                break

    def _set_base(self) -> float:
        """Choose the base; returns the whole price."""
        prices = self._counts(None, np.s_[:, :]) @ _SHIFTED
        self.base = int(prices[0].argmin()) - LIMIT
        return self.times * float(prices[0].min()) + sum(self.lengths)

    def _set(self, i: int) -> None:
        """Choose the integers of one effect, in the unit that takes the least, or none at all."""
        absent, size, repeats = 0.0, self.sizes[i], self.times if i == 0 else 1.0
        ways = [(unit, k) for unit in range(1, MAX_UNIT + 1) for k in range(_RICE)]
        prices, lengths = [0.0] * len(ways), [0.0] * len(ways)
        chosen = np.zeros((len(ways), size), dtype=np.int16)
        at_once = _PART if i < 2 else size
        for first in range(0, size, at_once):
            part = slice(first, min(first + at_once, size))
            inside = np.s_[part, :] if i == 0 else np.s_[:, part] if i == 1 else np.s_[:, :]
            all_prices = self.times * (self._counts(i, inside) @ _SHIFTED)
            absent += float(all_prices[:, LIMIT].sum())
            for w, (unit, k) in enumerate(ways):
                most = LIMIT >> unit - 1
                values = np.arange(-most, most + 1)
                length = repeats * _FINE * ((rice.zigzag(values) >> k) + 1 + k)
                own = all_prices[:, LIMIT + (values << unit - 1)]
                best = (own + length).argmin(axis=1)
                chosen[w, part] = values[best] << unit - 1
                lengths[w] += float(length[best].sum())
                prices[w] += float(own[np.arange(len(own)), best].sum())
        w = min(range(len(ways)), key=lambda w: prices[w] + lengths[w])
        if prices[w] + lengths[w] < absent:
            self.units[i], self.lengths[i], self.effects[i] = ways[w][0], lengths[w], chosen[w]
        else:
            self.units[i], self.lengths[i], self.effects[i] = 0, 0.0, np.zeros(size, dtype=np.int16)

    def _counts(self, i: int | None, inside: tuple[slice, slice]) -> NDArray[np.float64]:
        """How many bits of either kind see which log odds from the others: [integers, 2 * _BINS].

        Args:
            i: the effect whose integers they are; None for the base.
            inside: rows and columns to count in; integers are numbered from their first.
        """
        size = 1 if i is None else len(range(*inside[i].indices(self.sizes[i]))) if i < 2 else self.sizes[i]
        out = np.zeros(size * _BINS * 2, dtype=np.int64)
        for index, odds, bits in self._slices(i, inside):
            cell = (index * _BINS + odds) * 2 + bits
            out += np.bincount(cell.ravel(), minlength=out.size)
        return out.reshape(size, 2 * _BINS).astype(np.float64)

    def _slices(
        self, i: int | None, inside: tuple[slice, slice]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int16], NDArray[np.bool_]]]:
        """Some places at a time: the integer of effect i that a bit takes, its log odds from the others, the bit."""
        effects = [np.zeros_like(e) if k == i else e for k, e in enumerate(self.effects)]
        row, column, position, ones_effect, zeros_effect = effects
        region, row, column = self.bits[inside], row[inside[0]], column[inside[1]]
        place = np.arange(region.shape[2], dtype=np.int16)
        for at in regions(region.shape[0], region.shape[1], max(1, _SLICE // region.shape[2])):
            bits = region[at]
            rows = np.arange(region.shape[0])[at[0], None, None]
            columns = np.arange(region.shape[1])[at[1], None]
            ones = np.cumsum(bits, axis=2, dtype=np.int16) - bits
            zeros = place - ones
            odds = row[rows] + column[columns] + position + ones_effect[ones] + zeros_effect[zeros]
            odds += np.int16(0 if i is None else self.base)
            index = np.int64(0) if i is None else (rows, columns, place, ones, zeros)[i].astype(np.int64)
            yield np.asarray(index), np.clip(odds, -_WIDE, _WIDE) + np.int16(_WIDE), bits

    def model(self) -> Model:
        """What was found."""
        effects = [(e if unit else e[:0]).astype(np.int64) for e, unit in zip(self.effects, self.units, strict=True)]
        return Model(self.block, self.base, tuple(self.units), tuple(effects))
