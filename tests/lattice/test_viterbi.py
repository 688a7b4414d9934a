"""The search against every sequence there is, where contexts do not move and its answer must be the minimum."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from lattices import seeds, trellises

from tersor.kernels import instruction_sets, using_instruction_set
from tersor.lattice import contexts, kernels
from tersor.lattice.kernels import Scan
from tersor.lattice.trellis import Trellis

TOKENS = 4


def price(
    x: np.ndarray,
    weight: np.ndarray | None,
    magnitudes: tuple[int, ...],
    bits: np.ndarray,
    lam: float,
    trellis: Trellis,
) -> float:
    """Cost of one sequence, from the definition."""
    following, state, total = trellis.transitions(), 0, 0.0
    for i, magnitude in enumerate(magnitudes):
        quantizer = state & 1
        level = 2 * magnitude - quantizer if magnitude else 0
        w = 1.0 if weight is None else float(weight[i])
        total += w * (abs(float(x[i])) - level) ** 2 + lam * float(bits[quantizer, magnitude])
        state = int(following[state, magnitude & 1])
    return total


@settings(max_examples=30)
@given(st.integers(1, 5), seeds, trellises, st.booleans())
def test_no_sequence_is_cheaper(count: int, seed: int, trellis: Trellis, weighted: bool) -> None:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-6.5, 6.5, count).astype(np.float32)
    weight = rng.uniform(0.3, 3, count).astype(np.float32) if weighted else None
    bits = np.sort(rng.uniform(0, 6, (2, TOKENS)), axis=1).astype(np.float32)
    scan = Scan(np.array([[1, count, 4096, 0, 0, 0, 16]]), np.array([0, 1]), np.array([0, count]))
    cost = np.tile(bits, (contexts.CONTEXTS, 1))
    lam = 0.25
    symbols = kernels.search(x, 1.0, weight, scan, cost, lam, trellis)
    best = min(price(x, weight, m, bits, lam, trellis) for m in product(range(TOKENS), repeat=count))
    found = price(x, weight, tuple(np.abs(symbols).tolist()), bits, lam, trellis)
    np.testing.assert_allclose(found, best, rtol=1e-6, atol=1e-6)
    assert (symbols[symbols != 0] * x[symbols != 0] > 0).all()


@given(st.integers(1, 4), seeds, trellises)
def test_chunks_are_searched_each_by_itself(chunks: int, seed: int, trellis: Trellis) -> None:
    rng = np.random.default_rng(seed)
    x = rng.laplace(0, 2, 12 * chunks).astype(np.float32)
    plane = [3, 4, 4096, 6, 6, 4, 0]
    cost = np.sort(rng.uniform(0, 6, (2 * contexts.CONTEXTS, 9)), axis=1).astype(np.float32)
    each = Scan(np.array([plane]), np.array([0, 1]), np.array([0, 12]))
    together = Scan(np.array([plane] * chunks), np.arange(chunks + 1), 12 * np.arange(chunks + 1))
    found = kernels.search(x, 1.0, None, together, cost, 0.25, trellis)
    alone = [kernels.search(part, 1.0, None, each, cost, 0.25, trellis) for part in np.split(x, chunks)]
    np.testing.assert_array_equal(found, np.concatenate(alone))


@given(st.integers(1, 40), st.integers(1, 20), seeds, trellises, st.booleans())
def test_the_same_symbols_on_every_instruction_set(
    rows: int, cols: int, seed: int, trellis: Trellis, weighted: bool
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_t(2, rows * cols).astype(np.float32)
    weight = rng.exponential(size=x.size).astype(np.float32) if weighted else None
    scan = Scan(np.array([[rows, cols, 4096, 6, 2, 4, 4]]), np.array([0, 1]), np.array([0, x.size]))
    cost = rng.uniform(0, 9, (2 * contexts.CONTEXTS, rng.integers(1, 20))).astype(np.float32)
    found = []
    for name in instruction_sets():
        with using_instruction_set(name):
            found.append(kernels.search(x, 0.2, weight, scan, cost, 0.25, trellis).tobytes())
    assert len(set(found)) <= 1
