"""A matrix of symbols as bytes, by whichever of several codes is the smallest: for integers and shared values.

- table: one frequency table and an ANS stream, or Rice codes (`codec.integers`)
- bits: as many bits each as the alphabet needs
- ham, sham: the Huffman forms of Marinò et al. 2021 that decode column by column (`codec.ham`)
- mask: where symbols are not `zero` under a model of their density (`mask`), then those, with a table
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tersor.codec import ham, integers
from tersor.errors import ArchiveError
from tersor.representations import mask, mask_fit

METHODS = ("table", "bits", "ham", "sham", "mask")
"""How symbols may be coded; a file holds positions in this list."""

MASKED_FROM = 0.05
"""The share of `zero` from which on leaving it out is tried."""


def matrix_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns that a tensor's symbols are coded as: outputs and inputs of one output."""
    count = int(np.prod(shape, dtype=np.int64))
    rows = shape[0] if len(shape) > 1 else 1
    return rows, count // rows if rows else 0


def pack(symbols: NDArray[np.int32], size: int, zero: int | None) -> tuple[int, bytes]:
    """Position of the method in `METHODS`, and the bytes.

    Args:
        symbols: of a tensor, in its shape, from 0 to size - 1.
        size: of the alphabet.
        zero: the symbol of weights that are zero; None where there is none.
    """
    tried = every(symbols, size, zero)
    name = min(tried, key=lambda n: (len(tried[n]), METHODS.index(n)))
    return METHODS.index(name), tried[name]


def every(symbols: NDArray[np.int32], size: int, zero: int | None) -> dict[str, bytes]:
    """The bytes of every method that applies."""
    matrix = symbols.reshape(matrix_of(symbols.shape))
    width = max(1, (size - 1).bit_length())
    tried = {
        "table": integers.pack(symbols),
        "bits": _bits(symbols, width),
        "ham": ham.pack_ham(matrix, size),
    }
    if zero is not None and np.count_nonzero(symbols == zero) >= max(MASKED_FROM * symbols.size, 1):
        tried["sham"] = ham.pack_sham(matrix, size, zero)
        tried["mask"] = _masked(symbols, zero)
    return tried


def unpack(data: bytes, method: int, shape: tuple[int, ...], size: int, zero: int | None) -> NDArray[np.int32]:
    """Symbols in the tensor's shape.

    Raises:
        ArchiveError: the bytes are not what `pack` writes.
    """
    name = METHODS[method]
    rows, cols = matrix_of(shape)
    if name == "table":
        found = integers.unpack(data, rows * cols)
    elif name == "bits":
        found = _from_bits(data, rows * cols, max(1, (size - 1).bit_length()))
    elif name == "ham":
        found = ham.unpack_ham(data, rows, cols, size).astype(np.int64)
    elif zero is None:
        raise ArchiveError("symbols leave out a zero that there is not")
    elif name == "sham":
        found = ham.unpack_sham(data, rows, cols, size, zero).astype(np.int64)
    else:
        found = _unmasked(data, shape, zero)
    if found.size and not 0 <= found.min() <= found.max() < size:
        raise ArchiveError("a symbol is out of range")
    return found.astype(np.int32).reshape(shape)


def _bits(symbols: NDArray[np.int32], width: int) -> bytes:
    shifts = np.arange(width - 1, -1, -1)
    return np.packbits((symbols.reshape(-1, 1) >> shifts & 1).astype(np.uint8)).tobytes()


def _from_bits(data: bytes, count: int, width: int) -> NDArray[np.int64]:
    if len(data) != (count * width + 7) // 8:
        raise ArchiveError("packed symbols have the wrong length")
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=count * width).reshape(count, width)
    return bits.astype(np.int64) @ (1 << np.arange(width - 1, -1, -1, dtype=np.int64))


def _masked(symbols: NDArray[np.int32], zero: int) -> bytes:
    """Four bytes, how many symbols are not zero; four bytes, the length of the mask; the mask; those symbols."""
    alive = symbols != zero
    places = mask.pack([alive], [mask_fit.fit(alive)])
    head = int(np.count_nonzero(alive)).to_bytes(4, "little") + len(places).to_bytes(4, "little")
    return head + places + integers.pack(symbols[alive])


def _unmasked(data: bytes, shape: tuple[int, ...], zero: int) -> NDArray[np.int64]:
    count, length = (int.from_bytes(data[at : at + 4], "little") for at in (0, 4))
    if len(data) < 8 + length or count > int(np.prod(shape, dtype=np.int64)):
        raise ArchiveError("masked symbols are cut short")
    (alive,), _ = mask.unpack(data[8 : 8 + length], [shape], [count])
    out = np.full(shape, zero, dtype=np.int64)
    out[alive] = integers.unpack(data[8 + length :], count)
    return out
