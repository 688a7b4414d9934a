from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tersor import kernels
from tersor.kernels import twins

Problem = dict[str, torch.Tensor]


def problem(seed: int, count: int, stages: int, size: int, dims: int, *, element: bool, rated: bool) -> Problem:
    generator = torch.Generator().manual_seed(seed)
    given_: Problem = {
        "vectors": torch.randn(count, dims, generator=generator),
        "codebooks": torch.randn(stages, size, dims, generator=generator)
        * torch.linspace(1, 0.4, stages)[:, None, None],
    }
    if element:
        given_["weights"] = torch.rand(count, dims, generator=generator)
    if rated:
        given_["scale"] = torch.rand(count, generator=generator)
        given_["bias"] = torch.rand(3, stages, size, generator=generator)
        given_["table"] = torch.randint(3, (count,), generator=generator, dtype=torch.int32)
    return given_


def exact_cost(given_: Problem, codes: torch.Tensor) -> torch.Tensor:
    wide = {name: value.double() if value.is_floating_point() else value for name, value in given_.items()}
    optional = [wide.get(name) for name in ("weights", "scale", "bias", "table")]
    return twins.total_cost(wide["vectors"], wide["codebooks"], codes, *optional)


problems = st.builds(
    problem,
    st.integers(0, 1 << 30),
    st.integers(1, 40),
    st.integers(1, 3),
    st.integers(1, 35),
    st.integers(1, 10),
    element=st.booleans(),
    rated=st.booleans(),
)


@settings(max_examples=40)
@given(st.integers(0, 1 << 30), st.integers(0, 70), st.integers(1, 70), st.integers(1, 12), st.booleans())
def test_nearest_is_the_argmin(seed: int, count: int, size: int, dims: int, rated: bool) -> None:
    rng = np.random.default_rng(seed)
    # Small integers: every score is exact, so ties are real and go to the lowest index.
    a, b, offset = (rng.integers(-3, 4, shape).astype(np.float32) for shape in ((count, dims), (dims, size), (size,)))
    scores = offset + a @ b
    extra: Problem = {}
    if rated:
        bias, scale = rng.integers(0, 4, (2, size)), rng.integers(0, 4, count)
        table = rng.integers(0, 2, count)
        scores = scores + scale[:, None] * bias[table]
        extra = {
            "bias": torch.tensor(bias, dtype=torch.float32),
            "scale": torch.tensor(scale, dtype=torch.float32),
            "table": torch.tensor(table, dtype=torch.int32),
        }
    codes, low = kernels.nearest(torch.tensor(a), torch.tensor(b), torch.tensor(offset), **extra)
    np.testing.assert_array_equal(codes.numpy(), scores.argmin(axis=1))
    np.testing.assert_array_equal(low.numpy(), scores.min(axis=1))
    twin_codes, twin_low = twins.nearest(torch.tensor(a), torch.tensor(b), torch.tensor(offset), **extra)
    np.testing.assert_array_equal(twin_low.numpy(), low.numpy())
    np.testing.assert_array_equal(np.take_along_axis(scores, twin_codes.numpy()[:, None], 1)[:, 0], low.numpy())


@settings(max_examples=40)
@given(problems)
def test_a_beam_as_wide_as_the_tree_finds_the_optimum(given_: Problem) -> None:
    stages, size, _ = given_["codebooks"].shape
    given_["codebooks"] = given_["codebooks"][:, : min(size, 6)].contiguous()
    if "bias" in given_:
        given_["bias"] = given_["bias"][:, :, : min(size, 6)].contiguous()
    words = range(min(size, 6))
    tuples = torch.tensor(list(itertools.product(words, repeat=stages)), dtype=torch.int32)
    count = len(given_["vectors"])
    every = torch.stack([exact_cost(given_, row.expand(count, stages)) for row in tuples])
    codes, cost = kernels.beam_search(**given_, width=len(tuples))
    torch.testing.assert_close(exact_cost(given_, codes), every.amin(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(cost.double(), every.amin(0), rtol=1e-5, atol=1e-5)


@settings(max_examples=40)
@given(problems, st.integers(1, 20))
def test_beam_search_equals_its_twin(given_: Problem, width: int) -> None:
    stages = given_["codebooks"].shape[0]
    optional = [given_.get(name) for name in ("weights", "scale", "bias", "table")]
    codes, cost = kernels.beam_search(**given_, width=width)
    twin_codes, twin_cost = twins.beam_search(
        given_["vectors"], given_["codebooks"], width, range(stages), None, *optional
    )
    torch.testing.assert_close(cost.double(), exact_cost(given_, codes), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(twin_cost.double(), exact_cost(given_, twin_codes), rtol=1e-4, atol=1e-5)
    assert (codes == twin_codes).all(dim=1).float().mean() > 0.9


@settings(max_examples=40)
@given(problems, st.integers(0, 3), st.integers(1, 3), st.integers(0, 1 << 40))
def test_local_search_equals_its_twin_and_never_raises_a_cost(
    given_: Problem, restarts: int, changes: int, seed: int
) -> None:
    count, (stages, size, _) = len(given_["vectors"]), given_["codebooks"].shape
    start = torch.randint(size, (count, stages), generator=torch.Generator().manual_seed(seed), dtype=torch.int32)
    codes, cost = kernels.local_search(**given_, codes=start, sweeps=3, restarts=restarts, changes=changes, seed=seed)
    optional = [given_.get(name) for name in ("weights", "scale", "bias", "table")]
    twin_codes, _ = twins.local_search(
        given_["vectors"], given_["codebooks"], start, 3, restarts, changes, seed, *optional
    )
    torch.testing.assert_close(cost.double(), exact_cost(given_, codes), rtol=1e-4, atol=1e-5)
    assert (exact_cost(given_, codes) <= exact_cost(given_, start) * (1 + 1e-5) + 1e-5).all()
    assert (codes == twin_codes).all(dim=1).float().mean() > 0.9


def test_restarts_find_what_one_descent_misses() -> None:
    given_ = problem(0, 500, 3, 16, 6, element=False, rated=True)
    start = torch.zeros(500, 3, dtype=torch.int32)
    _, once = kernels.local_search(**given_, codes=start, sweeps=4)
    _, often = kernels.local_search(**given_, codes=start, sweeps=4, restarts=20)
    assert (often <= once).all()
    assert often.sum() < 0.95 * once.sum()


def test_a_partial_beam_leaves_other_stages_alone_and_improves() -> None:
    given_ = problem(1, 200, 3, 12, 5, element=True, rated=True)
    start, before = kernels.beam_search(**given_, width=1)
    codes, after = kernels.beam_search(**given_, width=8, order=[2, 0], codes=start)
    assert torch.equal(codes[:, 1], start[:, 1])
    assert (after <= before).all()
    assert (after < before).any()
    with pytest.raises(ValueError, match="needs codes"):
        kernels.beam_search(**given_, width=8, order=[2, 0])


def results(given_: Problem) -> list[torch.Tensor]:
    vectors, codebooks = given_["vectors"], given_["codebooks"]
    b, offset = (-2 * codebooks[0].T).contiguous(), (codebooks[0] ** 2).sum(1)
    rate = {name: given_[name] for name in ("scale", "table")} | {"bias": given_["bias"][:, 0].contiguous()}
    found = [*kernels.nearest(vectors, b, offset, **rate), *kernels.nearest(vectors, b, offset)]
    codes, cost = kernels.beam_search(**given_, width=5)
    return [*found, codes, cost, *kernels.local_search(**given_, codes=codes, sweeps=3, restarts=3, seed=5)]


@pytest.mark.parametrize("element", [False, True])
def test_the_same_bits_at_any_thread_count(element: bool, threads_restored: None) -> None:
    given_ = problem(2, 1337, 3, 37, 9, element=element, rated=True)
    torch.set_num_threads(1)
    expected = results(given_)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert all(torch.equal(*pair) for pair in zip(results(given_), expected, strict=True))


@pytest.mark.parametrize("element", [False, True])
def test_the_same_bits_on_every_instruction_set(element: bool) -> None:
    given_ = problem(3, 1003, 3, 37, 9, element=element, rated=True)
    names = kernels.instruction_sets()
    assert kernels.instruction_set() in names
    assert "portable" in names
    expected = results(given_)
    for name in names:
        with kernels.using_instruction_set(name):
            assert kernels.instruction_set() == name
            assert all(torch.equal(*pair) for pair in zip(results(given_), expected, strict=True))
    with pytest.raises(ValueError, match="not available"), kernels.using_instruction_set("abacus"):
        pass


def test_bad_indices_are_refused() -> None:
    given_ = problem(4, 10, 2, 4, 3, element=False, rated=True)
    codes = torch.full((10, 2), 4, dtype=torch.int32)
    with pytest.raises(IndexError, match="code 4"):
        kernels.local_search(**given_, codes=codes, sweeps=1)
    with pytest.raises(IndexError, match="table 7"):
        kernels.beam_search(**(given_ | {"table": torch.full((10,), 7, dtype=torch.int32)}), width=1)
