from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tersor.codec import ham
from tersor.errors import ArchiveError

SIZE, ZERO = 16, 3


def made(rows: int, cols: int, size: int, share: float, seed: int) -> np.ndarray:
    """Symbols, all but about a share of them ZERO (or 0, where there is no ZERO)."""
    rng = np.random.default_rng(seed)
    symbols = rng.integers(0, size, (rows, cols))
    return np.where(rng.random((rows, cols)) < share, symbols, min(ZERO, size - 1)).astype(np.int32)


matrices = st.builds(
    made,
    st.integers(0, 20),
    st.integers(0, 20),
    st.sampled_from([1, 2, 3, SIZE]),
    st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    st.integers(0, 99),
)


def both(symbols: np.ndarray, size: int = SIZE, zero: int = ZERO) -> list[np.ndarray]:
    """What comes back from each of the two forms."""
    rows, cols = symbols.shape
    return [
        ham.unpack_ham(ham.pack_ham(symbols, size), rows, cols, size),
        ham.unpack_sham(ham.pack_sham(symbols, size, zero), rows, cols, size, zero),
    ]


def pruned(rows: int, cols: int, share: float, k: int, seed: int = 0) -> np.ndarray:
    """Symbols of a matrix pruned to a share, with k values as likely as each other; 0 for zero."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random((rows, cols)) < share, rng.integers(1, k + 1, (rows, cols)), 0)


@given(matrices)
def test_symbols_come_back(symbols: np.ndarray) -> None:
    for found in both(symbols):
        assert found.dtype == np.int32 and found.shape == symbols.shape and found.tolist() == symbols.tolist()
        assert found.flags.c_contiguous


@pytest.mark.parametrize("k", [1, 2, 3, 256, 60000])
def test_any_number_of_values_comes_back(k: int) -> None:
    symbols = np.random.default_rng(k).integers(0, k, (200, 100))
    for found in both(symbols, k, 0):
        assert (found == symbols).all()


def test_the_order_in_memory_does_not_matter() -> None:
    symbols = made(12, 9, SIZE, 0.4, 1)
    for view in (np.asfortranarray(symbols), np.repeat(symbols, 2, axis=1)[:, ::2], symbols[::-1][::-1]):
        assert ham.pack_ham(view, SIZE) == ham.pack_ham(symbols, SIZE)
        assert ham.pack_sham(view, SIZE, ZERO) == ham.pack_sham(symbols, SIZE, ZERO)


def test_matrices_with_nothing_in_them() -> None:
    for shape in ((0, 0), (0, 5), (5, 0)):
        assert ham.pack_ham(np.zeros(shape, int), SIZE) == ham.pack_sham(np.zeros(shape, int), SIZE, 0) == b""
    zeros = np.full((30, 40), ZERO)
    assert ham.pack_sham(zeros, SIZE, ZERO) == b"\0"
    assert all((found == ZERO).all() for found in both(zeros))
    assert both(np.array([[5]]))[1].tolist() == [[5]]


def test_a_single_value_takes_a_bit_each() -> None:
    assert len(ham.pack_ham(np.zeros((80, 100), int), 1)) < 8000 / 8 + 10


def test_bytes_of_a_small_matrix() -> None:
    # Columns 0 1 0, 0 0 0, 2 0 1; counts 6, 2, 1, so lengths 1, 2, 2 and codes 0, 10, 11.
    symbols = np.array([[0, 0, 2], [1, 0, 0], [0, 0, 1]])
    table = bytes([0, 1, 0b10011001, 0b10000000])  # plain; Rice with one low bit: 2, 4, 4, the lengths folded
    lengths = len(table).to_bytes(4, "little") + table
    assert ham.pack_ham(symbols, 3) == lengths + bytes([0b01000001, 0b10100000])
    # Others 1, 2, 1: lengths 0, 1, 1 and codes 0, 1. Counts 1, 0, 2 in two bits, rows 1, 0, 2 in two bits.
    table = bytes([0, 0, 0b01101100])
    lengths = len(table).to_bytes(4, "little") + table
    assert ham.pack_sham(symbols, 3, 0) == bytes([2, 0b01001000, 0b01001000]) + lengths + bytes([0b01000000])


@given(matrices, st.integers(0, 255))
def test_bytes_cut_off_or_added_are_refused(symbols: np.ndarray, byte: int) -> None:
    rows, cols = symbols.shape
    for data, unpack in (
        (ham.pack_ham(symbols, SIZE), lambda d: ham.unpack_ham(d, rows, cols, SIZE)),
        (ham.pack_sham(symbols, SIZE, ZERO), lambda d: ham.unpack_sham(d, rows, cols, SIZE, ZERO)),
    ):
        for damaged in [data[:n] for n in range(len(data))] + [data + bytes([byte])]:
            with pytest.raises(ArchiveError):
                unpack(damaged)


@settings(max_examples=100)
@given(matrices, st.integers(0, 10**6), st.integers(1, 255))
def test_a_flipped_byte_gives_a_matrix_or_an_error(symbols: np.ndarray, at: int, flip: int) -> None:
    rows, cols = symbols.shape
    for data, unpack in (
        (ham.pack_ham(symbols, SIZE), lambda d: ham.unpack_ham(d, rows, cols, SIZE)),
        (ham.pack_sham(symbols, SIZE, ZERO), lambda d: ham.unpack_sham(d, rows, cols, SIZE, ZERO)),
    ):
        damaged = bytearray(data or b"\0")
        damaged[at % len(damaged)] ^= flip
        try:
            found = unpack(bytes(damaged))
        except ArchiveError as error:
            assert "\n" not in str(error)
        else:
            assert found.shape == symbols.shape and found.min() >= 0 and found.max() < SIZE


@settings(max_examples=200)
@given(st.booleans(), st.binary(max_size=40), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_arbitrary_bytes_give_a_matrix_or_an_error(sparse: bool, data: bytes, rows: int, cols: int, size: int) -> None:
    try:
        found = ham.unpack_sham(data, rows, cols, size, 0) if sparse else ham.unpack_ham(data, rows, cols, size)
        assert found.shape == (rows, cols)
    except ArchiveError as error:
        assert "\n" not in str(error)


def test_sizes_that_the_bytes_cannot_hold_are_refused_before_memory_is_taken() -> None:
    dense, sparse = ham.pack_ham(made(9, 9, SIZE, 1, 0), SIZE), ham.pack_sham(made(9, 9, SIZE, 1, 0), SIZE, ZERO)
    for rows, cols in ((1 << 40, 9), (9, 1 << 40), (1 << 62, 1 << 62)):
        with pytest.raises(ArchiveError):
            ham.unpack_ham(dense, rows, cols, SIZE)
        with pytest.raises(ArchiveError):
            ham.unpack_sham(sparse, rows, cols, SIZE, ZERO)
    for size in (0, ham.MAX_SIZE + 1, 1 << 50):
        with pytest.raises(ArchiveError):
            ham.unpack_ham(dense, 9, 9, size)
    with pytest.raises(ArchiveError):
        ham.unpack_ham((1 << 31).to_bytes(4, "little") + dense, 9, 9, SIZE)


def test_sparse_matrices_that_nobody_writes_are_refused() -> None:
    symbols = np.array([[0, 0, 2], [1, 0, 0], [0, 0, 1]])
    data = ham.pack_sham(symbols, 3, 0)
    counts, rows, code = data[1], data[2], data[3:]
    for damaged in (
        bytes([3, 0b00100001, 0, rows]) + code,  # wider than they need be
        bytes([2, 0b01000100, rows]) + code,  # two others in all, one too few
        bytes([2, 0b11000000, 0b01000100]) + code,  # rows 1, 0, 1 of one column
        bytes([2, counts, 0b01101000]) + code,  # rows 2, 2 of one column
        bytes([2, counts, 0b01001100]) + code,  # row 3 of three
        bytes([2, counts | 1, rows]) + code,  # stray bits
        bytes([0]) + code,
        bytes([255, counts, rows]) + code,
    ):
        with pytest.raises(ArchiveError):
            ham.unpack_sham(damaged, 3, 3, 3, 0)
    for zero in (1, -1, 3):
        with pytest.raises(ArchiveError, match="leaves out"):
            ham.unpack_sham(data, 3, 3, 3, zero)
        if zero != 1:
            with pytest.raises(ValueError):
                ham.pack_sham(symbols, 3, zero)


@pytest.mark.parametrize(
    ("symbols", "size"), [([[0, 3]], 3), ([[-1]], 3), ([0, 1], 3), ([[0]], ham.MAX_SIZE + 1), ([[[0]]], 1)]
)
def test_what_is_no_matrix_of_symbols_is_the_callers_mistake(symbols: list, size: int) -> None:
    with pytest.raises(ValueError):
        ham.pack_ham(symbols, size)
    with pytest.raises(ValueError):
        ham.pack_sham(symbols, size, 0)


@given(matrices, st.sampled_from([(), (1,), (4,), (2, 3)]))
def test_a_product_from_the_stream_is_the_dense_one(symbols: np.ndarray, many: tuple[int, ...]) -> None:
    rows, cols = symbols.shape
    rng = np.random.default_rng(0)
    palette, x = rng.normal(size=SIZE).astype(np.float32), rng.normal(size=(*many, rows)).astype(np.float32)
    palette[ZERO] = 0
    dense = x.astype(np.float64) @ palette.astype(np.float64)[symbols]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ham, "_BLOCK", 50)
        found = [
            ham.dot_ham(x, ham.pack_ham(symbols, SIZE), rows, cols, palette),
            ham.dot_sham(x, ham.pack_sham(symbols, SIZE, ZERO), rows, cols, palette, ZERO),
        ]
        assert both(symbols)[1].tolist() == symbols.tolist()
    for product in found:
        assert product.shape == (*many, cols)
        np.testing.assert_allclose(product, dense, rtol=1e-6, atol=1e-9)


def test_a_product_refuses_what_does_not_fit() -> None:
    symbols, palette = made(6, 5, SIZE, 0.5, 0), np.arange(SIZE) - float(ZERO)
    dense, sparse = ham.pack_ham(symbols, SIZE), ham.pack_sham(symbols, SIZE, ZERO)
    for x in (np.ones(5), np.ones((6, 2)), 1.0):
        with pytest.raises(ValueError):
            ham.dot_ham(x, dense, 6, 5, palette)
        with pytest.raises(ValueError):
            ham.dot_sham(x, sparse, 6, 5, palette, ZERO)
    with pytest.raises(ValueError, match="stand for 0"):
        ham.dot_sham(np.ones(6), sparse, 6, 5, palette + 1, ZERO)
    with pytest.raises(ArchiveError):
        ham.dot_ham(np.ones(6), dense + b"\0", 6, 5, palette)
    with pytest.raises(ArchiveError):
        ham.dot_sham(np.ones(6), sparse[:-1], 6, 5, palette, ZERO)


def occupied(data: bytes, rows: int, cols: int, k: int) -> float:
    """Bytes, and four for each of the palette's k values, as a share of 32 bits a weight."""
    return (len(data) + 4 * k) / (4 * rows * cols)


@settings(max_examples=100)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 20), st.sampled_from([0.0, 0.02, 0.3, 1.0]))
def test_the_bounds_hold(rows: int, cols: int, k: int, share: float) -> None:
    symbols = pruned(rows, cols, share, k)
    values = np.unique(symbols)
    symbols = np.searchsorted(values, symbols)  # with every value of the palette in use, as in the paper
    dense = ham.pack_ham(symbols, values.size)
    assert occupied(dense, rows, cols, values.size) <= ham.ham_bound(rows, cols, values.size)
    others = int(np.count_nonzero(values[symbols]))
    distinct = values.size - (values[0] == 0)
    sparse = ham.pack_sham(symbols, values.size, 0) if values[0] == 0 else ham.pack_sham(symbols + 1, k + 1, 0)
    assert occupied(sparse, rows, cols, distinct) <= ham.sham_bound(rows, cols, distinct, others)


@pytest.mark.parametrize(
    ("rows", "cols", "share"), [(200, 100, 0.1), (512, 512, 0.1), (512, 512, 0.5), (300, 900, 0.3)]
)
def test_the_bound_printed_for_sham_does_not_hold(rows: int, cols: int, share: float) -> None:
    """ICPR 2020 counts one row index per row; there is one per weight that is not zero. The corrected bound holds."""
    k = 16
    symbols = pruned(rows, cols, share, k)
    others = np.count_nonzero(symbols)
    printed = others / symbols.size * (1 + math.log2(k)) / 32 + (6 * k + rows + cols + 1) / symbols.size
    taken = occupied(ham.pack_sham(symbols, k + 1, 0), rows, cols, k)
    assert printed < taken <= ham.sham_bound(rows, cols, k, others)
    in_words = taken + others * (32 - (rows - 1).bit_length()) / (32 * symbols.size)  # with an index in a word
    assert in_words > 2 * printed


@pytest.mark.parametrize("share", [0.04, 0.4])
def test_indices_pay_where_the_formula_says(share: float) -> None:
    symbols = pruned(256, 300, share, SIZE)
    indices_pay = share * 8 + 6 / 256 < 1
    assert (len(ham.pack_sham(symbols, SIZE + 1, 0)) < len(ham.pack_ham(symbols, SIZE + 1))) == indices_pay
