"""What people train with works as on any network: autocast, compile, checkpointing, copies, files."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from tunables import MODELS, compressed, noise, output, pair, settled, shown, train

import tersor
from networks import assert_same
from tersor.tune.tunable import Tunable, unwrapped

X = MODELS["mlp"][1]
both = pytest.mark.parametrize("moving", [False, True])


def gradients(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


def assert_close(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], rel: float = 1e-4) -> None:
    assert list(found) == list(wanted) and found
    for name, want in wanted.items():
        torch.testing.assert_close(found[name], want, rtol=rel, atol=rel * float(want.abs().max() + 1e-6), msg=name)


def loss_of(net: nn.Module, inputs: tuple[torch.Tensor, ...] = X) -> torch.Tensor:
    out: torch.Tensor = (net(*inputs).float() - 1).square().mean()
    return out


# ---------------------------------------------------------------------- optimizers
@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, nesterov=True),
        lambda p: torch.optim.AdamW(p, lr=1e-3),
        lambda p: torch.optim.Adagrad(p, lr=1e-2),
        lambda p: torch.optim.RMSprop(p, lr=1e-3),
        lambda p: torch.optim.ASGD(p, lr=1e-2),
    ],
)
@both
def test_any_optimizer_of_torch_lowers_the_loss(make: Callable[[Any], torch.optim.Optimizer], moving: bool) -> None:
    net, _, _ = pair(moving=moving)
    optimizer = make(net.parameters())

    def closure() -> float:
        optimizer.zero_grad()
        loss = loss_of(net)
        loss.backward()
        return float(loss.detach())

    start = float(loss_of(net).detach())
    for _ in range(10):
        optimizer.step(closure)
        if moving:
            net.choose()
    assert float(loss_of(net).detach()) < 0.98 * start


def test_gradients_add_up_over_several_backward_passes() -> None:
    net, _, _ = pair()
    (loss_of(net) + loss_of(net, (noise(4, 12, seed=1),))).backward()
    wanted = gradients(net)
    net.zero_grad()
    for inputs in (X, (noise(4, 12, seed=1),)):
        loss_of(net, inputs).backward()
    assert_close(gradients(net), wanted)


# ---------------------------------------------------------------------- mixed precision
@both
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_rounds_the_network_and_not_the_codebooks(dtype: torch.dtype, moving: bool) -> None:
    net, _, archive = pair(moving=moving, scheme="2x16d4+lattice", scales="tensor")
    loss_of(net).backward()
    wanted = gradients(net)
    net.zero_grad()
    scaler = torch.amp.GradScaler("cpu", enabled=dtype == torch.float16)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    with torch.autocast("cpu", dtype=dtype):
        assert net(*X).dtype == dtype
        loss = loss_of(net)
    if not moving:
        net.refresh()
        with torch.autocast("cpu", dtype=dtype):
            assert_same(shown(net), archive.state_dict())
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    found = gradients(net)
    assert {g.dtype for g in found.values()} == {torch.float32}
    assert_close(found, wanted, rel=0.05)


@both
def test_a_scaler_skips_steps_that_overflow(moving: bool) -> None:
    net, _, _ = pair(moving=moving)
    optimizer = torch.optim.Adam(net.parameter_groups(1e-2))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    changed = []
    for _ in range(50):
        before = {name: p.detach().clone() for name, p in net.named_parameters()}
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = loss_of(net)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        changed.append(any(not torch.equal(p, before[name]) for name, p in net.named_parameters()))
    assert not any(changed[:3]) and changed[-1], "until the scale has come down"
    assert changed == sorted(changed) and 2**10 < scaler.get_scale() < 2**40
    assert all(p.isfinite().all() for p in net.parameters())


# ---------------------------------------------------------------------- compile
class Masked(nn.Module):
    """A layer, statistics, and functional use of a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Linear(8, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        return nn.functional.linear(x, self.fc.weight * (self.fc.weight > 0), self.fc.bias)


IMAGES = (noise(2, 3, 6, 6),)


def step(net: nn.Module) -> dict[str, torch.Tensor]:
    """One plain step of a network, compiled or not; its gradients."""
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
    optimizer.zero_grad()
    loss_of(net, IMAGES).backward()
    optimizer.step()
    inner = unwrapped(net)
    assert isinstance(inner, Tunable)
    if inner.moving:
        inner.choose()
    return gradients(inner)


@pytest.mark.parametrize(
    ("backend", "recipe", "moving"),
    [
        ("eager", {"ratio": 1.8}, True),
        ("aot_eager", {"ratio": 1.4, "scheme": "2x8d9+lattice", "scales": "row"}, False),
    ],
)
def test_compiled_it_is_one_graph_and_the_same(backend: str, recipe: dict[str, Any], moving: bool) -> None:
    torch._dynamo.reset()
    model = settled(Masked())
    net = tersor.tunable(model, compressed(model, **recipe), moving=moving)
    twin = copy.deepcopy(net)
    compiled = torch.compile(net, backend=backend, fullgraph=True)
    for moment in range(4):
        if moving and moment == 2:
            for network in (net, twin):
                network.settle()
        assert_close(step(compiled), step(twin))
    torch.testing.assert_close(output(compiled, IMAGES), output(twin, IMAGES), rtol=1e-4, atol=1e-5)
    assert [len(made.to_bytes()) for made in (net.freeze(), twin.freeze())] == [net.freeze().size] * 2


def test_inductor_decodes_the_same_bits() -> None:
    torch._dynamo.reset()
    model = settled(nn.Sequential(nn.Linear(12, 24)))
    net = tersor.tunable(model, compressed(model, scheme="2x8d4+lattice", ratio=1.3))
    twin = copy.deepcopy(net)
    compiled = torch.compile(net, fullgraph=True)
    loss_of(compiled).backward()
    weight = net.network[0].weight  # type: ignore[index, union-attr]
    loss_of(twin).backward()
    assert_close(gradients(net), gradients(twin))
    assert torch.equal(weight, twin.network[0].weight)  # type: ignore[index, union-attr]


# ---------------------------------------------------------------------- checkpointing
class Checkpointed(nn.Module):
    """Layers whose activations are computed again in the backward pass; one is used twice."""

    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.first, self.twice, self.last = nn.Linear(12, 24), nn.Linear(24, 24), nn.Linear(24, 12)
        self.reentrant = reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for layer in (self.twice, self.twice, self.last):
            if self.reentrant is None:
                x = layer(torch.tanh(x))
            else:
                x = checkpoint(layer, torch.tanh(x), use_reentrant=self.reentrant)
        return x


@both
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_checkpointing_gives_the_same_gradients(reentrant: bool, moving: bool, dtype: torch.dtype) -> None:
    found = []
    for mode in (None, reentrant):
        model = settled(Checkpointed(mode)).to(dtype)
        recipe = {"scheme": "2x16d4+lattice", "ratio": 2} if dtype == torch.float32 else {"ratio": 1.6}
        net = tersor.tunable(model, compressed(model, **recipe, scales="row"), moving=moving)
        loss_of(net, (X[0].to(dtype),)).backward()
        found.append(gradients(net))
    assert_close(found[1], found[0], rel=1e-4 if dtype == torch.float32 else 0.05)


# ---------------------------------------------------------------------- copies and files
@both
@pytest.mark.parametrize("name", ["convs", "tied", "lstm", "functional"])
def test_deepcopy_at_any_moment_goes_its_own_way(name: str, moving: bool) -> None:
    inputs = MODELS[name][1]
    net, _, _ = pair(name, moving=moving)
    copies = [copy.deepcopy(net)]
    loss = loss_of(net, inputs)  # now decoded weights hang on a graph
    copies.append(copy.deepcopy(net))
    loss_of(net, inputs).backward()
    copies.append(copy.deepcopy(net))
    before = output(net, inputs)
    trained = train(net.train(), inputs)
    for other in copies:
        assert torch.equal(output(other, inputs), before) or name == "convs"  # whose statistics move
        assert train(other.train(), inputs) == pytest.approx(trained, rel=1e-3)
        assert {id(p) for p in other.parameters()}.isdisjoint({id(p) for p in net.parameters()})
    assert copies[1].freeze().size == pytest.approx(net.freeze().size, rel=0.01)
    assert float(loss.detach()) > 0


@both
def test_pickles_hold_everything(moving: bool) -> None:
    net, _, _ = pair("lstm", moving=moving)
    inputs = MODELS["lstm"][1]
    train(net, inputs)
    other = pickle.loads(pickle.dumps(net))
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    another = torch.load(file, weights_only=False)
    for one in (other, another):
        assert torch.equal(output(one, inputs), output(net, inputs))
    trained = [train(one.train(), inputs) for one in (net, other, another)]
    assert trained[0] == trained[1] == trained[2]
    files = [one.freeze().to_bytes() for one in (net, other, another)]
    assert files[0] == files[1] == files[2]


@both
@pytest.mark.parametrize("scheme", ["lattice", "2x16d4+lattice"])
def test_a_state_dict_brings_a_fresh_network_to_the_same_point(scheme: str, moving: bool) -> None:
    net, model, archive = pair("lstm", moving=moving, scheme=scheme)
    inputs = MODELS["lstm"][1]
    train(net, inputs)
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    fresh = tersor.tunable(model, archive, moving=moving)
    assert not torch.equal(output(fresh, inputs), output(net, inputs))
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(output(fresh, inputs), output(net, inputs))
    assert_same(fresh.state_dict(), net.state_dict())
    if moving:
        assert fresh.steering is not None and net.steering is not None
        assert fresh.steering.step == pytest.approx(net.steering.step, rel=1e-6)
        assert fresh.choose(0.1) == pytest.approx(net.choose(), rel=0.03), (
            "all codes are chosen anew, whatever the share"
        )
        torch.testing.assert_close(output(fresh, inputs), output(net, inputs), rtol=0.1, atol=0.1)
    else:
        assert fresh.freeze().to_bytes() == net.freeze().to_bytes()


def test_a_state_dict_belongs_to_its_codes() -> None:
    """Of two archives with everything but the codes alike, as before and after codes moved."""
    net, model, _ = pair(moving=True)
    train(net, X, lr=0.1)
    net.settle()
    state = net.state_dict()
    with pytest.raises(RuntimeError, match="of other codes"):
        tersor.tunable(model, compressed(model, size=net.archive.size, ratio=None)).load_state_dict(state)
    again = tersor.tunable(model, net.archive)
    train(net, X)
    again.load_state_dict(net.state_dict())
    assert again.freeze().to_bytes() == net.freeze().to_bytes()


def test_functional_calls_and_averages_of_weights() -> None:
    net, _, _ = pair()
    start = output(net, X)
    average = torch.optim.swa_utils.AveragedModel(net)
    parameters = {name: p.detach().clone() for name, p in net.named_parameters()}
    train(net, X)
    average.update_parameters(net)
    assert torch.equal(torch.func.functional_call(net, parameters, X).detach(), start)
    assert torch.equal(output(average.module, X), output(net, X))
