from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import scipy.fft
from hypothesis import given
from hypothesis import strategies as st

from tersor.errors import ArchiveError
from tersor.representations import exact
from tersor.representations.made import (
    MAX_PRODUCTS,
    RULES,
    Made,
    cosines,
    gaussian,
    identity,
    make,
    squared_exponential,
)

CASES: dict[str, tuple[Made, tuple[int, ...]]] = {
    "identity": (identity(3, 2), (14, 40)),
    "gaussian": (gaussian(5, 0.1), (12, 50)),
    "cosine": (cosines(1, (8, 6)), (20, 48)),
    "cosine of kernels": (cosines(4, (3, 3)), (10, 4, 3, 3)),
    "squared-exponential": (squared_exponential(7, 2.0, 0.1, 1, (9, 7), 3), (24, 63)),
    "squared-exponential of kernels": (squared_exponential(1, 3.0, 0.1, 5, (5, 5)), (30, 5, 5, 5)),
}

GOLDEN = {
    "identity": "6506293bc2163a9b",
    "gaussian": "834efff754b1482c",
    "cosine": "c7148f2a1849be56",
    "cosine of kernels": "67612bca5563c2c7",
    "squared-exponential": "240ef06421c28798",
    "squared-exponential of kernels": "0b166347221df0dc",
}
"""Bytes of these are part of the format: a change of them is a change of what files mean."""


@pytest.mark.parametrize("name", CASES)
def test_the_same_bits_on_every_machine(name: str) -> None:
    made, shape = CASES[name]
    found = make(made, shape)
    assert found.dtype == np.float32 and found.shape == shape and found.flags.c_contiguous
    assert hashlib.sha256(found.astype("<f4").tobytes()).hexdigest()[:16] == GOLDEN[name]
    assert make(made, (shape[0], math.prod(shape[1:]))).tobytes() == found.tobytes()


def test_words_are_splitmix64() -> None:
    """Against the published generator, whose state here starts at a hash of the seed."""
    state, out = mixed(42 + GOLD), []
    for _ in range(5):
        state = (state + GOLD) % 2**64
        out.append(mixed(state))
    assert exact.words(42, 0, 5).tolist() == out
    assert exact.words(42, 2, 3).tolist() == out[2:]
    assert mixed(GOLD) == 16294208416658607535  # the first number of splitmix64 with seed 0, as published


GOLD = 0x9E3779B97F4A7C15


def mixed(x: int) -> int:
    x %= 2**64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


def test_gaussian_numbers_have_the_moments() -> None:
    count = 400_000
    x = make(gaussian(11, 1.0), (400, 1000)).ravel().astype(np.float64)
    assert abs(x.mean()) < 5 / math.sqrt(count)
    assert abs(x.var() - 1) < 5 * math.sqrt(2 / count)
    assert abs((x**3).mean()) < 0.02
    assert abs((x**4).mean() - 2.9) < 0.05
    assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 5 / math.sqrt(count)
    other = make(gaussian(12, 1.0), (400, 1000)).ravel()
    assert abs(np.corrcoef(x, other)[0, 1]) < 5 / math.sqrt(count)
    np.testing.assert_allclose(make(gaussian(11, 0.25), (400, 1000)).ravel(), 0.25 * x)


@given(st.integers(1, 3000), st.integers(-(10**9), 10**9))
def test_cosines_are_cosines(denominator: int, start: int) -> None:
    m = np.arange(start, start + 200)
    wanted = np.array([math.cos(math.pi / 2 * (int(i) % (4 * denominator)) / denominator) for i in m])
    np.testing.assert_allclose(exact.cosine(m, denominator), wanted, atol=2e-15, rtol=0)


def test_exponentials_are_exponentials() -> None:
    x = -np.concatenate([np.linspace(0, 50, 4001), np.linspace(50, 699, 2000), [0.0, 1e-300, 5e-17]])
    np.testing.assert_allclose(exact.exp(x), np.exp(x), rtol=1e-15)
    assert exact.exp(np.array([-701.0, -1e300])).tolist() == [0, 0]


def test_systems_are_solved() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(30, 40)), rng.normal(size=(30, 7))
    matrix = a @ a.T
    found = exact.solve(matrix, b)
    assert found is not None
    np.testing.assert_allclose(found, np.linalg.solve(matrix, b), rtol=1e-8)
    assert exact.solve(np.ones((2, 2)), np.ones((2, 1))) is None
    assert exact.solve(np.full((2, 2), np.nan), np.ones((2, 1))) is None


def test_identity_rows_are_those_of_inputs_without_repetition() -> None:
    found = make(identity(3, 4), (40, 25)).reshape(4, 10, 25)
    for column in found:
        assert column.sum() == 10 and (column.sum(1) == 1).all() and column.sum(0).max() == 1
        chosen = column.argmax(1)
        assert (np.diff(chosen) > 0).all()
    assert len({column.tobytes() for column in found}) == 4
    assert (make(identity(0), (25, 25)) == np.eye(25)).all()
    counts = sum(make(identity(seed), (10, 25)).sum(0) for seed in range(500))
    assert counts.min() > 150 and counts.max() < 250


def test_cosines_are_the_discrete_cosine_transforms() -> None:
    size = (8, 6)
    every = scipy.fft.dctn(np.eye(48).reshape(48, *size), axes=(1, 2), norm="ortho").reshape(48, 48).T
    found = make(cosines(1, size), (48, 48))
    pitch = [(k // 6 / 8) ** 2 + (k % 6 / 6) ** 2 for k in range(48)]
    order = sorted(range(48), key=lambda k: (round(pitch[k], 12), k))
    np.testing.assert_allclose(found, every[order], atol=1e-6)
    np.testing.assert_allclose(found @ found.T, np.eye(48), atol=1e-6)
    assert (make(cosines(1, size), (11, 48)) == found[:11]).all()
    kernels = make(cosines(4, (3, 3)), (36, 4, 3, 3)).reshape(36, 36)
    np.testing.assert_allclose(kernels @ kernels.T, np.eye(36), atol=1e-6)
    assert (kernels[:4] > 0).sum() == 36  # the constant of each channel comes first


@pytest.mark.parametrize("name", ["squared-exponential", "squared-exponential of kernels"])
def test_kernel_ridge_regression_is_the_textbooks(name: str) -> None:
    made, shape = CASES[name]
    seed, columns, _, _, channels, *sides = made.numbers
    width, ridge = (2.0, 0.1) if columns == 3 else (3.0, 0.1)
    places = np.stack(np.meshgrid(*map(np.arange, (channels, *sides)), indexing="ij"), -1).reshape(-1, 1 + len(sides))
    far = places[:, None] - places
    k = np.exp(-(far[..., 1:] ** 2).sum(-1) / (2 * width**2)) * (far[..., 0] == 0)
    found = make(made, shape).reshape(columns, shape[0] // columns, -1)
    for j, column in enumerate(found):
        s = exact.subset(seed, j, len(column), k.shape[0])
        wanted = np.linalg.solve(k[s][:, s] + ridge * np.eye(len(s)), k[s])
        np.testing.assert_allclose(column, wanted, atol=1e-6)


def test_without_a_ridge_regression_goes_through_what_it_saw() -> None:
    found = make(squared_exponential(2, 0.8, 1e-7, 2, (6, 6)), (20, 72))
    s = exact.subset(2, 0, 20, 72)
    np.testing.assert_allclose(found[:, s], np.eye(20), atol=1e-4)
    np.testing.assert_allclose(make(squared_exponential(2, 0.8, 0.0, 2, (6, 6)), (20, 72))[:, s], np.eye(20), atol=1e-6)


HOSTILE: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = [
    (-1, (), (4, 4)), (4, (), (4, 4)), (1 << 70, (), (4, 4)),
    (0, (), (4, 4)), (0, (1,), (4, 4)), (0, (1, 0), (4, 4)), (0, (1, 3), (4, 4)), (0, (1, -1), (4, 4)),
    (0, (-1, 1), (4, 4)), (0, (1 << 64, 1), (4, 4)), (0, (1, 1), (5, 4)), (0, (1, 1), (4,)), (0, (1, 1), ()),
    (0, (1, 1), (0, 4)), (0, (1, 1), (-4, -4)), (0, (1, 1), (1 << 40, 1 << 40)), (0, (1, 1), (1 << 14, 1 << 14)),
    (0, (1, 1), (1, 1 << 26)), (0, (1, 1 << 60), (4, 4)),
    (1, (1,), (4, 4)), (1, (1, 0x7F800000), (4, 4)), (1, (1, 0x7FC00000), (4, 4)), (1, (1, 1 << 32), (4, 4)),
    (1, (1, -1), (4, 4)), (1, (1, 0x7F7FFFFF), (40, 40)), (1, (-1, 0), (4, 4)), (1, (1, 0, 0), (4, 4)),
    (2, (), (4, 4)), (2, (4,), (4, 4)), (2, (1, 5), (4, 4)), (2, (0, 4), (4, 4)), (2, (-1, -4), (4, 4)),
    (2, (1, 4), (5, 4)), (2, (1, 4, *(1,) * 9), (4, 4)), (2, (1, 1 << 80), (4, 4)), (2, (1, 1 << 26), (1, 1 << 26)),
    (3, (1, 1, 0x40000000, 0x3DCCCCCD, 1), (4, 4)), (3, (1, 1, 0, 0x3DCCCCCD, 1, 4), (4, 4)),
    (3, (1, 1, 0xC0000000, 0x3DCCCCCD, 1, 4), (4, 4)), (3, (1, 1, 0x40000000, 0xBDCCCCCD, 1, 4), (4, 4)),
    (3, (1, 1, 0x7149F2CA, 0, 1, 4), (4, 4)), (3, (1, 0, 0x40000000, 0x3DCCCCCD, 1, 4), (4, 4)),
    (3, (1, 3, 0x40000000, 0x3DCCCCCD, 1, 4), (4, 4)), (3, (1, 1, 0x40000000, 0x3DCCCCCD, 2, 4), (4, 4)),
    (3, (1, 1, 0x40000000, 0x3DCCCCCD, 1, 8192), (8192, 8192)),
    (3, (1, 1, 0x40000000, 0x3DCCCCCD, 1, 4), (5, 4)),
]  # fmt: skip


@pytest.mark.parametrize("rule, numbers, shape", HOSTILE)
def test_implausible_numbers_are_refused(rule: int, numbers: tuple[int, ...], shape: tuple[int, ...]) -> None:
    with pytest.raises(ArchiveError, match=r"a tensor .*rule"):
        make(Made(rule, numbers), shape)


@given(
    st.integers(0, len(RULES) - 1),
    st.lists(st.one_of(st.integers(0, 8), st.integers(-(2**70), 2**70)), max_size=8),
    st.lists(st.integers(0, 8), max_size=4),
)
def test_any_numbers_give_a_finite_tensor_or_an_error(rule: int, numbers: list[int], shape: list[int]) -> None:
    try:
        found = make(Made(rule, tuple(numbers)), tuple(shape))
    except ArchiveError:
        return
    assert found.shape == tuple(shape) and np.isfinite(found).all()


def test_tiny_and_huge_widths_are_no_trouble() -> None:
    tiny = make(squared_exponential(1, 1e-45, 0.0, 1, (5,)), (3, 5))
    assert (tiny == make(identity(1), (3, 5))).all()
    huge = make(squared_exponential(1, 3e38, 1.0, 1, (5,)), (3, 5))
    np.testing.assert_allclose(huge, 0.25)
    assert MAX_PRODUCTS < 8192**3
