"""HAM and sHAM: matrices of few distinct values in a form that is multiplied by while it is being read.

Both take a matrix column by column. HAM is one Huffman code over all its symbols. sHAM leaves one symbol out (the zero
of a pruned layer) and keeps, as compressed sparse columns do, how many others each column has, and in which rows.
Symbols are integers from 0 to size - 1; what they stand for, the palette, is kept elsewhere.

HAM never takes less than one bit per weight. With a zero that has the code of one bit it is a bitmap and the codes of
the others; sHAM replaces the bitmap by indices, so it is the smaller where a matrix [n, m] has a share s of others and
s * (bits of an index) + (bits of a column's count) / n < 1.

Layout of a code: four bytes little-endian, the length of its table; the table (the lengths of the symbols' codes, by
`integers`); the codes. Layout of sHAM: one byte, the bits of a column's count, and nothing else if it is 0; the counts;
the row indices; a code of the symbols. Counts and indices are as wide as the largest count and the last row need, most
significant bit first; each of the two ends in zeros that fill a byte.

Source: Marinò, Ghidoli, Frasca and Malchiodi, "Compression strategies and space-conscious representations for deep
neural networks", ICPR 2020, section IV (called HAC and sHAC in "Compact representations of convolutional neural
networks via weight pruning and quantization", 2021, by the same).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tersor.codec import huffman, integers
from tersor.errors import ArchiveError

MAX_SIZE = 1 << 16
_BLOCK = 1 << 16  # symbols held at once while multiplying, but at least one column
_SLICE = 1 << 18  # integers written at once; a multiple of 8, so that whole bytes are


def pack_ham(symbols: ArrayLike, size: int) -> bytes:
    """HAM of symbols [rows, cols]; no bytes for an empty matrix.

    Raises:
        ValueError: not a matrix, a symbol out of range, or an alphabet above `MAX_SIZE`.
    """
    flat, _ = _by_columns(symbols, size)
    return _pack_code(flat, size) if flat.size else b""


def unpack_ham(data: bytes, rows: int, cols: int, size: int) -> NDArray[np.int32]:
    """Symbols [rows, cols].

    Raises:
        ArchiveError: the bytes are not what `pack_ham` writes for such a matrix.
    """
    if _is_empty(data, rows, cols):
        return np.zeros((rows, cols), dtype=np.int32)
    decoder = _decoder(data, size)
    flat = decoder.next(rows * cols)
    decoder.finish()
    return np.ascontiguousarray(flat.reshape(cols, rows).T)


def dot_ham(x: ArrayLike, data: bytes, rows: int, cols: int, palette: ArrayLike) -> NDArray[np.float64]:
    """x^T W straight from HAM, of x [..., rows]; float64 [..., cols]. A few columns of W are held at a time.

    Args:
        x: one vector, or many.
        data: what `pack_ham` wrote for the symbols of W [rows, cols].
        rows: of W.
        cols: of W.
        palette: the value of each symbol.

    Raises:
        ArchiveError: the bytes are not what `pack_ham` writes for such a matrix.
        ValueError: x does not fit W.
    """
    vectors, values = _inputs(x, rows), np.asarray(palette, dtype=np.float64)
    out = np.zeros((*vectors.shape[:-1], cols))
    if _is_empty(data, rows, cols):
        return out
    decoder = _decoder(data, values.size)
    for start, stop in _blocks(rows, cols):
        columns = values[decoder.next(rows * (stop - start))].reshape(-1, rows)
        out[..., start:stop] = vectors @ columns.T
    decoder.finish()
    return out


def pack_sham(symbols: ArrayLike, size: int, zero: int) -> bytes:
    """The sHAM of symbols [rows, cols] of which `zero` is left out; no bytes for an empty matrix.

    Raises:
        ValueError: not a matrix, a symbol (or `zero`) out of range, or an alphabet above `MAX_SIZE`.
    """
    flat, (rows, cols) = _by_columns(symbols, size)
    if not 0 <= zero < size:
        raise ValueError("the symbol to leave out is out of range")
    if not flat.size:
        return b""
    places = np.flatnonzero(flat != zero)
    counts = np.bincount(places // rows, minlength=cols)
    width = int(counts.max()).bit_length()
    if width == 0:
        return b"\0"
    indices = _pack_fixed(places % rows, (rows - 1).bit_length())
    return bytes([width]) + _pack_fixed(counts, width) + indices + _pack_code(flat[places], size)


def unpack_sham(data: bytes, rows: int, cols: int, size: int, zero: int) -> NDArray[np.int32]:
    """Symbols [rows, cols].

    Raises:
        ArchiveError: the bytes are not what `pack_sham` writes for such a matrix.
    """
    if _is_empty(data, rows, cols):
        return np.zeros((rows, cols), dtype=np.int32)
    sparse = _Sparse(data, rows, cols, size, zero)
    out = np.full((cols, rows), zero, dtype=np.int32)
    for columns, column, row, symbols in sparse.blocks():
        out[columns][column, row] = symbols
    return np.ascontiguousarray(out.T)


def dot_sham(x: ArrayLike, data: bytes, rows: int, cols: int, palette: ArrayLike, zero: int) -> NDArray[np.float64]:
    """x^T W straight from sHAM, of x [..., rows]; float64 [..., cols]. Work grows with what was not left out.

    Args:
        x: one vector, or many.
        data: what `pack_sham` wrote for the symbols of W [rows, cols].
        rows: of W.
        cols: of W.
        palette: the value of each symbol.
        zero: the symbol left out; its value must be 0.

    Raises:
        ArchiveError: the bytes are not what `pack_sham` writes for such a matrix.
        ValueError: x does not fit W, or what was left out is not 0.
    """
    vectors, values = _inputs(x, rows), np.asarray(palette, dtype=np.float64)
    if values[zero] != 0:
        raise ValueError("the symbol left out does not stand for 0")
    out = np.zeros((*vectors.shape[:-1], cols))
    if _is_empty(data, rows, cols):
        return out
    for columns, column, row, symbols in _Sparse(data, rows, cols, values.size, zero).blocks():
        for vector, sums in zip(vectors.reshape(-1, rows), out.reshape(-1, cols)[:, columns], strict=True):
            sums += np.bincount(column, vector[row] * values[symbols], minlength=sums.size)
    return out


def ham_bound(rows: int, cols: int, k: int, word: int = 32) -> float:
    """Most that HAM of a matrix [rows, cols] of k distinct values takes, its palette included.

    As a share of rows * cols words of so many bits: psi <= (1 + log2 k) / B + 6k / nm. The first term is H + 1 > L,
    the second two dictionaries of three words per value.
    """
    return (1 + math.log2(max(k, 1))) / word + 6 * k / (rows * cols)


def sham_bound(rows: int, cols: int, k: int, others: int, word: int = 32) -> float:
    """Most that sHAM of a matrix [rows, cols] takes, its palette included; as a share of rows * cols words.

    With s the share of `others` (values not left out), k how many of these are distinct, b_I and b_c the bits of a row
    index and of a column's start: psi <= s (1 + log2 k) / B + 6k / nm + s b_I / B + (m + 1) b_c / nmB + 1 / nm, the
    last for the bits that fill words.

    The paper prints s (1 + log2 k) / B + 6k / nm + (n + m + 1) / nm: it counts one row index per row, where there is
    one per value that is not left out, s n m of them. Most matrices take more than that.
    """
    n, m, share = rows, cols, others / (rows * cols)
    index, start = int(n - 1).bit_length(), int(others).bit_length()
    codes = share * (1 + math.log2(max(k, 1))) / word + 6 * k / (n * m)
    return codes + share * index / word + (m + 1) * start / (n * m * word) + 1 / (n * m)


class _Sparse:
    """Reads sHAM some columns at a time. Raises ArchiveError: the bytes are not sHAM of such a matrix."""

    def __init__(self, data: bytes, rows: int, cols: int, size: int, zero: int) -> None:
        if not 0 <= zero < size:
            raise ArchiveError("a matrix leaves out a symbol that there is not")
        self._rows, self._cols, self._index_width = rows, cols, (rows - 1).bit_length()
        width = data[0] if data else huffman.MAX_LENGTH
        counts, at = _section(data, 1, cols, width)
        self.counts = _fixed(counts, width, 0, cols) if width else np.zeros(0, dtype=np.int64)
        most = int(self.counts.max(initial=0))
        if most > rows or most.bit_length() != width:
            raise ArchiveError("the columns of a matrix have counts out of range")
        self._indices, at = _section(data, at, int(self.counts.sum()), self._index_width)
        if not width and at < len(data):
            raise ArchiveError("a matrix of zeros is followed by stray bytes")
        self._decoder = _decoder(data[at:], size, zero) if width else None

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]]:
        """Some columns; of what was not left out there the column, from the first of them, the row and the symbol."""
        if self._decoder is None:
            return
        starts = np.concatenate([[0], np.cumsum(self.counts)])
        for first, last in _blocks(self._rows, self._cols):
            low, high = int(starts[first]), int(starts[last])
            column = np.repeat(np.arange(last - first), self.counts[first:last])
            row = _fixed(self._indices, self._index_width, low, high)
            if (np.diff(column * self._rows + row) <= 0).any() or row.max(initial=0) >= self._rows:
                raise ArchiveError("the row indices of a matrix are out of order")
            yield slice(first, last), column, row, self._decoder.next(high - low)
        self._decoder.finish()


def _by_columns(symbols: ArrayLike, size: int) -> tuple[NDArray[np.int64], tuple[int, int]]:
    """Symbols column by column, and the shape."""
    matrix = np.asarray(symbols, dtype=np.int64)
    if matrix.ndim != 2 or size > MAX_SIZE:
        raise ValueError(f"HAM takes a matrix of at most {MAX_SIZE} symbols")
    if matrix.size and (matrix.min() < 0 or matrix.max() >= size):
        raise ValueError("a symbol is out of range")
    rows, cols = matrix.shape
    return matrix.T.ravel(), (rows, cols)


def _pack_code(symbols: NDArray[np.int64], size: int) -> bytes:
    lengths = huffman.lengths(np.bincount(symbols, minlength=size))
    table = integers.pack(lengths)
    return len(table).to_bytes(4, "little") + table + huffman.encode(symbols, lengths)[0]


def _decoder(data: bytes, size: int, absent: int | None = None) -> huffman.Decoder:
    """Reads what `_pack_code` wrote; one symbol may have to be without a code."""
    end = 4 + int.from_bytes(data[:4], "little")
    if not 0 < size <= MAX_SIZE or end > len(data):
        raise ArchiveError("a Huffman code is cut short")
    lengths = integers.unpack(data[4:end], size)
    if absent is not None and lengths[absent]:
        raise ArchiveError("a matrix has a code for the symbol that it leaves out")
    return huffman.Decoder(data[end:], lengths)


def _is_empty(data: bytes, rows: int, cols: int) -> bool:
    """Whether there are no symbols. Raises ArchiveError: but there are bytes."""
    if rows * cols == 0 and data:
        raise ArchiveError("an empty matrix has bytes")
    return rows * cols == 0


def _inputs(x: ArrayLike, rows: int) -> NDArray[np.float64]:
    vectors = np.asarray(x, dtype=np.float64)
    if vectors.ndim == 0 or vectors.shape[-1] != rows:
        raise ValueError(f"a matrix of {rows} rows is multiplied by vectors of as many numbers")
    return vectors


def _blocks(rows: int, cols: int) -> Iterator[tuple[int, int]]:
    """First column and the one behind the last, some columns at a time."""
    step = max(1, _BLOCK // rows)
    for start in range(0, cols, step):
        yield start, min(start + step, cols)


def _pack_fixed(values: NDArray[np.int64], width: int) -> bytes:
    """Integers in so many bits each."""
    shifts = np.arange(width - 1, -1, -1)
    parts = (values[at : at + _SLICE, None] >> shifts & 1 for at in range(0, values.size, _SLICE))
    return b"".join(np.packbits(part.astype(np.uint8)).tobytes() for part in parts)


def _section(data: bytes, at: int, count: int, width: int) -> tuple[NDArray[np.uint8], int]:
    """The bytes from `at` on that hold so many integers, and where they end."""
    end = at + (count * width + 7) // 8
    if width > huffman.MAX_LENGTH or end > len(data):
        raise ArchiveError("a sparse matrix is cut short")
    if end > at and data[end - 1] & ((1 << -count * width % 8) - 1):
        raise ArchiveError("a sparse matrix is damaged")
    return np.frombuffer(data, dtype=np.uint8)[at:end], end


def _fixed(section: NDArray[np.uint8], width: int, start: int, stop: int) -> NDArray[np.int64]:
    """Integers from place `start` to `stop` of what `_pack_fixed` wrote."""
    low, high = start * width, stop * width
    bits = np.unpackbits(section[low // 8 : (high + 7) // 8])[low % 8 :][: high - low].reshape(stop - start, width)
    out = np.zeros(stop - start, dtype=np.int64)
    for i in range(width):
        out = out << 1 | bits[:, i]
    return out
