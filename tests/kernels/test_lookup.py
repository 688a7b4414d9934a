from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tersor.kernels import lookup as module
from tersor.kernels import native
from tersor.kernels.lookup import lookup, twin

Layer = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def layer(seed: int, stages: int, inputs: int, rows: int, size: int, dims: int, batch: int) -> Layer:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(size, (stages, inputs, rows), generator=generator, dtype=torch.uint8)
    books = torch.randn(stages, size, dims, generator=generator)
    return codes, books, torch.randn(batch, inputs * dims, generator=generator)


def in_doubles(codes: torch.Tensor, books: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The product of the decoded weights, and the sum of the terms' magnitudes, which bounds the rounding."""
    words = [book.double()[chosen.long()] for book, chosen in zip(books, codes, strict=True)]  # [J, R, d] each
    vectors = x.double().reshape(x.shape[0], codes.shape[1], books.shape[2])
    products = [torch.einsum("jrd,bjd->br", word, vectors) for word in words]
    sizes = [torch.einsum("jrd,bjd->br", word.abs(), vectors.abs()) for word in words]
    return torch.stack(products).sum(dim=0), torch.stack(sizes).sum(dim=0)


def bits(values: torch.Tensor) -> torch.Tensor:
    return values.contiguous().view(torch.int32)


shapes = st.tuples(
    st.integers(0, 1 << 30),
    st.integers(1, 3),
    st.one_of(st.integers(1, 20), st.sampled_from([63, 64, 65, 130])),
    st.one_of(st.integers(1, 40), st.sampled_from([255, 257, 301])),
    st.sampled_from([1, 2, 7, 16, 100, 255, 256]),
    st.integers(1, 9),
    st.integers(1, 5),
)


@given(shapes)
def test_the_result_is_that_of_the_decoded_weights(shape: tuple[int, int, int, int, int, int, int]) -> None:
    codes, books, x = layer(*shape)
    expected, size = in_doubles(codes, books, x)
    terms = codes.shape[0] * x.shape[1] + 2
    found = lookup(codes, books, x)
    assert found.dtype == torch.float32 and found.shape == expected.shape
    assert ((found.double() - expected).abs() <= terms * 2.0**-24 * size).all()


@given(shapes)
def test_the_twin_has_the_same_bits(shape: tuple[int, int, int, int, int, int, int]) -> None:
    arguments = layer(*shape)
    assert torch.equal(bits(lookup(*arguments)), bits(twin(*arguments)))


@pytest.mark.parametrize(("stages", "inputs", "rows", "dims"), [(1, 200, 5000, 4), (2, 70, 8200, 3), (1, 300, 700, 2)])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_bits_are_the_same_at_any_thread_count(
    stages: int, inputs: int, rows: int, dims: int, batch: int, threads_restored: None
) -> None:
    arguments = layer(0, stages, inputs, rows, 256, dims, batch)
    expected = bits(twin(*arguments))
    for threads in (1, 2, 3, 8):
        torch.set_num_threads(threads)
        assert torch.equal(bits(lookup(*arguments)), expected)


def test_an_input_has_the_same_bits_alone_and_in_company() -> None:
    codes, books, x = layer(1, 2, 90, 77, 256, 4, 9)
    together = lookup(codes, books, x)
    for b in range(9):
        assert torch.equal(bits(lookup(codes, books, x[b : b + 1])), bits(together[b : b + 1]))


def test_the_order_of_the_sums_is_as_documented() -> None:
    codes, books, x = layer(2, 2, 50, 3, 5, 4, 1)
    c, w, v = codes.numpy().reshape(100, 3), books.numpy(), x.numpy().reshape(50, 4)
    for row in range(3):
        total = np.float32(0)
        for first in (0, 64):
            group = np.float32(0)
            for p in range(first, min(first + 64, 100)):
                products = w[p // 50][c[p, row]] * v[p % 50]
                group += ((products[0] + products[1]) + products[2]) + products[3]
            total += group
        assert lookup(codes, books, x)[0, row].item() == float(total)


@pytest.mark.parametrize("run", [lookup, twin])
@pytest.mark.parametrize("at", [(0, 0, 0), (1, 2, 4098), (0, 1, 17)])
def test_codes_outside_the_codebook_are_refused(run: object, at: tuple[int, int, int]) -> None:
    assert callable(run)
    codes, books, x = layer(3, 2, 3, 4099, 200, 2, 1)
    run(codes, books, x)
    codes[at] = 200
    with pytest.raises(IndexError, match=r"code 200 is outside 0\.\.199"):
        run(codes, books, x)


@pytest.mark.parametrize(
    ("codes", "books", "x", "message"),
    [
        ((2, 3, 5), (1, 4, 2), (1, 6), "do not fit"),
        ((1, 3, 5), (1, 4, 2), (1, 5), "do not fit"),
        ((1, 3), (1, 4, 2), (1, 6), "do not fit"),
        ((1, 3, 5), (1, 4, 2), (6,), "do not fit"),
        ((1, 3, 5), (1, 257, 2), (1, 6), "1 to 256 codewords"),
        ((1, 3, 5), (1, 0, 2), (1, 6), "1 to 256 codewords"),
        ((1, 3, 5), (1, 4, 0), (1, 0), "1 to 256 codewords"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    codes: tuple[int, ...], books: tuple[int, ...], x: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        lookup(torch.zeros(codes, dtype=torch.uint8), torch.zeros(books), torch.zeros(x))


def test_codes_of_another_type_are_refused_instead_of_wrapped() -> None:
    with pytest.raises(ValueError, match=r"int32.*uint8"):
        lookup(torch.full((1, 3, 5), 256, dtype=torch.int32), torch.zeros(1, 4, 2), torch.zeros(1, 6))


@pytest.mark.parametrize("run", [lookup, twin])
@pytest.mark.parametrize(("inputs", "rows", "batch"), [(0, 5, 2), (3, 0, 2), (3, 5, 0)])
def test_empty_sums_are_zero(run: object, inputs: int, rows: int, batch: int) -> None:
    assert callable(run)
    found = run(*layer(4, 2, inputs, rows, 4, 2, batch))
    assert found.shape == (batch, rows) and not found.any()


@settings(max_examples=10)
@given(st.integers(0, 1 << 30))
def test_views_and_other_floats_are_taken(seed: int) -> None:
    codes, books, x = layer(seed, 2, 9, 33, 16, 3, 4)
    expected = lookup(codes, books, x)
    turned = codes.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert torch.equal(lookup(turned, books.double(), x.T.contiguous().T.requires_grad_()), expected)


def test_without_the_extension_the_twin_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    codes, books, x = layer(5, 2, 70, 33, 256, 4, 2)
    expected = lookup(codes, books, x)
    monkeypatch.setattr(module, "extension_for", lambda tensor: None)
    assert torch.equal(bits(module.lookup(codes, books, x)), bits(expected))
    assert native.extension() is not None


def test_importing_the_kernel_does_not_import_torch() -> None:
    check = "import sys, tersor.kernels.lookup; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
