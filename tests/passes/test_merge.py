"""`tersor.passes.merge`: Srinivas and Babu, 2015."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from shrinkable import (
    SHARED,
    Block,
    ResNet,
    accuracy,
    digits_mlp,
    fitted,
    images,
    lively,
    output,
    parameters,
    ran,
    real,
    seeded,
    work_of,
)  # fmt: skip
from torch import nn

from tersor.errors import TersorError
from tersor.passes.registry import parse
from tersor.passes.saliency import curve, cutoff, distances, incoming, merged, outgoing, plot, saliency


def mlp(hidden: int = 6, activation: nn.Module | None = None) -> nn.Sequential:
    layers = [nn.Linear(5, hidden), activation or nn.ReLU(), nn.Linear(hidden, 4)]
    return nn.Sequential(*layers).double()


def inputs(count: int = 50) -> torch.Tensor:
    return torch.randn(count, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def plant(network: nn.Module, i: int, j: int, scale: float = 1.0) -> None:
    with torch.no_grad():
        network[0].weight[j] = scale * network[0].weight[i]
        network[0].bias[j] = scale * network[0].bias[i]


def arrays(network: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    return incoming(network[0].weight, network[0].bias), outgoing(network[2].weight, len(network[0].weight))


def test_planted_twins_are_found_and_the_network_stays_the_same() -> None:
    network = seeded(mlp)
    plant(network, 1, 4)
    rows, columns = arrays(network)
    found = merged(rows, columns, 1)
    assert found.saliencies.tolist() == [0.0] and set(found.pairs[0][:2]) == {1, 4}
    new, told = ran("merge(share=0.2)", network)
    assert (output(new, inputs()) - output(network, inputs())).abs().max() < 1e-14
    assert new[0].out_features == new[2].in_features == 5 and told.has("1 of 6 neurons")
    assert torch.equal(output(fitted(mlp(), new.state_dict()), inputs()), output(new, inputs()))


def test_surgery_by_hand() -> None:
    network = seeded(mlp)
    plant(network, 1, 4)
    i, j, c = merged(*arrays(network), 1).pairs[0]
    new, _ = ran("merge(share=0.17)", network)
    keep = [k for k in range(6) if k != j]
    assert c == 1 and torch.equal(new[0].weight, network[0].weight[keep])
    column = network[2].weight[:, i] + network[2].weight[:, j]
    assert torch.equal(new[2].weight[:, keep.index(i)], column) and torch.equal(new[2].bias, network[2].bias)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Sigmoid(), nn.Tanh()])
@pytest.mark.parametrize("parallel", [False, True])
def test_bound_on_every_sample(activation: nn.Module, parallel: bool) -> None:
    if parallel and not isinstance(activation, nn.ReLU):
        return
    network = seeded(mlp, 12, activation)
    rows, columns = arrays(network)
    found = merged(rows, columns, 1, parallel=parallel)
    assert found.saliencies[0] == pytest.approx(saliency(rows, columns, parallel).min())
    new, _ = ran(f"merge(share=0.1, parallel={parallel})", network)
    x = inputs(200)
    change = (output(new, x) - output(network, x)).square().mean(1)
    assert (change <= found.saliencies[0] * (x.square().sum(1) + 1) + 1e-12).all()


def test_parallel_finds_scaled_twins() -> None:
    network = seeded(mlp)
    plant(network, 1, 4, 2.5)
    cost, factor = distances(incoming(network[0].weight, network[0].bias), parallel=True)
    assert cost[1, 4] < 1e-28 and factor[1, 4] == pytest.approx(2.5) and (factor >= 0).all()
    new, _ = ran("merge(share=0.2, parallel=true)", network)
    assert (output(new, inputs()) - output(network, inputs())).abs().max() < 1e-13
    new, _ = ran("merge(share=0.2)", network)
    assert (output(new, inputs()) - output(network, inputs())).abs().max() > 1e-3


def test_parallel_keeps_away_from_what_is_not_homogeneous() -> None:
    network = seeded(mlp, 6, nn.Tanh())
    plant(network, 1, 4)
    new, told = ran("merge(share=0.2, parallel=true)", network)
    assert told.has("not homogeneous") and (output(new, inputs()) - output(network, inputs())).abs().max() < 1e-14


class Convolutions(nn.Module):
    """conv - bn - relu - pool - conv - flatten - linear - linear."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Conv2d(6, 5, 3)
        self.three, self.four = nn.Linear(5 * 4, 7), nn.Linear(7, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.norm(self.one(x))), 2)
        x = self.two(nn.functional.pad(x, (1, 1))).relu()
        x = nn.functional.adaptive_avg_pool2d(x, 2)
        return self.four(torch.sigmoid(self.three(nn.functional.dropout(x.view(x.shape[0], -1), 0.5, self.training))))


def test_convolutions_with_all_that_stands_between() -> None:
    network = lively(seeded(Convolutions)).double()
    with torch.no_grad():
        network.one.weight[2] = 2 * network.one.weight[0]  # twins only once the norm is folded in
        network.one.bias[2] = 2 * network.one.bias[0]
        norm = network.norm
        norm.running_mean[2] = 2 * norm.running_mean[0]
        norm.running_var[2] = 4 * (norm.running_var[0] + norm.eps) - norm.eps
        norm.weight[2], norm.bias[2] = norm.weight[0], norm.bias[0]
        network.two.weight[4], network.two.bias[4] = network.two.weight[1], network.two.bias[1]
        network.three.weight[5], network.three.bias[5] = network.three.weight[6], network.three.bias[6]
    new, told = ran("merge(share=0.2)", network)
    x = images(4, 12).double()
    assert (output(new, x) - output(network, x)).abs().max() < 1e-13
    assert [new.one.out_channels, new.norm.num_features, new.two.out_channels, new.three.out_features] == [5, 5, 4, 6]
    assert new.three.in_features == 16 and told.has("3 neurons merged in 3 layers")
    assert torch.equal(output(fitted(Convolutions().double(), new.state_dict()), x), output(new, x))


class Written(nn.Module):
    """A size written in the network, a per-channel activation, groups, several readers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Linear(16, 6)
        self.act, self.three = nn.PReLU(6), nn.Linear(6, 8)
        self.four, self.five, self.six = nn.Linear(8, 8), nn.Conv1d(8, 8, 1, groups=2), nn.Conv1d(8, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.two(self.one(x).view(-1, 16)))
        x = self.three(x)
        x = self.four(x) + x
        return self.six(self.five(x[:, :, None]))


def test_what_is_not_alone_is_left_and_told() -> None:
    network = seeded(Written)
    new, told = ran("merge(share=0.5)", network)
    assert torch.equal(output(new, images(2, 4)), output(network, images(2, 4)))
    assert told.has("one:", "goes into 'view'") and told.has("two:", "a PReLU") and told.has("three:", "2 places")
    assert told.has("four:", "'add'") and told.has("five:", "has groups") and not told.has("six:")
    _, told = ran("merge(share=0.5)", seeded(mlp), exclude=("0.bias",))
    assert told.has("0:", "it is excluded")


def test_residual_networks_shrink_inside_their_blocks() -> None:
    network = lively(seeded(ResNet))
    new, told = ran("merge(share=0.25)", network)
    assert isinstance(new.layer1[0], Block) and new.layer1[0].conv1.out_channels == 12 and told.has("conv2", "'add'")
    assert new.layer1[0].conv2.out_channels == 16
    assert torch.equal(output(fitted(ResNet(), new.state_dict()), images()), output(new, images()))


def test_nothing_to_do_is_the_same_network() -> None:
    network = seeded(mlp)
    new, _ = ran("merge(share=0)", network)
    assert torch.equal(output(new, inputs()), output(network, inputs()))


def test_one_neuron_stays_and_results_repeat() -> None:
    network = seeded(mlp)
    new, _ = ran("merge(share=0.99)", network)
    assert new[0].out_features == 1 and output(new, inputs()).isfinite().all()
    again, _ = ran("merge(share=0.99)", network)
    assert torch.equal(new[2].weight, again[2].weight)


def test_masks_follow() -> None:
    network = seeded(mlp)
    plant(network, 1, 4)
    with torch.no_grad():
        network[2].weight[0, 1] = network[2].weight[1] = 0
        network[0].weight[2, 0] = 0
    work, _ = work_of(network)
    work.masks = {name: p != 0 for name, p in network.named_parameters()}
    parse("merge(share=0.2)").run(work)
    before = [p.detach().clone() for p in work.network.parameters()]
    work.hold()
    assert all(torch.equal(a, b) for a, b in zip(before, work.network.parameters(), strict=True))
    assert work.masks["2.weight"].sum() == 3 * 5 and not work.masks["0.weight"].all()


def test_cut_off_is_in_the_fullest_bin() -> None:
    values = torch.cat([torch.tensor([0.0, 0.1]), torch.linspace(0.6, 0.9, 20), torch.tensor([10.0])])
    assert 0.3 < cutoff(values) < 1 and cutoff(torch.zeros(3)) == 0 == cutoff(torch.zeros(0))
    network = digits_mlp()
    saliencies = curve(network[0].weight, network[0].bias, network[2].weight)
    assert len(saliencies) == 255 and saliencies[0] < cutoff(saliencies) < saliencies[-1]
    new, told = ran("merge(cutoff=auto)", network)
    assert 60 < 256 - new[0].out_features < 200 and accuracy(new) > accuracy(network) - 2
    assert str(parse("merge")) == "merge()" and ran("merge", network)[1] == told


@pytest.mark.parametrize(
    "text", ["merge(share=1)", "merge(share=-0.1)", "merge(share=0.5, cutoff=auto)", "merge(cutoff=3)"]
)
def test_settings_out_of_range(text: str) -> None:
    with pytest.raises(TersorError, match="recipe"):
        parse(text)


def by_norm(network: nn.Module, count: int) -> nn.Module:
    """The same layers without the neurons of the smallest incoming weights."""
    layers = [network[k] for k in (0, 2, 4)]
    for k in range(2):
        keep = layers[k].weight.norm(dim=1).argsort()[count:].sort().values
        made, following = nn.Linear(layers[k].in_features, len(keep)), nn.Linear(len(keep), layers[k + 1].out_features)
        with torch.no_grad():
            made.weight.copy_(layers[k].weight[keep])
            made.bias.copy_(layers[k].bias[keep])
            following.weight.copy_(layers[k + 1].weight[:, keep])
            following.bias.copy_(layers[k + 1].bias)
        layers[k], layers[k + 1] = made, following
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def test_digits_lose_little_and_less_than_by_norms() -> None:
    network = digits_mlp()
    new, _ = ran("merge(share=0.5)", network)
    assert new[0].out_features == new[2].out_features == 128
    assert accuracy(new) > accuracy(network) - 2
    assert accuracy(new) >= accuracy(by_norm(network, 128)) + 5


def test_plot(tmp_path: Path) -> None:
    path = tmp_path / "curves.svg"
    if importlib.util.find_spec("matplotlib") is None:
        with pytest.raises(TersorError, match=r"tersor\[report\]"):
            ran(f"merge(share=0.2, plot='{path}')", seeded(mlp))
        return
    ran(f"merge(share=0.2, plot='{path}')", seeded(mlp))
    assert "<svg" in path.read_text()
    with pytest.raises(TersorError, match="cannot write"):
        plot({"a": torch.ones(3)}, str(tmp_path / "none" / "x.svg"))


@real
def test_a_real_network() -> None:
    from safetensors.torch import load_file

    network = ResNet(3)
    network.load_state_dict(load_file(SHARED / "resnet20-cifar10.safetensors"), strict=False)
    new, told = ran("merge(share=0.1)", network.eval())
    assert told.has("in 9 layers") and parameters(new) < parameters(network)
    x = images(8, 32)
    assert torch.equal(output(fitted(ResNet(3), new.state_dict()), x), output(new, x))
