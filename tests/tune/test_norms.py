from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from tunables import noise, pair, settled

from networks import assert_same
from tersor.errors import TersorError
from tersor.tune.norms import has_statistics, reestimate

BATCHES = [2 + 3 * noise(8, 3, 6, 6, seed=s) for s in range(5)]


def net() -> nn.Sequential:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU(), nn.Flatten(), nn.Linear(64, 6),
        nn.BatchNorm1d(6, momentum=None),
    )  # fmt: skip
    return settled(model)  # type: ignore[return-value]


def test_statistics_are_the_averages_over_the_batches() -> None:
    model = net()
    first = model[0](torch.cat(BATCHES)).detach()
    assert reestimate(model, BATCHES) == 5
    torch.testing.assert_close(model[1].running_mean, first.mean((0, 2, 3)))
    variances = torch.stack([model[0](x).detach().var((0, 2, 3)) for x in BATCHES])
    torch.testing.assert_close(model[1].running_var, variances.mean(0))
    # the next layer sees what the first one gives with the statistics of each batch, and no dropout
    inner = copy.deepcopy(model).eval()
    inner[1].train()
    means = torch.stack([inner[:6](x).detach().mean(0) for x in BATCHES])
    torch.testing.assert_close(model[6].running_mean, means.mean(0))


@pytest.mark.parametrize("training", [False, True])
def test_everything_else_is_as_before(training: bool) -> None:
    model = net().train(training)
    model[3].eval()
    before = copy.deepcopy(model)
    reestimate(model, BATCHES)
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    assert (model[1].momentum, model[6].momentum) == (0.1, None)
    assert model[1].num_batches_tracked == before[1].num_batches_tracked
    changed = {n for n, v in model.state_dict().items() if not torch.equal(v, before.state_dict()[n])}
    assert changed == {f"{i}.running_{what}" for i in (1, 6) for what in ("mean", "var")}
    assert all(p.grad is None for p in model.parameters())


def test_without_batches_nothing_changes() -> None:
    model = net()
    before = copy.deepcopy(model.state_dict())
    assert reestimate(model, []) == 0
    assert_same(model.state_dict(), before)


def test_an_error_of_the_users_leaves_modes_as_they_were() -> None:
    model = net().train()
    with pytest.raises(RuntimeError):
        reestimate(model, [torch.ones(2, 9, 6, 6)])
    assert model.training and model[1].training and model[1].momentum == 0.1
    with pytest.raises(TersorError, match="labels"):
        reestimate(model, [torch.ones(2, 3, 6, 6)], labelled=True)


def test_labels_are_no_inputs() -> None:
    model, twin = net(), net()
    reestimate(model, BATCHES)
    reestimate(twin, [(x, torch.zeros(8)) for x in BATCHES], labelled=True)
    assert_same(model.state_dict(), twin.state_dict())


def test_which_networks_have_statistics() -> None:
    assert has_statistics(net())
    assert has_statistics(nn.InstanceNorm2d(3, track_running_stats=True))
    assert not has_statistics(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.LayerNorm(3)))


def test_a_tunable_network_is_as_any_other() -> None:
    tunable, model, archive = pair("convs")
    plain = archive.apply_(copy.deepcopy(model))
    batches = [noise(4, 3, 6, 6, seed=s) for s in range(3)]
    for network in (tunable, plain):
        assert reestimate(network, batches) == 3
    torch.testing.assert_close(tunable.network[1].running_var, plain[1].running_var)  # type: ignore[index, union-attr]
    torch.testing.assert_close(tunable.freeze()["1.running_mean"], plain[1].running_mean)  # type: ignore[index, union-attr]
