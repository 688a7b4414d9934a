from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from tersor.additive.rate import PRIOR, code_bits, code_counts, total_bits


def drawn(seed: int, count: int, stages: int, size: int, tables: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    codes = (torch.rand(count, stages, generator=generator) ** 2 * size).to(torch.int32)
    return codes, torch.randint(tables, (count,), generator=generator, dtype=torch.int32)


@given(st.integers(0, 1 << 30), st.integers(0, 200), st.integers(1, 3), st.integers(2, 20), st.integers(1, 4))
def test_bits_are_the_lengths_of_a_complete_code(seed: int, count: int, stages: int, size: int, tables: int) -> None:
    codes, table = drawn(seed, count, stages, size, tables)
    bits = code_bits(code_counts(codes, size, table, tables))
    assert bits.shape == (tables, stages, size)
    assert bits.dtype == torch.float32
    assert bool((bits > 0).all() and bits.isfinite().all())
    torch.testing.assert_close((2 ** -bits.double()).sum(-1), torch.ones(tables, stages).double(), rtol=1e-5, atol=1e-5)


def test_a_large_table_reaches_its_entropy_and_a_small_one_borrows() -> None:
    codes, _ = drawn(0, 100_000, 1, 16, 1)
    counts = code_counts(codes, 16)
    bits = code_bits(counts)
    chance = counts[0, 0].double() / counts.sum()
    entropy = float(-(chance * chance.log2()).sum()) * len(codes)
    assert 0 <= total_bits(counts, bits) / entropy - 1 < 1e-4

    table = torch.zeros(len(codes), dtype=torch.int32)
    table[0] = 1
    both = code_bits(code_counts(codes, 16, table))
    others = torch.arange(16) != codes[0, 0]
    shift = np.log2((PRIOR + 1) / PRIOR)
    torch.testing.assert_close(both[1, 0][others], bits[0, 0][others] + shift, rtol=1e-3, atol=1e-3)
    assert both[1, 0, codes[0, 0]] < bits[0, 0, codes[0, 0]]


def test_tables_without_vectors_are_the_pooled_ones() -> None:
    codes, _ = drawn(1, 5000, 2, 8, 1)
    bits = code_bits(code_counts(codes, 8, torch.full((5000,), 1, dtype=torch.int32), 3))
    assert torch.equal(bits[0], bits[2])
    torch.testing.assert_close(bits[0], bits[1], rtol=1e-2, atol=1e-2)


def test_total_bits_is_the_sum_over_codes() -> None:
    codes, table = drawn(2, 300, 2, 8, 3)
    counts = code_counts(codes, 8, table)
    bits = code_bits(counts)
    one_by_one = sum(float(bits[t, m, codes[n, m]]) for n, t in enumerate(table) for m in range(2))
    assert abs(total_bits(counts, bits) - one_by_one) < 1e-3
