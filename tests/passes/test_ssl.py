"""`tersor.passes.ssl`: Wen et al., 2016."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from shrinkable import (
    Block,
    DigitsNet,
    ResNet,
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
    stack,
    trained,
    work_of,
)  # fmt: skip
from torch import nn

from tersor.errors import TersorError
from tersor.passes import ssl
from tersor.passes.branches import branches
from tersor.passes.flow import flow_of
from tersor.passes.lasso import Target, penalised
from tersor.passes.penalty import gradient, groups_of, prox
from tersor.passes.registry import parse
from tersor.passes.sites import sites
from tersor.structure.gone import Gone

pytest.importorskip("torch_pruning")


@pytest.mark.parametrize("update", ["proximal", "gradient"])
def test_the_penalty_meets_the_optimizer_s_step(update: str) -> None:
    layer = nn.Linear(12, 6, bias=False)
    site = next(sites(layer, least=1))
    target = Target("filters", site, groups_of(layer.weight, "filters"))
    start, pull = layer.weight.detach().clone(), torch.randn(6, 12)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    other = torch.optim.SGD([nn.Parameter(torch.ones(3))], lr=1.0)
    with penalised([target], 0.5, update):
        layer.weight.grad = pull.clone()
        optimizer.step()
        other.step()
    if update == "proximal":
        expected = prox(start - 0.1 * pull, target.groups, 0.1 * 0.5)
    else:
        expected = start - 0.1 * (pull + 0.5 * gradient(start, target.groups))
        expected[expected.abs() < 1e-4] = 0
    assert torch.allclose(layer.weight, expected, atol=1e-7)
    before = layer.weight.detach().clone()
    layer.weight.grad = pull.clone()
    optimizer.step()
    assert torch.allclose(layer.weight, before - 0.1 * pull)


def masked_and_shrunk(
    recipe: str, network: nn.Module, data: Any, monkeypatch: pytest.MonkeyPatch, **fields: Any
) -> tuple[nn.Module, nn.Module, list[str]]:
    """The network before and after what is dead is removed."""
    seen: list[nn.Module] = []
    fix = ssl.GroupLasso.run
    work, told = work_of(network, data, **fields)
    train = type(work).train

    def watch(self: Any, settings: Any, **kwargs: Any) -> Any:
        result = train(self, settings, **kwargs)
        seen.append(copy.deepcopy(self.network))
        return result

    monkeypatch.setattr(type(work), "train", watch)
    fix(parse(recipe), work)
    return seen[-1], work.network, told


@pytest.mark.parametrize("over", ["filters", "channels", "depth", "[filters, depth]", "[channels, filters, shapes]"])
def test_shrunk_is_masked(over: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, data = digits_cnn(), batches(128, image=True)
    recipe = f"ssl(over={over}, strength=1, share=0.5, steps=2, tune_steps=4, lr=1e-3)"
    masked, small, told = masked_and_shrunk(recipe, network, data, monkeypatch, labelled=True)
    x = images(32, 8, 1)
    exact = output(copy.deepcopy(masked).double(), x.double()) - output(copy.deepcopy(small).double(), x.double())
    assert exact.abs().max() < 1e-6
    assert parameters(small) < parameters(masked) == parameters(network)
    assert torch.equal(output(fitted(DigitsNet(), small.state_dict()), x), output(small, x))
    assert any("weakest" in line for line in told)


def test_training_makes_groups_zero_and_more_so_the_stronger() -> None:
    network, data = digits_cnn(), batches(64, image=True)
    counts = []
    for strength in (10, 24, 40):
        recipe = f"ssl(over=filters, strength={strength}, steps=30, lr=2e-3, label_weight=1.0)"
        _, told = ran(recipe, network, data, labelled=True)
        counts.append(int(told[0].split()[1]))
    assert counts == sorted(counts) and counts[-1] > 0


def test_the_published_update_makes_zeros_too() -> None:
    network, data = digits_cnn(), batches(64, image=True)
    recipe = "ssl(over=shapes, strength=2, update=gradient, steps=60, lr=2e-2, optimizer=sgd, label_weight=1.0)"
    new, told = ran(recipe, network, data, labelled=True)
    assert told.has("shapes:", "became zero") and int(told[0].split()[1]) > 0
    assert parameters(new) == parameters(network)


def test_zeros_stay_in_the_last_phase_and_accuracy_comes_back() -> None:
    network, data = digits_cnn(), batches(64, image=True)
    work, _ = work_of(network, data, labelled=True)
    parse("ssl(over=shapes, strength=1, share=0.4, tune_steps=60, lr=2e-3, label_weight=0.5)").run(work)
    held = dict(work.network.named_parameters())
    for name, mask in work.masks.items():
        assert not held[name][~mask].any()
    zero = sum(int((~mask).sum()) for mask in work.masks.values())
    assert zero > 0.3 * parameters(network) and accuracy(work.network, True) > accuracy(network, True) - 4


def test_a_dead_branch_is_its_shortcut() -> None:
    network, x = lively(seeded(ResNet, 2)), images()
    with torch.no_grad():
        network.layer2[1].conv1.weight.mul_(1e-3)
    new, told = ran("ssl(over=depth, strength=0, share=0.2, tune_steps=0)", network, [x])
    block = new.layer2[1]
    assert (
        isinstance(block.conv1, Gone) and isinstance(block.bn2, nn.Identity) and told.has("layer2.1.conv1", "shortcut")
    )
    y = images(2, 8, 32).abs()
    assert torch.equal(output(block, y), y)
    assert torch.equal(output(fitted(ResNet(2), new.state_dict()), x), output(new, x))


class Branched(nn.Module):
    """A branch that is one; a projection; a norm behind the sum; a branch with a way out; one with sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.one = Block(4, 4)
        self.two = Block(4, 4, 1, True)
        self.norm, self.before = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)
        self.leaky, self.lonely = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.two(self.one(x))
        x = x + self.before(F.relu(self.norm(x)))
        y = self.leaky(x)
        x = (x + y) * y
        return x + torch.sigmoid(self.lonely(x))


def test_which_branches_an_identity_bridges() -> None:
    work, _ = work_of(lively(seeded(Branched)))
    found = branches(flow_of(work))
    assert [b.layers for b in found] == [("one.conv1", "one.conv2"), ("before",)]
    assert found[1].modules == ("norm", "before")
    assert branches(flow_of(work), ("one.bn1.*",))[0].layers == ("before",)


def test_dead_filters_behind_what_is_not_quiet_stay_as_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    network = seeded(stack, nn.Linear(64, 16), nn.Sigmoid(), nn.Linear(16, 10))
    recipe = "ssl(over=filters, strength=0, share=0.5, tune_steps=3)"
    masked, new, told = masked_and_shrunk(recipe, network, batches(64), monkeypatch, labelled=True)
    assert told.has("0: channels stay as zeros", "answers otherwise") and told.has("8 filters of zeros stay")
    assert new[0].out_features == 16 and torch.equal(new[0].weight, masked[0].weight)
    assert int((new[0].weight == 0).all(1).sum()) == 8 and not new[0].bias[(new[0].weight == 0).all(1)].any()


def test_a_coupled_filter_alone_stays_as_zeros() -> None:
    network, x = lively(seeded(ResNet, projection=True)), images()
    with torch.no_grad():
        network.conv1.weight[:4] = 0  # coupled to layer1.0.conv2, which speaks on these channels
        network.layer1[0].conv1.weight[:3] = 0
    new, told = ran("ssl(over=filters, strength=0, share=0.01)", network, [x])
    assert new.conv1.out_channels == 16 and new.layer1[0].conv1.out_channels == 13
    assert not new.bn1.weight[:4].any() and not new.bn1.running_mean[:4].any() and new.layer1[0].bn2.weight[:4].all()
    assert told.has("3 channels removed", "4 filters of zeros stay")


def test_all_filters_dead_leaves_one() -> None:
    network = seeded(stack, nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    new, told = ran("ssl(over=filters, strength=1e6, steps=2, lr=1e-2)", network, batches(64), labelled=True)
    assert new[0].out_features == 1 and told.has("all channels of 0 are zero")


def test_share_is_reached_and_spares_one_of_each_layer() -> None:
    network = seeded(stack, nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 20), nn.ReLU(), nn.Linear(20, 10))
    with torch.no_grad():
        network[0].weight.mul_(1e-3)
    new, told = ran("ssl(strength=0, share=0.75)", network, batches(64), labelled=True)
    assert (new[0].out_features, new[2].out_features) == (4, 5) and told.has("27 weakest")
    new, told = ran("ssl(strength=0, share=0.99)", network, batches(64), labelled=True)
    assert (new[0].out_features, new[2].out_features) == (1, 1) and told.has("34 weakest")


def test_settings_and_what_has_no_groups() -> None:
    assert str(parse("ssl(strength=1, steps=5, over=[filters, depth])")).startswith("ssl(steps=5, over=")
    again = parse(str(parse("ssl(strength=1, steps=5, over=[filters, depth])")))
    assert again.kinds == ("filters", "depth") and again.needs_data
    for text in (
        "ssl(steps=5)", "ssl(strength=-1, steps=5)", "ssl(strength=1)", "ssl(strength=1, share=1)",
        "ssl(strength=1, steps=5, over=rows)", "ssl(strength=1, steps=5, over=[depth, depth])",
        "ssl(strength=1, steps=5, tune_steps=-1)", "ssl(strength=1, steps=5, over=[])",
    ):  # fmt: skip
        with pytest.raises(TersorError, match="recipe"):
            parse(text)
    assert not parse("ssl(strength=0, share=0.5, over=[shapes, depth])").needs_data
    with pytest.raises(TersorError, match="no layer has depth"):
        ran("ssl(strength=1, steps=1, over=depth)", nn.Sequential(nn.Linear(64, 10)), batches(64), labelled=True)


def test_results_repeat_and_random_state_stays() -> None:
    network, data = trained(seeded(stack, nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)), 1), batches(64)
    state = torch.random.get_rng_state()
    recipe = "ssl(strength=3, steps=10, share=0.3, tune_steps=5)"
    one, two = (ran(recipe, network, data, labelled=True)[0].state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one) and list(one) == list(two)
    assert torch.equal(torch.random.get_rng_state(), state)
