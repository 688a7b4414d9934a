"""`tersor.passes.fold`, and the flow that it reads."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from shrinkable import SHARED, ResNet, Separable, fitted, images, lively, output, parameters, ran, real, seeded, work_of
from torch import nn

from tersor.errors import TersorError
from tersor.passes.flow import flow_of, operation
from tersor.passes.fold import folded
from tersor.passes.registry import parse

PAIRS = [
    (nn.Linear(5, 6), nn.BatchNorm1d(6), (3, 5)),
    (nn.Conv1d(4, 6, 3, bias=False), nn.BatchNorm1d(6), (3, 4, 9)),
    (nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.BatchNorm2d(6, affine=False), (3, 4, 5, 5)),
    (nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3), (2, 2, 4, 4, 4)),
    (nn.ConvTranspose1d(4, 6, 3), nn.BatchNorm1d(6), (3, 4, 9)),
    (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, bias=False), nn.BatchNorm2d(6, eps=1e-2), (3, 4, 5, 5)),
]


@pytest.mark.parametrize("pair", PAIRS, ids=[str(pair[0]) for pair in PAIRS])
def test_one_layer_does_the_work_of_two(pair: tuple) -> None:
    layer, norm, takes = pair
    network = lively(nn.Sequential(layer, norm)).double()
    x = torch.randn(takes, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    new, told = ran("fold", network)
    assert torch.allclose(output(new, x), output(network, x), rtol=0, atol=1e-12)
    assert isinstance(new[1], nn.Identity) and new[0].bias is not None
    assert told == ["1 batch norms folded into the layers before them"]


def test_by_hand() -> None:
    layer, norm = nn.Linear(1, 1).double(), nn.BatchNorm1d(1, eps=0.0).double()
    with torch.no_grad():
        for tensor, value in [(layer.weight, 3), (layer.bias, 1), (norm.weight, 4), (norm.bias, 5),
                              (norm.running_mean, 7), (norm.running_var, 4)]:  # fmt: skip
            tensor.fill_(value)
    weight, bias = folded(layer, norm)
    assert weight.item() == 3 * 4 / 2 and bias.item() == 5 + (1 - 7) * 4 / 2


def test_a_network_and_its_way_back_into_a_fresh_one() -> None:
    network = lively(seeded(ResNet))
    new, told = ran("fold()", network)
    x = images()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in new.modules()) and told.has("7 batch norms")
    assert torch.allclose(output(new, x), output(network, x), atol=1e-4)
    assert not any(isinstance(m, nn.Identity) for m in network.modules())
    assert torch.equal(output(fitted(ResNet(), new.state_dict()), x), output(new, x))


class Odd(nn.Module):
    """Everything that stands in the way."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.twice_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.used, self.used_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.tied, self.tied_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.other, self.other_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.other.weight = self.tied.weight
        self.bare, self.bare_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)
        self.lone_norm = nn.BatchNorm2d(3)
        self.kept, self.kept_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.direct, self.direct_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.made = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1))
        self.made_norm = nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.twice_norm(self.twice(self.twice_norm(self.twice(x))))
        y = self.used(x)
        x = y + self.used_norm(y)
        x = self.other_norm(self.other(self.tied_norm(self.tied(x))))
        x = self.lone_norm(F.relu(self.bare_norm(self.bare(x))))
        x = self.kept_norm(self.kept(x))
        x = self.direct_norm(self.direct(x)) * self.direct.weight.mean()
        return self.made_norm(self.made(x))


def test_what_is_not_safe_is_left_and_told() -> None:
    network = lively(seeded(Odd))
    new, told = ran("fold", network, exclude=("kept.*",))
    assert torch.equal(output(new, images()), output(network, images()))
    reasons = {
        "twice_norm": "called 2 times", "used_norm": "goes elsewhere too (add)", "tied_norm": "tied to another",
        "bare_norm": "keeps no statistics", "lone_norm": "is not the output of", "kept_norm": "excluded",
        "direct_norm": "used outside of it too", "made_norm": "weights are computed",
    }  # fmt: skip
    for name, why in reasons.items():
        assert told.has(name, why), name
    assert told[-1].startswith("0 batch norms")


class Branching(nn.Module):
    """What symbols cannot follow, as it depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor, scale: float | None = None) -> dict[str, torch.Tensor]:
        x = self.norm(self.conv(x)).relu_()
        if x.sum() > 0:
            x = x.mean((-2, -1))
        return {"logits": self.last(x)}


def test_a_batch_shows_what_symbols_cannot() -> None:
    network, x = lively(seeded(Branching)), images()
    with pytest.raises(TersorError, match="cannot be followed without data"):
        ran("fold", network)
    new, told = ran("fold", network, [x])
    assert told.has("1 batch norms")
    assert torch.allclose(output(new, x)["logits"], output(network, x)["logits"], atol=1e-6)


def test_both_ways_tell_the_same_flow() -> None:
    from tersor.passes.flow import recorded
    from tersor.tune.batches import Batch

    network = lively(seeded(ResNet))
    work, _ = work_of(network)
    plain = [operation(n) if n.op != "call_module" else n.target for n in flow_of(work).nodes]
    seen = [
        operation(n) if n.op != "call_module" else n.target for n in recorded(network, Batch((images(),), {})).nodes
    ]
    assert [n for n in plain if n != "output"] == [n for n in seen if n != "output"]


def test_masks_and_frozen_weights_follow() -> None:
    network = lively(nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)))
    network[0].weight.requires_grad_(False)
    work, _ = work_of(network, masks={"1.bias": torch.tensor([1, 0, 1, 1]).bool(), "1.weight": torch.ones(4).bool()})
    work.fixed = {"1.weight", "0.weight"}
    parse("fold").run(work)
    assert list(work.masks) == ["0.bias"] and work.fixed == {"0.weight"}
    assert not work.network[0].bias.requires_grad
    work.hold()


def test_without_batch_norms_nothing_happens() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    new, told = ran("fold", network)
    assert torch.equal(new[0].weight, network[0].weight) and told == [
        "0 batch norms folded into the layers before them"
    ]


def test_separable() -> None:
    network = lively(seeded(Separable))
    new, told = ran("fold", network)
    assert told.has("3 batch norms") and torch.allclose(output(new, images()), output(network, images()), atol=1e-5)


@real
def test_a_real_network() -> None:
    network = ResNet(3)
    network.load_state_dict(load_file(SHARED / "resnet20-cifar10.safetensors"), strict=False)
    new, _ = ran("fold", network.eval())
    before, after = output(network, images(8, 32)), output(new, images(8, 32))
    assert float((before - after).abs().max()) < 1e-5 * float(before.abs().max())
    assert parameters(new) < parameters(network)
