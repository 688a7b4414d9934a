"""`tersor.passes.channels`: the weakest output channels go."""

from __future__ import annotations

import pytest
import torch
from shrinkable import (
    DigitsNet,
    ResNet,
    Separable,
    accuracy,
    batches,
    digits_cnn,
    fitted,
    images,
    lively,
    output,
    parameters,
    ran,
    seeded,
    work_of,
)  # fmt: skip
from torch import nn

from tersor.errors import TersorError
from tersor.passes.channels import strength
from tersor.passes.coupling import removable
from tersor.passes.registry import parse

pytest.importorskip("torch_pruning")


def mlp(hidden: int = 6) -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, hidden), nn.ReLU(), nn.Linear(hidden, 4), nn.ReLU(), nn.Linear(4, 3))


X = torch.randn(8, 5, generator=torch.Generator().manual_seed(2))


def test_the_smallest_norms_go() -> None:
    network = seeded(mlp)
    new, told = ran("channels(share=0.5)", network, [X])
    keep = network[0].weight.norm(dim=1).argsort()[3:].sort().values
    assert torch.equal(new[0].weight, network[0].weight[keep]) and torch.equal(new[0].bias, network[0].bias[keep])
    last = network[2].weight.norm(dim=1).argsort()[2:].sort().values
    assert torch.equal(new[2].weight, network[2].weight[last][:, keep])
    assert told[-1] == "5 of 10 channels removed, those coupled counted once"
    assert torch.equal(output(fitted(mlp(), new.state_dict()), X), output(new, X))


def test_gammas_judge_and_layers_without_norms_stay() -> None:
    network = lively(seeded(DigitsNet))
    new, told = ran("channels(share=0.25, criterion=bn)", network, [images(4, 8, 1)])
    gone = set(network.norm1.weight.abs().argsort()[:4].tolist())
    keep = [c for c in range(16) if c not in gone]
    assert torch.equal(new.norm1.weight, network.norm1.weight[keep])
    assert new.conv2.out_channels == 16 and told.has("conv2", "no batch norm")
    assert torch.equal(output(fitted(DigitsNet(), new.state_dict()), images(4, 8, 1)), output(new, images(4, 8, 1)))


def test_coupled_layers_are_judged_together() -> None:
    network = lively(seeded(ResNet, projection=True))
    work, _ = work_of(network, [images()])
    group = next(g for g in removable(work) if g.root == "conv1")
    rows = [network.conv1.weight, network.layer1[0].conv2.weight]
    expected = sum(w.double().flatten(1).square().sum(1) for w in rows).sqrt()
    assert torch.allclose(strength(network, group, "norm"), expected / expected.mean())
    gammas = [network.bn1.weight, network.layer1[0].bn2.weight]
    assert torch.allclose(strength(network, group, "bn"), sum(g.double().abs() for g in gammas) / 2)


def test_global_scope_takes_where_it_is_weakest() -> None:
    network = lively(seeded(Separable))
    with torch.no_grad():
        network.norm.weight.fill_(0.1)
        network.deep_norm.weight.fill_(0.1)
        network.point_norm.weight.fill_(0.9)
        network.point_norm.weight[7] = 0.01
    new, told = ran("channels(share=0.2, scope='global', criterion=bn)", network, [images()])
    assert (new.conv.out_channels, new.point.out_channels) == (5, 11) and told.has("4 of 20")


def test_one_channel_of_a_layer_stays() -> None:
    network = lively(seeded(Separable))
    with torch.no_grad():
        network.norm.weight.fill_(0.01)
        network.deep_norm.weight.fill_(0.01)
        network.norm.weight[6] = 0.02
    new, told = ran("channels(share=0.5, scope='global', criterion=bn)", network, [images()])
    assert new.conv.out_channels == 1 and told.has("conv", "the strongest one stays")
    assert torch.equal(new.norm.weight, network.norm.weight[[6]])
    new, told = ran("channels(share=1.0)", network, [images()])
    assert (new.conv.out_channels, new.point.out_channels) == (1, 1) and output(new, images()).shape == (6, 5)


def test_nothing_to_do_is_the_same_network() -> None:
    network = seeded(mlp)
    new, _ = ran("channels(share=0)", network, [X])
    assert torch.equal(output(new, X), output(network, X))


def test_retraining_mends() -> None:
    network = digits_cnn()
    data = batches(64, image=True)
    cut, _ = ran("channels(share=0.4)", network, data, labelled=True)
    new, _ = ran("channels(share=0.4, steps=60, lr=2e-3, label_weight=0.5)", network, data, labelled=True)
    assert parameters(cut) == parameters(new) < 0.75 * parameters(network)
    assert accuracy(new, True) > accuracy(cut, True) + 40


def test_settings() -> None:
    assert parse("channels").needs_data and str(parse("channels(scope='global')")) == "channels(scope='global')"
    for text in ("channels(share=1.5)", "channels(criterion=l0)", "channels(steps=-1)"):
        with pytest.raises(TersorError, match="recipe"):
            parse(text)
    with pytest.raises(TersorError, match="needs data"):
        ran("channels", seeded(mlp))
