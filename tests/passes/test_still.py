"""Batch norms that stand still."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tersor
from tersor.errors import TersorError
from tersor.passes.registry import steps_of
from tersor.passes.still import Still, stilled
from tersor.passes.work import Work


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    made = nn.Sequential(
        nn.Conv2d(3, 32, 3, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(128, 40)
    )
    with torch.no_grad():
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            getattr(made[1], leaf).copy_(torch.rand(32) + 0.1)
    return made.eval()


def test_it_does_the_same_in_eval_mode() -> None:
    norm = net()[1].double()  # type: ignore[index]
    x = torch.randn(4, 32, 5, 5).double()
    before = norm(x)
    four = [norm.weight, norm.bias, norm.running_mean, norm.running_var]
    found = stilled(norm, [v.detach().clone() for v in four])
    with torch.no_grad():
        for value, new in zip(four, found, strict=True):
            value.copy_(new)
    torch.testing.assert_close(norm(x), before, rtol=1e-12, atol=1e-12)
    assert not bool(norm.running_mean.any()) and bool((norm.running_var == 1).all())


def test_files_are_smaller_and_answer_the_same() -> None:
    x = torch.randn(8, 3, 4, 4)
    plain = tersor.compress(net(), tersor.Recipe(bpp=12))
    still, few = (Still(bits=bits).after(Work(net(), net()), plain) for bits in (None, 8))
    still.verify()
    few.verify()
    assert few.size < still.size < plain.size
    answer = plain.apply_(net(1))(x)
    torch.testing.assert_close(still.apply_(net(1))(x), answer, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(few.apply_(net(1))(x), answer, rtol=0.05, atol=0.05)


def test_what_the_recipe_excludes_or_keeps_whole_stays() -> None:
    model = net()
    with torch.no_grad():
        model[4].bias[3] = -torch.inf  # type: ignore[index,union-attr]
    plain = tersor.compress(model, tersor.Recipe(scheme="bf16", exclude=("4.bias",)))
    made = Still(bits=8).after(Work(net(), net()), plain)
    assert torch.equal(made["4.bias"], model[4].bias)  # type: ignore[index,union-attr]
    assert torch.equal(made["4.weight"], plain["4.weight"]) and torch.equal(made["0.weight"], plain["0.weight"])


def test_a_file_that_would_grow_is_left() -> None:
    fresh = nn.Sequential(nn.Linear(40, 40), nn.BatchNorm1d(40)).eval()
    with torch.no_grad():
        fresh[1].running_mean.copy_(torch.randn(40))  # type: ignore[union-attr,operator]
    plain, told = tersor.compress(fresh, tersor.Recipe(bpp=6)), []
    made = Still().after(Work(fresh, fresh, tell=told.append), plain)
    assert made.size <= plain.size


def test_norms_that_share_their_tensors_are_left() -> None:
    model = nn.Sequential(nn.Linear(20, 20), nn.BatchNorm1d(20), nn.Linear(20, 20), nn.BatchNorm1d(20)).eval()
    model[3].weight, model[3].bias = model[1].weight, model[1].bias  # type: ignore[union-attr]
    told: list[str] = []
    archive = tersor.compress(model, tersor.Recipe(bpp=16, passes=("still()",)), tell=told.append)
    assert sum("left, its tensors are shared" in line for line in told) == 2
    assert torch.equal(archive["1.running_var"], model[1].running_var)  # type: ignore[arg-type,union-attr]


def test_nothing_trains_after_it() -> None:
    with pytest.raises(TersorError, match="cannot come after still"):
        steps_of(tersor.Recipe(ratio=4, passes=("still()", "tune(steps=3)")))
    assert len(steps_of(tersor.Recipe(ratio=4, passes=("tune(steps=3)", "still(bits=8)")))) == 2


def test_such_a_file_is_not_tuned_further() -> None:
    archive = tersor.compress(net(), tersor.Recipe(bpp=12, passes=("still()",)))
    with pytest.raises(TersorError, match="stand still"):
        tersor.tunable(net(), archive)


def test_the_network_is_what_the_file_holds() -> None:
    archive = tersor.compress(net(), tersor.Recipe(bpp=12))
    work = Work(net(), net())
    made = Still().after(work, archive)
    assert all(torch.equal(v, made[n]) for n, v in work.network.state_dict().items())


def test_vectors_too_uneven_for_integers_stay_floats() -> None:
    model = net()
    with torch.no_grad():
        model[1].weight[3] = 500.0  # type: ignore[index,union-attr]
    plain = tersor.compress(model, tersor.Recipe(bpp=12))
    told: list[str] = []
    work = Work(net(), net(), tell=told.append)
    made = Still(bits=8).after(work, plain)
    exact = stilled(model[1], [plain[f"1.{leaf}"] for leaf in ("weight", "bias", "running_mean", "running_var")])  # type: ignore[index]
    torch.testing.assert_close(made["1.weight"].double(), exact[0], rtol=1e-6, atol=0)
    assert any("2 vectors stay floats" in line for line in told)
