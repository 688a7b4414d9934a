from __future__ import annotations

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tersor import kernels
from tersor.kernels import native, twins


@settings(max_examples=40)
@given(st.integers(0, 1 << 30), st.integers(0, 50), st.integers(1, 5), st.integers(1, 9), st.integers(1, 10))
def test_decode_adds_in_stage_order_to_the_bit(seed: int, count: int, stages: int, size: int, dims: int) -> None:
    rng = np.random.default_rng(seed)
    books = rng.standard_normal((stages, size, dims)).astype(np.float32)
    codes = rng.integers(0, size, (count, stages)).astype(np.int32)
    expected = books[0][codes[:, 0]]
    for m in range(1, stages):
        expected = expected + books[m][codes[:, m]]
    for module in (kernels, twins):
        np.testing.assert_array_equal(module.decode(torch.from_numpy(codes), torch.from_numpy(books)).numpy(), expected)


def test_decode_is_the_same_at_any_thread_count(threads_restored: None) -> None:
    generator = torch.Generator().manual_seed(0)
    books = torch.randn(3, 16, 9, generator=generator)
    codes = torch.randint(16, (20000, 3), generator=generator, dtype=torch.int32)
    torch.set_num_threads(1)
    expected = kernels.decode(codes, books)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert torch.equal(kernels.decode(codes, books), expected)


@pytest.mark.parametrize("bad", [-1, 4, 1 << 30])
def test_codes_outside_the_codebook_are_refused(bad: int) -> None:
    codes, books = torch.tensor([[0, 1], [bad, 2]], dtype=torch.int32), torch.zeros(2, 4, 3)
    for module in (kernels, twins):
        with pytest.raises(IndexError, match="code"):
            module.decode(codes, books)


def test_without_the_extension_torch_takes_over_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    codes, books = torch.tensor([[0, 1]], dtype=torch.int32), torch.ones(2, 4, 3)
    expected = kernels.decode(codes, books)
    monkeypatch.setitem(sys.modules, "tersor.kernels._native", None)
    native.extension.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="native kernels"):
            assert torch.equal(kernels.decode(codes, books), expected)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert torch.equal(kernels.decode(codes, books), expected)
            assert kernels.instruction_set() == "torch"
    finally:
        native.extension.cache_clear()


def test_importing_the_kernels_does_not_import_torch() -> None:
    check = "import sys, tersor.kernels as k; k.thread_count(); k.instruction_set(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_the_environment_chooses_the_instruction_set() -> None:
    check = "import tersor.kernels as k; print(k.instruction_set())"
    environment = os.environ | {"TERSOR_INSTRUCTION_SET": "portable"}
    found = subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, text=True, env=environment)
    assert found.stdout.strip() == "portable"
