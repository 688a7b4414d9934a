"""The file's size while codes move: near the target all the time, never over it in the end."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from tunables import MODELS, compressed, convs, noise, pair, refusal, settled, train

import tersor
from tersor.archive import Archive
from tersor.errors import TargetError
from tersor.tune import steering as steerings
from tersor.tune.steering import Steering
from tersor.tune.tunable import Tunable


def limit(archive: Archive) -> int:
    """Bytes that the file may have: the recipe's target, or what the archive has if that is more."""
    return max(archive.size, archive.recipe.budget(*archive.given))


def drift(net: Tunable, far: float, seed: int) -> None:
    """Scale and stir all latents, as no training would."""
    g = torch.Generator().manual_seed(seed)
    for name, p in net.named_parameters():
        if "latents" in name:
            p.data.mul_(1 + far).add_(far * p.data.std() * torch.randn(p.shape, generator=g))


@pytest.mark.parametrize(
    "recipe", [{"ratio": 6}, {"ratio": 4, "scheme": "2x16d4+lattice"}, {"ratio": None, "bpp": 5, "scales": "row"}]
)
def test_sizes_stay_near_the_target_while_latents_drift(recipe: dict[str, object]) -> None:
    model = settled(
        nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(64, 24))
    )
    archive = compressed(model, **recipe)
    net = tersor.tunable(model, archive, moving=True)
    told = []
    for step in range(60):
        drift(net, 0.003 if step < 40 else -0.005, step)
        told.append(net.choose(1.0 if step % 2 else 0.3))
    assert all(0.85 * limit(archive) < size < 1.15 * limit(archive) for size in told)
    assert net.steering is not None and told[-1] == pytest.approx(net.steering.budget, rel=0.06)
    made = net.freeze()
    assert 0.93 * limit(archive) < made.size <= limit(archive)
    made.verify()


@pytest.mark.parametrize("far", [-0.5, 3.0])
@pytest.mark.parametrize("recipe", [{}, {"scheme": "2x16d9+lattice", "ratio": 2}, {"scheme": "3x16d4", "ratio": 2}])
def test_settling_is_never_over_the_target(far: float, recipe: dict[str, object]) -> None:
    """Even when the last choice is far from it, at once after a leap."""
    net, _, archive = pair("convs", moving=True, **recipe)
    drift(net, far, 0)
    net.settle()
    assert net.archive.size <= limit(archive)
    assert net.freeze().verify() is None
    free = 0.9 * limit(archive) if "d4" not in str(recipe) else 0  # codebooks alone have a size that is theirs
    assert net.archive.size >= free


def test_kept_tensors_may_grow_a_little_after_settling() -> None:
    """Tuning goes on; what is set aside for it holds the file within its target."""
    net, _, archive = pair("convs", moving=True)
    train(net, MODELS["convs"][1])
    net.settle()
    for p in net.network.parameters():
        p.data.add_(1e-3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    train(net, MODELS["convs"][1])
    assert net.freeze().size <= limit(archive)


def test_kept_tensors_that_outgrow_the_file_are_told_of() -> None:
    """Constant ones take next to nothing; what training makes of them may take more than there is."""
    model = settled(nn.Sequential(nn.Linear(12, 400), nn.LayerNorm(400)))
    nn.init.ones_(model[1].weight)  # type: ignore[index, arg-type]
    archive = compressed(model, ratio=6)
    net = tersor.tunable(model, archive, moving=True)
    net.network[1].weight.data.copy_(noise(400))  # type: ignore[index, union-attr]
    assert "kept tensors take" in refusal(net.settle)
    net.network[1].weight.data.fill_(0.5)  # type: ignore[index, union-attr]
    assert net.freeze().size <= limit(archive), "the network is as sound as before"


def test_what_is_set_aside_is_given_up_where_codes_need_it() -> None:
    net, _, archive = pair(moving=True, scheme="2x16d4")
    assert net.steering is not None
    net.steering.budget = archive.size // 3  # less than codebooks take
    assert archive.size // 3 < net.freeze().size <= limit(archive)


def test_the_step_does_not_leap() -> None:
    net, _, _ = pair("convs", moving=True)
    assert net.steering is not None
    before = net.steering.step
    drift(net, 5.0, 0)
    net.choose()
    assert 0 < abs(math.log2(net.steering.step / before)) <= 0.1


def test_weights_that_no_step_can_hold_are_told_of() -> None:
    model = settled(convs())
    steering = Steering(compressed(model), dict(model.state_dict()), None)
    steering.budget = archive_rest(steering) + 20
    with pytest.raises(TargetError, match="give the model that it was made of"):
        steering.begin()


@pytest.mark.parametrize("recipe", [{"scheme": "2x8d4"}, {"scheme": "2x16d4", "scales": "tensor"}])
def test_a_target_that_codebooks_never_meet_does_no_harm(
    recipe: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their number is fixed, and the step ends at its bounds, however long training takes."""
    monkeypatch.setattr(steerings, "REFRESH", 1)
    monkeypatch.setattr(steerings, "_MOST", 40.0)
    monkeypatch.setattr(steerings, "_DAMPING", 40.0)
    net, _, archive = pair(moving=True, **recipe)
    assert net.steering is not None
    net.steering.budget *= 3
    for _ in range(60):
        net.choose()
    assert net.steering.sound() and net.steering.step > 0
    net.steering.budget = archive.size
    assert net.freeze().size <= limit(archive)


def archive_rest(steering: Steering) -> int:
    """Bytes of the file beside the groups' sections."""
    archive = steering.archive
    return archive.size - sum(archive.sections.bytes_of(g) for g in range(len(archive.index.groups)))


def test_importance_must_fit() -> None:
    model = settled(convs())
    archive = compressed(model)
    state = dict(model.state_dict())
    assert "importance of 0.weight has shape" in refusal(lambda: Steering(archive, state, {"0.weight": torch.ones(3)}))
    assert tersor.tunable(model, archive, moving=True, importance={"0.weight": torch.ones(12, 3, 3, 3)}).moving
