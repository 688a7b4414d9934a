"""`tersor.passes.coupling`: what goes together, and that it goes without harm."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
import torch.nn.functional as F
from shrinkable import SHARED, ResNet, Separable, fitted, images, lively, output, parameters, real, seeded, work_of
from torch import nn

from tersor.errors import TersorError
from tersor.passes.coupling import removable, remove
from tersor.passes.sites import sites
from tersor.passes.trial import few

pytest.importorskip("torch_pruning")


def deafened(network: nn.Module, path: str, channels: list[int], each: int = 1) -> nn.Module:
    """The network with a layer that does not hear some channels."""
    network = copy.deepcopy(network)
    columns = [c * each + k for c in channels for k in range(each)]
    with torch.no_grad():
        network.get_submodule(path).weight[:, columns] = 0
    return network


def same(one: nn.Module, two: nn.Module, x: torch.Tensor) -> bool:
    a, b = output(one, x), output(two, x)
    return bool((a - b).abs().max() <= 1e-6 * max(1, float(b.abs().max())))


def test_option_a_leaves_only_what_is_inside_blocks() -> None:
    network = lively(seeded(ResNet, 2))
    work, told = work_of(network, [images()])
    groups = removable(work)
    assert [g.root for g in groups] == [f"layer{s}.{b}.conv1" for s in (1, 2, 3) for b in (0, 1)]
    assert told.has("conv1", "layer3.1.conv2" if len(told) > 1 else "more", "cannot be followed")
    remove(work, "layer2.0.conv1", [0, 5, 31])
    assert work.network.layer2[0].conv1.out_channels == work.network.layer2[0].bn1.num_features == 29
    assert same(work.network, deafened(network, "layer2.0.conv2", [0, 5, 31]), images())
    assert torch.equal(output(fitted(ResNet(2), work.network.state_dict()), images()), output(work.network, images()))


def test_projected_residuals_go_together() -> None:
    network = lively(seeded(ResNet, 2, projection=True))
    work, told = work_of(network, [images()])
    groups = {g.root: g for g in removable(work)}
    assert not told and len(groups) == 6 + 3
    group = groups["conv1"]
    assert {m.path for m in group.of("out")} == {"conv1", "layer1.0.conv2", "layer1.1.conv2"}
    assert {m.path for m in group.of("in")} == {
        "layer1.0.conv1", "layer1.1.conv1", "layer2.0.conv1", "layer2.0.down.0",
    }  # fmt: skip
    masked = network
    for member in group.of("in"):
        masked = deafened(masked, member.path, [1, 2])
    site = next(s for s in sites(work.network) if s.name == "layer1.0.conv2.weight")
    remove(work, site, [1, 2])
    assert work.network.conv1.out_channels == 14 and same(work.network, masked, images())
    assert parameters(work.network) < parameters(network)


def test_depthwise_layers_follow() -> None:
    network = lively(seeded(Separable))
    work, told = work_of(network, [images()])
    groups = removable(work)
    assert [g.root for g in groups] == ["conv", "point"] and not told
    assert {m.path for m in groups[0].of("through")} == {"norm", "deep", "deep_norm"}
    remove(work, "conv", [3, 0])
    assert work.network.deep.groups == work.network.deep.in_channels == 6
    assert same(work.network, deafened(network, "point", [0, 3]), images())
    assert torch.equal(output(fitted(Separable(), work.network.state_dict()), images()), output(work.network, images()))


class Mixed(nn.Module):
    """Concatenation, flattening, a transposed convolution, a norm over channels, a parameter of the network's own."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 5, 3, 2, 1)
        self.up, self.norm = nn.ConvTranspose2d(9, 6, 2), nn.BatchNorm2d(6)
        self.three, self.four = nn.Linear(6 * 81, 8), nn.Linear(8, 8)
        self.layer_norm, self.five, self.six = nn.LayerNorm(8), nn.Linear(8, 7), nn.Linear(7, 3)
        self.scale = nn.Parameter(torch.rand(7) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.one(x), self.two(x)], 1).relu()
        x = self.norm(self.up(x)).relu().flatten(1)
        x = self.four(self.three(x).relu())
        return self.six((self.five(self.layer_norm(x)) * self.scale).relu())


def test_what_stands_between_layers() -> None:
    network = lively(seeded(Mixed))
    x = images()
    work, told = work_of(network, [x])
    assert {g.root for g in removable(work)} == {"one", "two", "up", "three"}
    assert told.has("four:", "cannot be followed") and told.has("five:", "has them too")
    remove(work, "two", [1])
    assert same(work.network, with_rows(network, "up", [5]), x)
    expected = deafened(work.network, "three", [0, 3], 81)
    remove(work, "up", [0, 3])
    assert work.network.up.out_channels == 4 and same(work.network, expected, x)
    expected = deafened(work.network, "four", [7])
    remove(work, "three", [7])
    assert same(work.network, expected, x)
    assert torch.equal(output(fitted(Mixed(), work.network.state_dict()), x), output(work.network, x))


def with_rows(network: nn.Module, path: str, rows: list[int]) -> nn.Module:
    network = copy.deepcopy(network)
    with torch.no_grad():
        network.get_submodule(path).weight[rows] = 0
    return network


def test_outputs_all_channels_and_unknown_sizes_are_refused() -> None:
    network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    x = torch.randn(6, 4)
    work, told = work_of(network, [x])
    assert [g.root for g in removable(work)] == ["0"] and not told
    before = {name: t.clone() for name, t in work.network.state_dict().items()}
    with pytest.raises(TersorError, match="the network's outputs"):
        remove(work, "2", [0])
    with pytest.raises(TersorError, match="one at least must stay"):
        remove(work, "0", range(5))
    with pytest.raises(TersorError, match="answers otherwise"):
        remove(work, "0", [1, 2], exact=True)
    remove(work, "0", [])
    after = work.network.state_dict()
    assert all(torch.equal(after[name], t) for name, t in before.items())


class Written(nn.Module):
    """A size written in the network; a layer that does not take part; one that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.idle = nn.Conv2d(3, 4, 1), nn.Linear(4, 5), nn.Linear(5, 5)
        self.tied = nn.Linear(5, 5)
        self.last = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.two(self.one(x).mean((2, 3)).view(-1, 4)).relu()
        return self.last(self.tied(self.tied(x).relu()).relu())


def test_what_cannot_be_followed_is_left() -> None:
    network = seeded(Written)
    work, told = work_of(network, [images()])
    (group,) = removable(work)
    assert told.has("one", "cannot be followed") and {m.path for m in group.of("out")} == {"two", "tied"}
    masked = deafened(deafened(network, "tied", [4]), "last", [4])
    remove(work, "two", [4])
    assert work.network.tied.weight.shape == (4, 4) and same(work.network, masked, images())
    with pytest.raises(TersorError, match="does not work without"):
        remove(work, "one", [0])


def test_excluded_and_tied_tensors_stay() -> None:
    network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU())
    network.append(nn.Linear(5, 3))
    x = torch.randn(6, 4)
    work, told = work_of(network, [x], exclude=("0.bias",))
    assert [g.root for g in removable(work)] == ["2", "4"] and told.has("0:", "0.bias is excluded")
    network[4].weight = network[2].weight
    work, told = work_of(network, [x])
    assert removable(work) == [] and told.has("tied")


def test_masks_frozen_weights_and_objects_stay() -> None:
    network = lively(seeded(Separable))
    work, _ = work_of(network, [images()])
    work.network.point.weight.requires_grad_(False)
    masks = {name: torch.rand(p.shape) > 0.5 for name, p in work.network.named_parameters() if "conv" not in name}
    work.masks = dict(masks)
    held = {name: id(p) for name, p in work.network.named_parameters()}
    remove(work, "conv", [0, 3])
    keep = [1, 2, 4, 5, 6, 7]
    assert {name: id(p) for name, p in work.network.named_parameters()} == held
    assert torch.equal(work.masks["point.weight"], masks["point.weight"][:, keep])
    assert torch.equal(work.masks["deep.weight"], masks["deep.weight"][keep])
    assert torch.equal(work.masks["norm.bias"], masks["norm.bias"][keep])
    assert torch.equal(work.masks["last.weight"], masks["last.weight"])
    flags = {name: p.requires_grad for name, p in work.network.named_parameters()}
    assert not flags.pop("point.weight") and all(flags.values())
    work.hold()


def test_few_items_of_a_batch() -> None:
    network = nn.Sequential(nn.Linear(4, 5))
    work, _ = work_of(network, [(torch.randn(9, 4), torch.zeros(9))], labelled=True)
    assert few(work).args[0].shape == (4, 4) and len(few(work).labels) == 4


def test_without_torch_pruning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    work, _ = work_of(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)), [torch.randn(2, 4)])
    with pytest.raises(TersorError, match=r"pip install tersor\[prune\]"):
        removable(work)


def test_without_data() -> None:
    work, _ = work_of(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)))
    with pytest.raises(TersorError, match="needs data"):
        removable(work)


def test_answers_of_other_kinds_and_several_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 6), nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": self.c(F.gelu(self.a(x) + self.b(y)))}

    network = seeded(Two)
    work, told = work_of(network, [{"x": torch.randn(5, 3), "y": torch.randn(5, 4)}])
    groups = removable(work)
    assert [m.path for g in groups for m in g.of("out")] == ["a", "b"] and not told
    remove(work, "b", [2])
    assert work.network.a.out_features == work.network.b.out_features == work.network.c.in_features == 5


@real
def test_a_real_network() -> None:
    from safetensors.torch import load_file

    network = ResNet(3)
    network.load_state_dict(load_file(SHARED / "resnet20-cifar10.safetensors"), strict=False)
    work, _ = work_of(network, [images(4, 32)])
    assert len(removable(work)) == 9
    remove(work, "layer3.2.conv1", [5, 6])
    assert same(work.network, deafened(network, "layer3.2.conv2", [5, 6]), images(4, 32))
