"""Networks of every kind, small enough to be compressed in an instant, and what tests of tuning measure in them."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tersor
from tersor.archive import Archive
from tersor.errors import TersorError
from tersor.tune.tunable import Tunable

Inputs = tuple[torch.Tensor, ...]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 40, shape, generator=torch.Generator().manual_seed(seed))


def settled(model: nn.Module, seed: int = 0) -> nn.Module:
    """Parameters and buffers of floats set at random, as training leaves them: nothing is constant."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=g) / max(parameter.shape[-1], 1) ** 0.25)
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand(buffer.shape, generator=g) + 0.5)
    return model


def convs() -> nn.Module:
    """Kernels of three sizes, grouped and depthwise ones, batch norm, a matrix."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(inplace=True), nn.Conv2d(12, 24, 3, groups=12),
        nn.ReLU(), nn.Conv2d(24, 16, 1), nn.ConvTranspose2d(16, 6, 2), nn.Flatten(), nn.Linear(6 * 25, 10),
    )  # fmt: skip


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 20), nn.Tanh(), nn.Linear(20, 10))


class Tied(nn.Module):
    """The embedding is the output layer's weight too, and one layer is used twice: [B, T] -> [B, T, V]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 12)
        self.mix = self.again = nn.Linear(12, 12)
        self.head = nn.Linear(12, 40, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.again(torch.tanh(self.mix(self.embed(x)))))
        return out


class Functional(nn.Module):
    """Weights used by hand: `self.weight`, raw parameters, lists and dictionaries of them, a large buffer."""

    bias: torch.Tensor
    table: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(12, 10))
        self.stack = nn.Parameter(torch.zeros(2, 12, 12))
        self.list = nn.ParameterList([nn.Parameter(torch.zeros(12, 12)) for _ in range(2)])
        self.named = nn.ParameterDict({"a": nn.Parameter(torch.zeros(12, 12))})
        self.register_buffer("table", torch.zeros(12, 12))
        self.register_buffer("bias", torch.zeros(12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.linear(x, self.weight.abs() * 0.5, self.bias)
        for parameter in self.list:
            x = torch.tanh(x @ parameter)
        x = x @ self.named["a"] + x @ self.table
        return torch.einsum("bi,kij->bj", x, self.stack)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM) -> None:
        super().__init__()
        self.layers = kind(12, 12, batch_first=True)
        self.head = nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.layers(x)[0])
        return out


class Parametrized(nn.Module):
    """Weights that are functions of parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.utils.parametrizations.weight_norm(nn.Linear(12, 32))
        self.b = nn.utils.parametrizations.spectral_norm(nn.Linear(32, 12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.b(torch.tanh(self.a(x)))
        return out


class Bags(nn.Module):
    """Embeddings with gradients that are sparse, and one that is renormalised in place as it is used."""

    def __init__(self) -> None:
        super().__init__()
        self.sum = nn.EmbeddingBag(40, 12, sparse=True, mode="sum")
        self.short = nn.Embedding(40, 12, max_norm=0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.sum(x) + self.short(x).sum(1)
        return out


def transformer() -> nn.Module:
    return nn.TransformerEncoderLayer(12, 3, 24, dropout=0.0, batch_first=True)


MODELS: dict[str, tuple[Callable[[], nn.Module], Inputs]] = {
    "convs": (convs, (noise(3, 3, 6, 6),)),
    "mlp": (mlp, (noise(4, 12),)),
    "tied": (Tied, (tokens(3, 5),)),
    "functional": (Functional, (noise(4, 10),)),
    "lstm": (Recurrent, (noise(3, 4, 12),)),
    "gru": (lambda: Recurrent(nn.GRU), (noise(3, 4, 12),)),
    "transformer": (transformer, (noise(3, 4, 12),)),
    "parametrized": (Parametrized, (noise(4, 12),)),
    "bags": (Bags, (tokens(3, 5),)),
}


def compressed(model: nn.Module, **recipe: Any) -> Archive:
    return tersor.compress(model, tersor.Recipe(**{"ratio": 2.5, "effort": "draft", "min_size": 64, **recipe}))


def pair(name: str = "mlp", *, moving: bool = False, **recipe: Any) -> tuple[Tunable, nn.Module, Archive]:
    """A tunable network, the original, and the archive."""
    model = settled(MODELS[name][0]())
    archive = _archive(name, tuple(recipe.items()))
    return tersor.tunable(model, archive, moving=moving), model, archive


@functools.cache
def _archive(name: str, recipe: tuple[tuple[str, Any], ...]) -> Archive:
    return compressed(settled(MODELS[name][0]()), **dict(recipe))


def loaded(model: nn.Module, archive: Archive) -> nn.Module:
    """A network of the original's class with the archive's weights.

    They need no gradients: torch rounds some layers' outputs otherwise where weights do, even under `no_grad`.
    """
    return archive.apply_(copy.deepcopy(model)).requires_grad_(False)


def shown(net: Tunable) -> dict[str, torch.Tensor]:
    """What the network inside computes with, by name, in the order of the archive."""
    net.refresh()
    out = {}
    for name in net.archive.index.names:
        path, _, leaf = name.rpartition(".")
        out[name] = getattr(net.network.get_submodule(path), leaf).detach().clone()
    return out


def sections_of(archive: Archive, g: int) -> list[bytes]:
    """The streams of a group: everything but its heads."""
    reader = archive.group(g)
    return [stream for c in range(reader.chunks) for stream in reader.chunk_streams(c)]


def train(net: nn.Module, inputs: Iterable[Any], steps: int = 4, lr: float = 1e-2) -> list[float]:
    """A plain loop towards outputs of one; losses before each step."""
    parameters = net.parameter_groups(lr) if isinstance(net, Tunable) else list(net.parameters())
    optimizer = torch.optim.Adam(parameters, lr=lr)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (net(*inputs).float() - 1).square().mean()
        loss.backward()
        optimizer.step()
        if isinstance(net, Tunable) and net.moving:
            net.choose()
        losses.append(float(loss.detach()))
    return losses


def output(net: nn.Module, inputs: Inputs) -> torch.Tensor:
    """In eval mode, without gradients."""
    with torch.no_grad():
        out: torch.Tensor = net.eval()(*inputs)
    return out


def refusal(call: Callable[[], Any]) -> str:
    """The one line of the error that the call raises."""
    with pytest.raises(TersorError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)
