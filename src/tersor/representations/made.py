"""Tensors that follow from a rule and a few integers: the file holds these in place of values.

They are the fixed factors of Denil et al., "Predicting parameters in deep learning", NIPS 2013: a tensor [J a, n] holds
J columns of a atoms, each atom a function on n inputs; of kernels [J a, C, rows, columns], an input is a (channel, row,
column).

| rule | numbers | tensor |
|---|---|---|
| identity | seed, J | rows of the identity: of each column the `exact.subset` of its inputs |
| gaussian | seed, scale | `exact.normals`, in order, times scale |
| cosine | C, sides... | the lowest cosines of a grid of these sides, of each of C channels by itself |
| squared-exponential | seed, J, width, ridge, C, sides... | (K[s, s] + ridge I)^-1 K[s, :], s as for identity |

C channels of a grid are C copies of it, one after the other; C times the sides' product is n. K[p, q] is
exp(-|p - q|^2 / (2 width^2)) for inputs of one channel at places p and q of the grid, 0 between channels. Cosines have
norm 1 and are ordered by the sum of (frequency / side)^2, then by place of the frequency, then by channel. Scale, width
and ridge are the bits of a float32 as an integer. Everything is computed by `tersor.representations.exact`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from tersor.errors import ArchiveError
from tersor.representations import exact

RULES = ("identity", "gaussian", "cosine", "squared-exponential")
"""Known rules; a file holds positions in this list."""

MAX_ELEMENTS = 1 << 27
"""Of a tensor: a file of a hundred bytes must not fill the memory."""

MAX_INPUTS = 1 << 20
"""n, for the same reason."""

MAX_PRODUCTS = 1 << 32
"""Of a squared-exponential tensor: J a times the atoms and the inputs that a channel can have; seconds, not hours."""

_MAX_SEED = 1 << 63
_BLOCK = 1 << 20


class Made(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A rule (its position in `RULES`) and its numbers, whose meaning is the rule's."""

    rule: int
    numbers: tuple[int, ...]


def identity(seed: int, columns: int = 1) -> Made:
    """Each column sees some of the inputs, at random."""
    return Made(0, (seed, columns))


def gaussian(seed: int, scale: float) -> Made:
    """Random numbers of this standard deviation, rounded to float32."""
    return Made(1, (seed, _bits(scale)))


def cosines(channels: int, sides: Sequence[int]) -> Made:
    """The lowest frequencies of a grid, for each of so many channels."""
    return Made(2, (channels, *sides))


def squared_exponential(
    seed: int, width: float, ridge: float, channels: int, sides: Sequence[int], columns: int = 1
) -> Made:
    """Kernel ridge regression from inputs at random to all of them; width in steps of the grid."""
    return Made(3, (seed, columns, _bits(width), _bits(ridge), channels, *sides))


def make(made: Made, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The tensor, the same bits on every machine.

    Args:
        made: rule and numbers.
        shape: [J a, n] or [J a, C, ...].

    Raises:
        ArchiveError: the numbers are not what the rule takes for a tensor of this shape, or the tensor is too large.
    """
    numbers = made.numbers
    if not 0 <= made.rule < len(RULES):
        raise ArchiveError(f"a tensor is made by rule {made.rule}, which is not known; update tersor")
    name = RULES[made.rule]
    _need(len(shape) >= 2 and all(0 < n <= MAX_ELEMENTS for n in shape), name, shape, "no shape for it")
    rows, inputs = shape[0], math.prod(shape[1:])
    _need(rows * inputs <= MAX_ELEMENTS and inputs <= MAX_INPUTS, name, shape, "too large")
    if name == "identity":
        _need(len(numbers) == 2, name, shape, "not its numbers")
        out = _identity(_subsets(name, shape, *numbers), inputs)
    elif name == "gaussian":
        _need(len(numbers) == 2 and 0 <= numbers[0] < _MAX_SEED, name, shape, "not its numbers")
        scale = _float(numbers[1], name, shape)
        out = np.empty(rows * inputs, dtype=np.float32)
        for i in range(0, len(out), _BLOCK):
            part = out[i : i + _BLOCK]
            part[:] = _rounded(exact.normals(numbers[0], i, len(part)) * scale, name, shape)
    elif name == "cosine":
        _need(len(numbers) >= 2, name, shape, "not its numbers")
        _check_grid(name, shape, numbers)
        _need(rows <= inputs, name, shape, "more cosines than inputs")
        out = _rounded(_cosines(rows, numbers[0], numbers[1:]), name, shape)
    else:
        out = np.concatenate(_regressions(name, shape, numbers))
    return out.reshape(shape)


def _rounded(values: exact.Floats, name: str, shape: Sequence[int]) -> NDArray[np.float32]:
    _need(bool(np.all(np.abs(values) <= np.finfo(np.float32).max)), name, shape, "numbers beyond float32")
    return values.astype(np.float32)


def _need(condition: bool, name: str, shape: Sequence[int], what: str) -> None:
    if not condition:
        raise ArchiveError(f"a tensor {list(shape)[:8]} cannot be made by rule {name!r}: {what}")


def _bits(value: float) -> int:
    return int(np.array([value], dtype=np.float32).view(np.uint32)[0])


def _float(bits: int, name: str, shape: Sequence[int]) -> float:
    _need(0 <= bits < 1 << 32, name, shape, "no bits of a float32")
    value = float(np.array([bits], dtype=np.uint32).view(np.float32)[0])
    _need(math.isfinite(value), name, shape, "a number that is not finite")
    return value


def _check_grid(name: str, shape: Sequence[int], grid: Sequence[int]) -> None:
    """Channels and sides have the shape's inputs."""
    inputs = math.prod(shape[1:])
    fits = len(grid) <= 8 and all(0 < n <= inputs for n in grid) and math.prod(grid) == inputs
    _need(fits, name, shape, "a grid that does not fit")


def _subsets(name: str, shape: Sequence[int], seed: int, columns: int) -> list[NDArray[np.int64]]:
    """The inputs of each column's atoms."""
    rows, inputs = shape[0], math.prod(shape[1:])
    _need(0 <= seed < _MAX_SEED, name, shape, "a seed out of range")
    _need(0 < columns <= rows and rows % columns == 0, name, shape, "not its columns")
    count = rows // columns
    _need(count <= inputs and columns * inputs <= MAX_ELEMENTS, name, shape, "more atoms than inputs")
    return [exact.subset(seed, j, count, inputs) for j in range(columns)]


def _identity(subsets: Sequence[NDArray[np.int64]], inputs: int) -> NDArray[np.float32]:
    chosen = np.concatenate(subsets)
    out = np.zeros((len(chosen), inputs), dtype=np.float32)
    out[np.arange(len(chosen)), chosen] = 1.0
    return out


def _places(sides: Sequence[int]) -> NDArray[np.int64]:
    """Coordinates of all places of a grid, in order, [places, sides]."""
    return np.stack(np.unravel_index(np.arange(math.prod(sides)), sides), 1).astype(np.int64)


def _cosines(rows: int, channels: int, sides: Sequence[int]) -> exact.Floats:
    """The discrete cosine transform (DCT-II) of a grid, its lowest frequencies first, of every channel by itself."""
    size = math.prod(sides)
    frequencies = _places(sides)
    pitch = ((frequencies * [size // side for side in sides]) ** 2).sum(1)
    order = np.argsort(pitch, kind="stable")
    out = np.zeros((rows, channels, size))
    for row in range(rows):
        wave = np.ones(1)
        for f, side in zip(frequencies[order[row // channels]], sides, strict=True):
            along = exact.cosine((2 * np.arange(side) + 1) * int(f), side) * np.sqrt((2.0 if f else 1.0) / side)
            wave = (wave[:, None] * along).ravel()
        out[row, row % channels] = wave
    return out.reshape(rows, channels * size)


def _regressions(name: str, shape: Sequence[int], numbers: Sequence[int]) -> list[NDArray[np.float32]]:
    """The tensor's columns."""
    _need(len(numbers) >= 6, name, shape, "not its numbers")
    seed, columns, *bits, channels = numbers[:5]
    sides = numbers[5:]
    _check_grid(name, shape, numbers[4:])
    width, ridge = (_float(value, name, shape) for value in bits)
    _need(width > 0 and ridge >= 0, name, shape, "width or ridge out of range")
    subsets = _subsets(name, shape, seed, columns)
    size = math.prod(sides)
    _need(shape[0] * min(shape[0] // columns, size) * size <= MAX_PRODUCTS, name, shape, "too much to compute")
    out = []
    for subset in subsets:
        part = _regression(subset, width, ridge, channels, sides)
        _need(part is not None, name, shape, "its kernel is singular; ridge is too small")
        assert part is not None
        out.append(_rounded(part, name, shape))
    return out


def _regression(
    subset: NDArray[np.int64], width: float, ridge: float, channels: int, sides: Sequence[int]
) -> exact.Floats | None:
    """(K[s, s] + ridge I)^-1 K[s, :]; channels do not mix, so each is solved by itself."""
    size, places = math.prod(sides), _places(sides)
    out = np.zeros((len(subset), channels, size))
    for channel in np.unique(subset // size):
        rows = np.flatnonzero(subset // size == channel)
        own = subset[rows] % size
        kernel = np.empty((len(own), size))
        for row, place in zip(kernel, places[own], strict=True):  # no more at once than the kernel itself
            row[:] = exact.exp(-((places - place) ** 2).sum(-1).astype(np.float64) / (2.0 * width * width))
        within = kernel[:, own]
        within[np.arange(len(own)), np.arange(len(own))] += ridge
        solved = exact.solve(within, kernel)
        if solved is None:
            return None
        out[rows, channel] = solved
    return out.reshape(len(subset), channels * size)
