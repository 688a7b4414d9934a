"""Digits as a task: small networks trained here in seconds on the 8x8 digits that come with scikit-learn.

Figures of ../shared/research/methods.md marked as checked there are of these: 1297 training and 500 test images.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.tasks import Items, Task

TEST, HELD, BATCH, EPOCHS = 500, 97, 32, 15


@functools.cache
def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Training images [N, 64] in 0..1 and labels, test images and labels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x = torch.tensor(digits.data[order] / 16.0, dtype=torch.float32)
    y = torch.tensor(digits.target[order])
    return x[:-TEST], y[:-TEST], x[-TEST:], y[-TEST:]


def mlp() -> nn.Sequential:
    """64-256-256-10."""
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))


def cnn() -> nn.Sequential:
    """1-32-64-64, 3x3 convolutions with batch norms, 58 thousand parameters."""

    def block(a: int, b: int, pool: bool) -> list[nn.Module]:
        return [
            nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(),
            *([nn.MaxPool2d(2)] if pool else []),
        ]  # fmt: skip

    layers = [*block(1, 32, False), *block(32, 64, True), *block(64, 64, True)]
    return nn.Sequential(nn.Unflatten(1, (1, 8, 8)), *layers, nn.Flatten(), nn.Linear(256, 10))


def trained(make: Callable[[], nn.Sequential], epochs: int = EPOCHS, seed: int = 0) -> nn.Sequential:
    """A network trained on the labels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net, (x, y, _, _) = make(), data()
        optimizer = torch.optim.Adam(net.parameters(), 1e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        for _ in range(epochs):
            for batch in torch.randperm(len(x)).split(BATCH):
                optimizer.zero_grad()
                F.cross_entropy(net(x[batch]), y[batch]).backward()
                optimizer.step()
            schedule.step()
    return net.eval()


def _batches(seed: int) -> Callable[[], Iterator[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)

    def one_pass() -> Iterator[torch.Tensor]:
        x = data()[0][:-HELD]
        for batch in torch.randperm(len(x), generator=generator).split(BATCH):
            yield x[batch] + 0.05 * torch.randn(len(batch), 64, generator=generator)

    return one_pass


@torch.no_grad()
def _items(net: nn.Module) -> Items:
    _, _, x, y = data()
    return (net.eval()(x).argmax(1) == y).numpy().astype(np.float64)[:, None]


class Digits(Task):
    """A task whose network is trained when asked for."""

    def load(self) -> nn.Module:
        """The trained network, the same each time."""
        return trained({"digits-mlp": mlp, "digits-cnn": cnn}[self.name])


TASKS = {
    name: Digits(
        name,
        "top-1, %",
        300,
        _batches,
        lambda: list(data()[0][-HELD:].split(BATCH)),
        _items,
        lambda items: float(100 * items.mean()),
    )
    for name in ("digits-mlp", "digits-cnn")
}
