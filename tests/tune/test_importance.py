from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import tersor
from tersor.errors import TersorError
from tersor.tune import fisher
from tersor.tune.fisher import Fisher
from tersor.tune.importance import importance

State = dict[str, torch.Tensor]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def settled(model: nn.Module, seed: int = 0) -> nn.Module:
    """Parameters and buffers of floats set at random, so that no layer is a special case."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
            tensor.copy_(torch.rand(tensor.shape, generator=g) - (0.4 if isinstance(tensor, nn.Parameter) else -0.5))
    return model


class Bag(nn.Module):
    """An embedding with the output layer tied to it, over positions: [B, T] -> [B, T, V]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.mix = nn.Linear(4, 4)
        self.head = nn.Linear(4, 5)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor, scale: float = 1.0) -> dict[str, torch.Tensor]:
        return {"logits": self.head(torch.tanh(self.mix(self.embed(tokens).cumsum(1)))) * scale}


class Awkward(nn.Module):
    """Changes its input, asks for values, squeezes: nothing for vmap."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 3)
        self.idle = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x -= 0.5
        x = self.one(x)
        if x.sum().item() > 1e9:
            return x
        return self.two(x.relu_()).squeeze()


def conv() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 3, 1, groups=1))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))


TOKENS = [torch.tensor([[0, 1, 2], [3, 3, 1]]), torch.tensor([[4, 0, 0]])]
CASES: dict[str, tuple[Callable[[], nn.Module], list[Any]]] = {
    "mlp": (mlp, [noise(5, 6), noise(2, 6, seed=1)]),
    "images": (conv, [noise(3, 2, 6, 6)]),
    "tokens": (Bag, TOKENS),
    "mapping": (Bag, [{"tokens": TOKENS[0], "scale": 0.5}]),
    "lstm": (lambda: nn.LSTM(3, 4, batch_first=True), [noise(3, 5, 3)]),
    "awkward": (Awkward, [noise(4, 6)]),
}


def close(found: State, wanted: State, rtol: float = 1e-4) -> None:
    assert list(found) == list(wanted)
    for name, want in wanted.items():
        assert found[name].dtype == torch.float32 and found[name].shape == want.shape, name
        torch.testing.assert_close(
            found[name].double(), want.double(), rtol=rtol, atol=rtol * float(want.mean()) + 1e-30
        )


def without_vmap(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no vmap")

    monkeypatch.setattr(fisher, "vmap", refuse)


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(TersorError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Fisher: oracles


def test_fisher_of_a_linear_softmax_is_the_expectation_over_classes() -> None:
    model, x = settled(nn.Linear(4, 3)), noise(6, 4)
    p = model(x).softmax(1).detach()
    wanted = {
        "weight": ((p * (1 - p))[:, :, None] * x.square()[:, None, :]).mean(0),
        "bias": (p * (1 - p)).mean(0),
    }
    many = x.repeat(4000, 1)  # each item's labels are drawn anew
    close(importance(model, [many[:10000], many[10000:]], samples=2, floor=0), wanted, rtol=0.05)


def expectation(model: nn.Module, x: torch.Tensor, dim: int) -> State:
    """The Fisher diagonal by brute force over all labels of all positions, by plain autograd, in float64."""
    sums = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for item in x:
        log = model(item[None]).log_softmax(dim).movedim(dim, -1).flatten(0, -2)
        for labels in product(range(log.shape[1]), repeat=len(log)):
            value = log[torch.arange(len(log)), torch.tensor(labels)].sum()
            slopes = torch.autograd.grad(value, list(model.parameters()), retain_graph=True)
            for total, slope in zip(sums.values(), slopes, strict=True):
                total += value.exp().detach() * slope.square() / len(x)
    return sums


@pytest.mark.parametrize(
    ("make", "x", "dim"),
    [
        (lambda: nn.Linear(3, 3), noise(2, 2, 3), -1),  # [B, T, V]
        (lambda: nn.Conv2d(2, 3, 2), noise(2, 2, 2, 3), 1),  # [B, C, H, W]
        (lambda: nn.Conv1d(2, 3, 2), noise(2, 2, 4), 1),  # [B, C, T], which must be said
    ],
)
def test_fisher_of_several_positions_is_of_their_sum(make: Callable[[], nn.Module], x: torch.Tensor, dim: int) -> None:
    model = settled(make()).double()
    many = x.double().repeat(3000, *[1] * (x.ndim - 1))
    found = importance(model, [many], floor=0, class_dim=dim)
    wanted = expectation(model, x.double(), dim)
    for name, want in wanted.items():
        torch.testing.assert_close(found[name].double(), want, rtol=0.1, atol=0.05 * float(want.mean()))


def likeliest(self: Fisher, scores: torch.Tensor, dim: int) -> torch.Tensor:
    return scores.argmax(dim)[None]


@pytest.mark.parametrize("case", ["mlp", "images", "tokens"])
def test_derivatives_are_squared_item_by_item(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fisher, "_draw", likeliest)
    make, data = CASES[case]
    model = settled(make()).eval()
    sums = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    items = [item for batch in data for item in batch]
    for item in items:
        output = model(item[None])
        output = output["logits"] if isinstance(output, dict) else output
        value = output.log_softmax(1 if output.ndim == 4 else -1).amax(1 if output.ndim == 4 else -1).sum()
        for total, slope in zip(sums.values(), torch.autograd.grad(value, list(model.parameters())), strict=True):
            total += slope.square() / len(items)
    close(importance(model, data, floor=0), sums)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(1, 9))
@settings(max_examples=15)
def test_batches_and_chunks_do_not_matter(sizes: Sequence[int], chunk: int) -> None:
    model = settled(mlp())
    x = noise(sum(sizes), 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fisher, "_draw", likeliest)
        whole = importance(model, [x])
        patch.setattr(fisher, "FLOATS", chunk * sum(p.numel() for p in model.parameters()))
        close(importance(model, list(x.split(list(sizes)))), whole)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("samples", [1, 3])
def test_vmap_and_one_at_a_time_are_the_same(case: str, samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    make, data = CASES[case]
    model = settled(make())
    found = importance(model, data, samples=samples)
    without_vmap(monkeypatch)
    close(importance(model, data, samples=samples), found)
    monkeypatch.setattr(fisher, "FLOATS", 1)
    close(importance(model, data, samples=samples), found)


@pytest.mark.parametrize("case", ["mlp", "images", "tokens", "lstm"])
def test_vmap_serves_the_usual_layers(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, data = CASES[case]
    served = []

    def watched(*args: Any, **kwargs: Any) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            found = torch.func.vmap(*args, **kwargs)(*given)
            served.append(True)
            return found

        return call

    monkeypatch.setattr(fisher, "vmap", watched)
    importance(settled(make()), data)
    assert len(served) == len(data)


# Fisher: manners


@pytest.mark.parametrize("kind", ["fisher", "activation"])
@pytest.mark.parametrize("case", CASES)
def test_nothing_is_left_changed(case: str, kind: str) -> None:
    make, data = CASES[case]
    model = settled(make()).train()
    first = next(iter(model.parameters()))
    first.requires_grad_(False)
    last = [*model.parameters()][-1]
    last.grad = torch.full_like(last, 7.0)
    for module in model.children():
        module.training = False
        break
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inputs = [b.clone() if isinstance(b, torch.Tensor) else dict(b) for b in data]
    state = torch.get_rng_state()
    if kind == "activation" and case == "lstm":
        assert "kind='fisher'" in refusal(lambda: importance(model, data, kind=kind))
    else:
        found = importance(model, inputs, kind=kind)
        assert all(value.min() >= 0 and value.device.type == "cpu" for value in found.values())
        assert set(found) <= {name for name, _ in model.named_parameters()}
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not first.requires_grad and last.requires_grad
    assert first.grad is None and torch.equal(last.grad, torch.full_like(last, 7.0))
    assert not any(module._forward_pre_hooks for module in model.modules())
    if kind == "fisher":
        for mine, theirs in zip(inputs, data, strict=True):
            assert not isinstance(mine, torch.Tensor) or torch.equal(mine, theirs)


def test_modes_and_hooks_are_restored_after_an_error() -> None:
    model = settled(mlp()).train()
    for kind in ("fisher", "activation"):
        with pytest.raises(RuntimeError):
            importance(model, [noise(2, 7)], kind=kind)
        assert all(m.training and not m._forward_pre_hooks for m in model.modules())


def test_seed_decides() -> None:
    model, x = settled(nn.Linear(4, 3)), [noise(6, 4)]
    first = importance(model, x)
    assert all(torch.equal(value, first[name]) for name, value in importance(model, x).items())
    assert not torch.equal(importance(model, x, seed=1)["weight"], first["weight"])
    with torch.no_grad():
        assert torch.equal(importance(model, x)["weight"], first["weight"])


def test_labels_are_left_out_and_batches_counted() -> None:
    model, x, y = settled(nn.Linear(4, 3)), noise(6, 4), torch.zeros(6)
    wanted = importance(model, [x])["weight"]
    assert torch.equal(importance(model, [(x, y)], labelled=True)["weight"], wanted)
    assert torch.equal(importance(model, [{"input": x, "labels": y}], labelled=True)["weight"], wanted)
    assert torch.equal(importance(model, lambda: iter([x, x * 3]), batches=1)["weight"], wanted)
    assert "labelled=True" in refusal(lambda: importance(model, [(x, y)]))


def test_progress() -> None:
    model, x, seen = settled(nn.Linear(4, 3)), noise(2, 4), []
    importance(model, [x] * 3, batches=2, progress=lambda *step: seen.append(step))
    assert seen == [("importance", 1, 2), ("importance", 2, 2), ("importance", 2, 2)]
    seen.clear()
    importance(model, iter([x] * 2), progress=lambda *step: seen.append(step))
    assert seen == [("importance", 1, 2), ("importance", 2, 3), ("importance", 2, 2)]


def test_half_precision_has_float_results() -> None:
    model = settled(nn.Linear(4, 3)).bfloat16()
    close(importance(model, [noise(6, 4).bfloat16()]), importance(model.float(), [noise(6, 4)]), rtol=0.1)


# The floor


def test_the_floor_is_a_share_of_the_tensors_own_mean() -> None:
    model, x = settled(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))), noise(5, 4)
    with torch.no_grad():
        model[0].bias[1] = -100.0  # a dead unit
    raw, found = importance(model, [x], floor=0), importance(model, [x], floor=0.1)
    assert (raw["0.weight"][1] == 0).all() and (raw["2.weight"][:, 1] == 0).all()
    close(found, {name: value + 0.1 * value.mean() for name, value in raw.items()})
    assert all(value.min() > 0 for value in importance(model, [x]).values())


def test_a_tensor_of_zeros_has_a_share_of_the_mean_over_all() -> None:
    found = importance(settled(Awkward()), [noise(4, 6)], floor=0)
    assert not found["idle.weight"].any()
    overall = sum(float(v.sum()) for v in found.values()) / sum(v.numel() for v in found.values())
    floored = importance(settled(Awkward()), [noise(4, 6)], floor=0.01)
    torch.testing.assert_close(floored["idle.weight"], torch.full((2, 2), 0.01 * overall))


# Activation


def squared_jacobian(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Mean over outputs of one channel of squared derivatives by its weights: E[x^2] where nothing is padded."""
    output = layer(x).transpose(0, 1)
    total = torch.zeros_like(layer.weight)
    for channel in output:
        for value in channel.reshape(-1):
            (slope,) = torch.autograd.grad(value, layer.weight, retain_graph=True)
            total += slope.square() / channel.numel()
    return total


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Linear(3, 4), noise(5, 3)),
        (nn.Conv1d(2, 4, 1), noise(3, 2, 5)),
        (nn.Conv2d(4, 6, 1, groups=2), noise(2, 4, 3, 3)),
        (nn.Conv2d(4, 8, 1, groups=4), noise(2, 4, 3, 3)),
        (nn.ConvTranspose2d(4, 6, 1, groups=2), noise(2, 4, 3, 3)),
        (nn.Conv3d(2, 2, 1), noise(1, 2, 2, 2, 2)),
    ],
)
def test_activation_is_the_squared_jacobian(layer: nn.Module, x: torch.Tensor) -> None:
    found = importance(layer, [x], kind="activation", floor=0)
    close(found, {"weight": squared_jacobian(layer, x)})


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 6, 3, groups=2, padding=1), nn.ConvTranspose2d(4, 6, (2, 3), groups=2)])
def test_activation_of_kernels_is_the_channels(layer: nn.Module) -> None:
    x = [noise(2, 4, 5, 5), noise(1, 4, 7, 7, seed=1)]
    mean = torch.cat([t.movedim(1, 0).flatten(1) for t in x], 1).square().mean(1)
    found = importance(layer, x, kind="activation", floor=0)["weight"]
    assert found.shape == layer.weight.shape
    for o, i in product(range(found.shape[0]), range(found.shape[1])):
        channel = o if isinstance(layer, nn.ConvTranspose2d) else (o // 3) * 2 + i
        torch.testing.assert_close(found[o, i], mean[channel].expand(found.shape[2:]))


def test_activation_of_embeddings_and_shared_weights() -> None:
    model = settled(Bag())
    found = importance(model, TOKENS, kind="activation", floor=0)
    assert list(found) == ["embed.weight", "mix.weight"]
    hidden, mixed = [], []
    for tokens in TOKENS:
        hidden.append(model.embed(tokens).cumsum(1).reshape(-1, 4))
        mixed.append(torch.tanh(model.mix(hidden[-1])))
    frequency = torch.cat([t.reshape(-1) for t in TOKENS]).bincount(minlength=5) / 9
    close(
        found,
        {
            "embed.weight": frequency[:, None] + torch.cat(mixed).square().mean(0).expand(5, 4).detach(),
            "mix.weight": torch.cat(hidden).square().mean(0).expand(4, 4).detach(),
        },
    )


def test_activation_sees_layers_of_transformers() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    found = importance(nn.TransformerEncoder(layer, 1), [noise(2, 3, 8)], kind="activation")
    assert list(found) == ["layers.0.linear1.weight", "layers.0.linear2.weight"]


# Errors, and what it is for


@pytest.mark.parametrize(
    ("model", "data", "options", "words"),
    [
        (nn.Linear(4, 3), [], {}, "the data yields no batches"),
        (nn.Linear(4, 3), [], {"kind": "activation"}, "the data yields no batches"),
        (nn.Linear(4, 3), [noise(2, 4)], {"kind": "hessian"}, "'hessian'"),
        (nn.Linear(4, 3), [noise(2, 4)], {"samples": 0}, "samples"),
        (nn.Linear(4, 3), [noise(2, 4)], {"batches": 0}, "batches"),
        (nn.Linear(4, 3), [noise(2, 4)], {"floor": float("nan")}, "floor"),
        (nn.Linear(4, 3), [noise(2, 4)], {"class_dim": 2}, "set class_dim"),
        (nn.Linear(4, 3), [noise(2, 4)], {"class_dim": 0}, "set class_dim"),
        (nn.Linear(4, 3), [noise(4)], {}, "set class_dim"),
        (nn.Linear(4, 1), [noise(2, 4)], {}, "kind='activation'"),
        (nn.Sequential(nn.Linear(4, 3), nn.Flatten(0, 1)), [noise(2, 5, 4)], {}, "one item per row"),
        (nn.Sequential(nn.Linear(4, 3), nn.Unflatten(0, (1, 2))), [noise(2, 4)], {}, "one item per row"),
        (nn.Linear(4, 3), [noise(2, 4) / 0], {}, "NaN or infinite"),
        (nn.Linear(4, 3), [noise(2, 4) / 0], {"kind": "activation"}, "importance of weight has NaN"),
        (nn.Linear(4, 3), [torch.zeros(2, 4)], {"kind": "activation"}, "zero everywhere"),
        (nn.ReLU(), [noise(2, 4)], {}, "no floating-point parameters"),
        (nn.BatchNorm1d(4), [noise(2, 4)], {"kind": "activation"}, "kind='fisher'"),
    ],
)
def test_errors_are_one_line(model: nn.Module, data: Any, options: dict[str, Any], words: str) -> None:
    assert words in refusal(lambda: importance(model, data, **options))


def test_derivatives_that_are_not_numbers_name_their_parameter() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fine, self.wrong = nn.Linear(4, 3), nn.Parameter(torch.zeros(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fine(x) + (self.wrong * self.wrong).sqrt()

    assert "importance of wrong has NaN" in refusal(lambda: importance(Root(), [noise(2, 4)]))


def divergence(output: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((wanted.softmax(1) * (wanted.log_softmax(1) - output.log_softmax(1))).sum(1).mean())


def distance(output: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((output - wanted).square().mean())


@pytest.mark.parametrize(
    ("kind", "make", "judge"),
    [
        ("fisher", lambda: nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)), divergence),
        ("activation", lambda: nn.Linear(128, 64), distance),
    ],
)
@torch.no_grad()
def test_compress_takes_it_and_the_outputs_are_closer(
    kind: str, make: Callable[[], nn.Module], judge: Callable[..., float]
) -> None:
    model, other = make(), make()
    for seed, parameter in enumerate(model.parameters()):
        parameter.copy_(noise(*parameter.shape, seed=seed) / 10)
    x = noise(256, 128, seed=9) * torch.linspace(0, 1, 128).square()
    errors = []
    for weights in (None, importance(model, [x], kind=kind)):
        tersor.compress(model, tersor.Recipe(bpp=2.5, min_size=1), importance=weights).apply_(other)
        errors.append(judge(other(x), model(x)))
    assert errors[1] < 0.8 * errors[0]
