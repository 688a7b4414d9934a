from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tersor.errors import TersorError
from tersor.passes.lowrank import factors_of
from tersor.passes.rank_choice import by_share, hull
from tersor.passes.truncation import Curve, curve, truncated_svd, tucker2
from tersor.structure.factored import chain_like, fill

REAL = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are trained fastest without company, above all where other work is done beside."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def squares(t: torch.Tensor) -> float:
    return float(t.detach().square().sum())


@pytest.mark.parametrize("rank", [1, 5, 12])
def test_what_an_svd_loses_is_the_squares_of_the_dropped_values(rank: int) -> None:
    w = noise(20, 12).double()
    first, second = truncated_svd(w, rank)
    assert first.shape == (rank, 12) and second.shape == (20, rank)
    dropped = torch.linalg.svdvals(w)[rank:]
    assert squares(second @ first - w) == pytest.approx(squares(dropped), abs=1e-20, rel=1e-12)
    torch.testing.assert_close(first.norm(dim=1), second.norm(dim=0))
    assert (first.gather(1, first.abs().argmax(1, keepdim=True)) > 0).all()
    turned = truncated_svd(w.flip(0), rank)  # the signs do not hang on the order of rows
    torch.testing.assert_close(turned[0], first)


def test_an_svd_does_not_depend_on_the_gauge() -> None:
    """(U Q)(Q^-1 V) is U V: only the product counts."""
    w, q = noise(20, 12).double(), noise(5, 5, seed=1).double()
    first, second = truncated_svd(w, 5)
    mixed = truncated_svd((second @ q) @ torch.linalg.inv(q) @ first, 5)
    for mine, other in zip((first, second), mixed, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("shape", [(8, 6, 3, 3), (8, 6, 5), (3, 30, 3, 3), (60, 3, 3, 3)])
def test_tucker_at_full_rank_is_dense(shape: tuple[int, ...]) -> None:
    w = noise(*shape).double()
    first, core, last = tucker2(w, shape[0], shape[1])
    torch.testing.assert_close(torch.einsum("or,rs...,si->oi...", last.flatten(1), core, first.flatten(1)), w)


@pytest.mark.parametrize("ranks", [(1, 1), (4, 3), (7, 2), (8, 5)])
def test_tucker_is_no_worse_than_its_curve_says(ranks: tuple[int, int]) -> None:
    w = noise(8, 6, 3, 3).double()
    first, core, last = tucker2(w, *ranks)
    lost = squares(torch.einsum("or,rs...,si->oi...", last.flatten(1), core, first.flatten(1)) - w)
    left, right = (torch.linalg.svd(m, full_matrices=False).U for m in (w.flatten(1), w.transpose(0, 1).flatten(1)))
    p, q = left[:, : ranks[0]], right[:, : ranks[1]]
    hosvd = squares(torch.einsum("pr,or,oi...,is,qs->pq...", p, p, w, q, q) - w)
    assert lost <= hosvd * (1 + 1e-9)
    for factor in (first.flatten(1).T, last.flatten(1)):
        torch.testing.assert_close(factor.T @ factor, torch.eye(factor.shape[1], dtype=torch.float64))
    c = curve(w, "tucker")
    known = {tuple(r): float(e) for r, e in zip(c.ranks.tolist(), c.error, strict=True)}
    if ranks in known:
        assert known[ranks] == pytest.approx(hosvd)


def test_curves_fall_and_end_dense() -> None:
    kernels = (16, 12, 3, 3)
    for method, shape in (("auto", kernels), ("svd", kernels), ("tucker", kernels), ("auto", (9, 7))):
        w = noise(*shape)
        c = curve(w, method)
        assert (np.diff(c.cost) > 0).all() and (np.diff(c.error) < 0).all()
        assert c.at(-1) == () and c.cost[-1] == w.numel() and c.error[-1] == 0
        for i in range(0, len(c.cost) - 1, max(1, len(c.cost) // 10)):
            factors = factors_of(w, c.at(i))
            assert sum(f.numel() for f in factors) == c.cost[i] < w.numel()
    exact = curve(torch.outer(torch.ones(20), torch.arange(12.0)))
    assert exact.at(0) == (1,) and exact.error[0] == pytest.approx(0, abs=1e-9) and exact.at(-1) == ()
    assert curve(torch.zeros(20, 12)).at(-1) == ()


STEPS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=6)


@given(st.lists(STEPS, min_size=1, max_size=4), st.integers(0, 100))
def test_ranks_chosen_together_are_the_best_at_their_size(steps: list[list[tuple[int, int]]], percent: int) -> None:
    """Against all combinations: nothing of that size or less has less error, but for what lies inside one hull."""
    curves = []
    for each in steps:
        cost = np.cumsum([c for c, _ in each] + [1])
        error = np.cumsum([0] + [e for _, e in each])[::-1].astype(float)
        curves.append(Curve(cost, error, np.zeros((len(cost), 2), dtype=np.int64), 100.0))
    total, least = sum(int(c.cost[-1]) for c in curves), sum(int(c.cost[0]) for c in curves)
    share = percent / 100
    if least > share * total:
        with pytest.raises(TersorError, match="lowest ranks"):
            by_share(curves, share)
        return
    at = by_share(curves, share)
    mine = sum(float(c.error[i]) for c, i in zip(curves, at, strict=True))
    size = sum(int(c.cost[i]) for c, i in zip(curves, at, strict=True))
    assert size <= share * total
    every = {(0, 0.0)}
    for c in curves:
        every = {(s + int(n), e + float(x)) for s, e in every for n, x in zip(c.cost, c.error, strict=True)}
    if all(i in hull(c.cost, c.error) for c, i in zip(curves, at, strict=True)):
        assert mine <= min(e for s, e in every if s <= size) + 1e-9


@pytest.mark.skipif(not REAL.exists(), reason="no shared data")
def test_a_real_networks_kernels() -> None:
    from safetensors.torch import load_file

    weights = load_file(REAL / "resnet20-cifar10.safetensors")
    w = weights["layer3.1.conv1.weight"]
    c = curve(w)
    i = int(np.argmax(c.cost >= w.numel() // 2))
    factors = {f"{k}.weight": f for k, f in enumerate(factors_of(w, c.at(i)))}
    chain = chain_like(nn.Conv2d(64, 64, 3), {name: tuple(f.shape) for name, f in factors.items()})
    fill(chain, factors)
    lost = squares(chain.weight - w)
    assert lost <= float(c.error[i]) * (1 + 1e-5) and 0.02 < lost / c.energy < 0.5
