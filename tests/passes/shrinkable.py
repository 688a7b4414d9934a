"""Networks, data and a work that the tests of passes which change shapes share."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tersor.passes.registry import parse
from tersor.passes.work import Work
from tersor.structure.fit import fit_

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
real = pytest.mark.skipif(not (SHARED / "resnet20-cifar10.safetensors").exists(), reason="no real networks here")


class Block(nn.Module):
    """A residual block; the shortcut is the identity, a padding (option A), or a projection."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, projection: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.pad = outputs // 4 if stride != 1 and not projection else None
        self.down = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)) if projection else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.pad is not None:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        if self.down is not None:
            x = self.down(x)
        return F.relu(x + y)


class ResNet(nn.Module):
    """A CIFAR ResNet: three stages."""

    def __init__(self, blocks: int = 1, width: int = 16, projection: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        inputs = width
        for stage in (1, 2, 3):
            outputs, stride = width * 2 ** (stage - 1), 1 if stage == 1 else 2
            layer = [Block(inputs, outputs, stride, projection and stage > 1)]
            layer += [Block(outputs, outputs) for _ in range(blocks - 1)]
            setattr(self, f"layer{stage}", nn.Sequential(*layer))
            inputs = outputs
        self.linear = nn.Linear(inputs, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in (1, 2, 3):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.linear(x.mean((2, 3)))


class Separable(nn.Module):
    """Depthwise and pointwise convolutions in turn, as in MobileNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.deep, self.deep_norm = nn.Conv2d(8, 8, 3, 1, 0, groups=8, bias=False), nn.BatchNorm2d(8)
        self.point, self.point_norm = nn.Conv2d(8, 12, 1, bias=False), nn.BatchNorm2d(12)
        self.last = nn.Conv2d(12, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu6(self.norm(self.conv(x)))
        x = F.relu6(self.deep_norm(self.deep(F.pad(x, (0, 1, 0, 1)))))
        x = F.relu6(self.point_norm(self.point(x)))
        return self.last(x.mean((2, 3), keepdim=True)).flatten(1)


def lively(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network in eval mode with batch norms that do something."""
    g = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
                if tensor.is_floating_point():
                    tensor.data = torch.rand(tensor.shape, generator=g) + (-0.5 if name == "bias" else 0.5)
    return network.eval()


def seeded(make: Any, *args: Any, seed: int = 0, **kwargs: Any) -> Any:
    """A network with weights of a seed; the global random state is as before."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make(*args, **kwargs)


def images(count: int = 6, size: int = 16, channels: int = 3, seed: int = 1) -> torch.Tensor:
    """Random inputs, [count, channels, size, size]."""
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


class Told(list[str]):
    """Lines that a pass told."""

    def has(self, *words: str) -> bool:
        """Whether one line has all of these words."""
        return any(all(word in line for word in words) for line in self)


def work_of(network: nn.Module, data: Any = None, **fields: Any) -> tuple[Work, Told]:
    """A work on a copy of the network, and what it tells."""
    told = Told()
    return Work(copy.deepcopy(network).eval(), network.eval(), data, tell=told.append, **fields), told


def ran(recipe: str, network: nn.Module, data: Any = None, **fields: Any) -> tuple[nn.Module, Told]:
    """The network after a pass, and what it told."""
    work, told = work_of(network, data, **fields)
    parse(recipe).run(work)
    return work.network, told


def output(network: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network.eval()(*inputs)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def fitted(fresh: nn.Module, state: dict[str, torch.Tensor]) -> nn.Module:
    """A fresh network of the original class with the tensors of a smaller one: as a file is loaded."""
    fit_(fresh, {name: tuple(t.shape) for name, t in state.items()})
    fresh.load_state_dict(state)
    return fresh.eval()


@functools.lru_cache(1)
def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """1,297 training and 500 test images of digits, [N, 64], and labels."""
    found = pytest.importorskip("sklearn.datasets").load_digits()
    x, y = torch.tensor(found.data, dtype=torch.float32) / 16, torch.tensor(found.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    return x[:1297], y[:1297], x[1297:], y[1297:]


def batches(size: int = 64, image: bool = False) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Digits with labels; [N, 64], or images [N, 1, 8, 8]."""
    x, y, _, _ = digits()
    x = x.view(-1, 1, 8, 8) if image else x
    return list(zip(x.split(size), y.split(size), strict=True))


def trained(network: nn.Module, epochs: int, size: int = 32, image: bool = False) -> nn.Module:
    """The network after some epochs on digits."""
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(epochs):
        for x, y in batches(size, image):
            optimizer.zero_grad()
            F.cross_entropy(network.train()(x), y).backward()
            optimizer.step()
    return network.eval()


def accuracy(network: nn.Module, image: bool = False) -> float:
    """Of the test images, percent."""
    _, _, x, y = digits()
    x = x.view(-1, 1, 8, 8) if image else x
    return float((output(network, x).argmax(1) == y).float().mean()) * 100


def stack(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


@functools.lru_cache(4)
def digits_mlp(seed: int = 0) -> nn.Module:
    """64-256-256-10, trained for 15 epochs."""
    made = seeded(
        stack, *[nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)], seed=seed
    )
    for number, module in enumerate(made):
        if isinstance(module, nn.Linear):
            seeded(module.reset_parameters, seed=10 * seed + number)
    return trained(made, 15)


@functools.lru_cache(1)
def digits_cnn() -> nn.Module:
    """1-12-16-16 with batch norms and one residual block, trained for 4 epochs."""
    return trained(seeded(DigitsNet), 4, image=True)


class DigitsNet(nn.Module):
    """A stem, a block bridged by an identity, two convolutions, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 12, 3, 1, 1, bias=False), nn.BatchNorm2d(12)
        self.block = Block(12, 12)
        self.conv1, self.norm1 = nn.Conv2d(12, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, 1, 1)
        self.linear = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.block(F.relu(self.norm(self.stem(x))))
        x = F.relu(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return self.linear(x.mean((2, 3)))
