"""Pruning of single weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tersor.errors import TersorError
from tersor.passes.prune import Prune, keep_best, keep_pattern, saliency
from tersor.passes.work import Work


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 10)).eval()


def data(count: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(8, 4, 4, 4, generator=generator) for _ in range(count)]


def worked(step: Prune, told: list[str] | None = None, **fields: object) -> Work:
    network = net()
    work = Work(network, net(), data(), tell=(told if told is not None else []).append, **fields)  # type: ignore[arg-type]
    step.run(work)
    return work


@given(st.integers(1, 60), st.floats(0, 0.99), st.integers(0, 5))
def test_the_lowest_scores_go(count: int, sparsity: float, seed: int) -> None:
    scores = torch.randn(count, generator=torch.Generator().manual_seed(seed))
    keep = keep_best({"a": scores}, sparsity, "layer")["a"]
    assert int((~keep).sum()) == min(round(sparsity * count), count - 1)  # never all
    if keep.any() and not keep.all():
        assert scores[keep].min() >= scores[~keep].max()


def test_global_pruning_leaves_something_in_every_layer() -> None:
    told: list[str] = []
    network = net()
    with torch.no_grad():
        network[0].weight.mul_(1e-6)
    work = Work(network, net(), tell=told.append)
    Prune(sparsity=0.6).run(work)
    assert int((network[0].weight != 0).sum()) == 3  # 1 % of 288
    assert any("would have lost nearly all" in line for line in told)


@given(st.integers(1, 3), st.integers(0, 3))
def test_n_of_every_m(n: int, seed: int) -> None:
    w = torch.randn(6, 8, 3, 3, generator=torch.Generator().manual_seed(seed))
    keep = keep_pattern(w.abs(), n, 4)
    blocks = keep.movedim(1, -1).reshape(-1, 4)
    assert bool((blocks.sum(1) == n).all())
    best = w.abs().movedim(1, -1).reshape(-1, 4).topk(n).values.sum(1)
    torch.testing.assert_close((w.abs().movedim(1, -1).reshape(-1, 4) * blocks).sum(1), best)


def test_what_is_deleted_stays_deleted_in_training() -> None:
    work = worked(Prune(sparsity=0.7, rounds=2, steps=5))
    for name, keep in work.masks.items():
        value = dict(work.network.named_parameters())[name]
        assert not bool(value[~keep].any()) and bool((value != 0).any())
    zeros = sum(int((~keep).sum()) for keep in work.masks.values())
    assert zeros == round(0.7 * sum(keep.numel() for keep in work.masks.values()))


def test_rounds_delete_more_and_nothing_comes_back() -> None:
    one = worked(Prune(sparsity=0.7, scope="layer"))
    three = worked(Prune(sparsity=0.7, scope="layer", rounds=3))
    for name, keep in one.masks.items():
        assert torch.equal(keep, three.masks[name])  # without training, magnitudes are what they were


def test_patterns_say_which_layers_they_leave() -> None:
    told: list[str] = []
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 1))
    Prune(pattern="2:4").run(work := Work(network, network, tell=told.append))
    assert list(work.masks) == ["2.weight"]
    assert "3 inputs" in told[0] and "depthwise" in told[1]
    assert float((network[2].weight == 0).float().mean()) == 0.5


def test_a_single_deletion_of_a_quadratic_costs_its_saliency() -> None:
    """For any quadratic error at its minimum, whatever its Hessian (OBD, eq. 5); jointly only for a diagonal one."""
    torch.manual_seed(0)
    root = torch.randn(6, 6).double()
    hessian, u = root @ root.T, torch.randn(6).double()

    def rise(du: torch.Tensor) -> torch.Tensor:
        return du @ hessian @ du / 2

    s = saliency(u, hessian.diagonal()).double()
    for k in range(6):
        du = torch.zeros(6).double()
        du[k] = -u[k]
        torch.testing.assert_close(rise(du), hessian[k, k] * u[k] ** 2 / 2, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(s[k], rise(du), rtol=1e-6, atol=1e-6)
    assert abs(float(rise(-u) - s.sum())) > 0.1
    diagonal = torch.diag(hessian.diagonal())
    torch.testing.assert_close(u @ diagonal @ u / 2, s.sum(), rtol=1e-6, atol=1e-6)


def test_brain_damage_predicts_the_rise_it_measures() -> None:
    told: list[str] = []
    worked(Prune(sparsity=0.2, criterion="obd", curvature="gauss-newton"), told)
    words = told[-1].replace(",", "").split()
    predicted, measured = float(words[words.index("predicted") + 1]), float(words[-1])
    assert 0.1 < predicted / measured < 10


def test_a_network_that_fits_perfectly_is_warned_of() -> None:
    told: list[str] = []
    network = net()
    with torch.no_grad():
        network[4].bias[0] = 60.0  # sure of one class: no second derivatives
    Prune(sparsity=0.5, criterion="obd").run(Work(network, network, data(), tell=told.append))
    assert "fits this data too well" in told[0]


def test_excluded_tensors_are_not_touched() -> None:
    work = worked(Prune(sparsity=0.5, scope="layer"), exclude=("0.*",))
    assert list(work.masks) == ["4.weight"]
    assert bool((work.network.get_submodule("0").weight != 0).all())  # type: ignore[operator,union-attr]


def test_fixed_factors_are_not_touched() -> None:
    network = net()
    work = Work(network, net(), fixed={"0.weight"})
    Prune(sparsity=0.5, scope="layer").run(work)
    assert list(work.masks) == ["4.weight"]


def test_the_same_seed_prunes_the_same_at_random() -> None:
    one, two = worked(Prune(sparsity=0.5, criterion="random")), worked(Prune(sparsity=0.5, criterion="random"))
    assert all(torch.equal(one.masks[n], two.masks[n]) for n in one.masks)
    other = worked(Prune(sparsity=0.5, criterion="random"), seed=1)
    assert not torch.equal(one.masks["0.weight"], other.masks["0.weight"])


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({}, "sparsity"), ({"sparsity": 0.5, "pattern": "2:4"}, "sparsity"), ({"sparsity": 1.0}, "below 1"),
        ({"pattern": "4:2"}, "like '2:4'"), ({"pattern": "two"}, "like '2:4'"),
        ({"sparsity": 0.5, "rounds": 0}, "1 or more"),
        ({"sparsity": 0.5, "lr": 0.0}, "lr"), ({"sparsity": 0.5, "label_weight": 2.0}, "label_weight"),
    ],
)  # fmt: skip
def test_settings_out_of_range(fields: dict[str, object], what: str) -> None:
    with pytest.raises(TersorError, match=what):
        Prune(**fields).check()  # type: ignore[arg-type]


def test_a_criterion_that_needs_data_says_so() -> None:
    assert Prune(sparsity=0.5, criterion="obd").needs_data and not Prune(sparsity=0.5).needs_data
    with pytest.raises(TersorError, match="needs data"):
        Prune(sparsity=0.5, criterion="obd").run(Work(net(), net()))
