"""The native kernels against their twins in Python, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lattices import cut, scans, seeds, table_levels, trellises, values

from tersor.codec import ans, tables
from tersor.errors import ArchiveError
from tersor.kernels.native import extension
from tersor.lattice import contexts, fit, kernels, tokens, twin
from tersor.lattice.kernels import Scan
from tersor.lattice.planes import Shape, plan_planes
from tersor.lattice.trellis import Trellis

spreads = st.sampled_from([0.02, 0.5, 3.0, 400.0])
few = settings(max_examples=20)


@pytest.fixture(autouse=True, scope="module")
def _native() -> None:
    assert extension() is not None, "build the native kernels before testing them"


def searched(scan: Scan, spread: float, seed: int, trellis: Trellis) -> tuple[np.ndarray, np.ndarray]:
    """Symbols and the table levels they were found under."""
    x = values(int(scan.chunk_starts[-1]), spread, seed)
    levels = table_levels(fit.token_count(x, 1.0), seed)
    return kernels.search(x, 1.0, None, scan, contexts.token_bits(levels), 0.25, trellis), levels


@settings(max_examples=16)
@given(scans(), spreads, seeds, trellises, st.sampled_from([1.0, 0.3, 0.0117]), st.booleans())
def test_search(scan: Scan, spread: float, seed: int, trellis: Trellis, step: float, weighted: bool) -> None:
    rng = np.random.default_rng(seed)
    x = values(int(scan.chunk_starts[-1]), spread * step, seed)
    weight = (rng.exponential(1, x.size) * (rng.random(x.size) > 0.2)).astype(np.float32) if weighted else None
    cost = contexts.token_bits(table_levels(max(fit.token_count(x, step) - int(rng.integers(0, 2)), 1), seed))
    lam = float(rng.choice([0.0, 0.25, 3.0]))
    expected = np.zeros(x.size, dtype=np.int32)
    found = kernels.search(x, step, weight, scan, cost, lam, trellis)
    twin.search(x * np.float32(1.0 / step), weight, scan, cost, lam, trellis, expected)
    np.testing.assert_array_equal(found, expected)


@few
@given(scans(), spreads, seeds, trellises, st.booleans())
def test_measure(scan: Scan, spread: float, seed: int, trellis: Trellis, priced: bool) -> None:
    symbols, levels = searched(scan, spread, seed, trellis)
    cost, count = contexts.token_bits(levels) if priced else None, levels.shape[1]
    found = kernels.measure(symbols, scan, cost, trellis, count)
    counts = np.zeros((len(scan.chunk_starts) - 1, *levels.shape), dtype=np.int64)
    bits, sums = np.zeros(len(scan.planes)), np.zeros(len(scan.planes), dtype=np.int64)
    twin.measure(symbols, scan, cost, trellis, counts, bits, sums)
    np.testing.assert_array_equal(found.counts, counts.sum(axis=0))
    np.testing.assert_array_equal(found.bits, bits)
    np.testing.assert_array_equal(found.levels, sums)
    assert found.counts.sum() == symbols.size


@few
@given(scans(), spreads, seeds, trellises)
def test_encode_decode_and_levels(scan: Scan, spread: float, seed: int, trellis: Trellis) -> None:
    symbols, table_of = searched(scan, spread, seed, trellis)
    table = tables.frequencies(table_of, contexts.PRECISION)
    streams = []
    for c in range(len(scan.chunk_starts) - 1):
        part = symbols[scan.chunk_starts[c] : scan.chunk_starts[c + 1]]
        planes = np.ascontiguousarray(scan.planes[scan.chunk_planes[c] : scan.chunk_planes[c + 1]])
        streams.append(kernels.encode(part, planes, table, contexts.PRECISION, trellis))
        assert streams[-1] == twin.encode(part, planes, table, contexts.PRECISION, trellis)
    expected, slow = np.zeros((2, symbols.size), dtype=np.int32)
    twin.levels_of(symbols, scan.chunk_starts, trellis, expected)
    np.testing.assert_array_equal(kernels.levels_of(symbols, scan.chunk_starts, trellis), expected)
    np.testing.assert_array_equal(kernels.decode(streams, scan, table, contexts.PRECISION, trellis), expected)
    arrays = [ans.words(s) for s in streams]
    starts = np.concatenate([[0], np.cumsum([len(a) for a in arrays])])
    assert twin.decode(np.concatenate(arrays), starts, scan, table, contexts.PRECISION, trellis, slow) == -1
    np.testing.assert_array_equal(slow, expected)
    chosen = list(range(len(streams)))[::-2]
    some = kernels.decode([streams[c] for c in chosen], scan.chunks(chosen), table, contexts.PRECISION, trellis)
    wanted = [expected[scan.chunk_starts[c] : scan.chunk_starts[c + 1]] for c in chosen]
    np.testing.assert_array_equal(some, np.concatenate([*wanted, np.zeros(0, np.int32)]))


@settings(max_examples=40)
@given(scans(), spreads, seeds, trellises, st.data())
def test_a_damaged_stream_is_refused_or_gives_other_levels(
    scan: Scan, spread: float, seed: int, trellis: Trellis, data: st.DataObject
) -> None:
    scan = scan.chunks([0])
    symbols, levels = searched(scan, spread, seed, trellis)
    table = tables.frequencies(levels, contexts.PRECISION)
    stream = kernels.encode(symbols, scan.planes, table, contexts.PRECISION, trellis)
    words = [stream[i : i + 4] for i in range(0, len(stream), 4)]
    at = data.draw(st.integers(0, len(words)))
    word = data.draw(st.integers(1, 2**32 - 1)).to_bytes(4, "little")
    for damaged in (
        words[:at] + words[at + 1 :],
        [*words[:at], word, *words[at + 1 :]],
        [*words[:at], word, *words[at:]],
    ):
        if damaged == words:
            continue
        try:
            found = kernels.decode([b"".join(damaged)], scan, table, contexts.PRECISION, trellis)
        except ArchiveError as error:
            assert "\n" not in str(error)
        else:
            assert (found != kernels.levels_of(symbols, scan.chunk_starts, trellis)).any()


@pytest.mark.parametrize("level", [5.0, 1e5, float(2 * tokens.MAX_MAGNITUDE), 1e9])
def test_values_beyond_every_token_are_no_accident(level: float) -> None:
    with cut(1 << 19, 1 << 17):
        planes = plan_planes([Shape(1, 8, 1)])
    scan = Scan(planes.kernel_table(np.zeros(1, int), np.zeros(1, int)), planes.chunk_planes, planes.chunk_starts)
    x = np.array([0, 1, -level, 0, level, 3, 0, 0], dtype=np.float32)
    cost = contexts.token_bits(table_levels(fit.token_count(x, 1.0), 0))
    trellis = Trellis(2, 0o5, 0o2)
    expected = np.zeros(8, dtype=np.int32)
    twin.search(x, None, scan, cost, 0.25, trellis, expected)
    np.testing.assert_array_equal(kernels.search(x, 1.0, None, scan, cost, 0.25, trellis), expected)
