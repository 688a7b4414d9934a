"""The main job on real input: train a small network, compress it to a target, tune it, load it back, compare.

Run by `make demo`; offline (the digits come with scikit-learn), about a minute on two cores.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import tersor

EPOCHS, BATCH, TEST = 25, 64, 597


class DigitsNet(nn.Module):
    """A small convolutional network for 8x8 digits, 0.11 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.conv2, self.norm2 = nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
        self.conv3, self.norm3 = nn.Conv2d(64, 128, 3, padding=1, bias=False), nn.BatchNorm2d(128)
        self.head = nn.Linear(128 * 4, 32)
        self.out = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.max_pool2d(F.relu(self.norm2(self.conv2(x))), 2)
        x = F.max_pool2d(F.relu(self.norm3(self.conv3(x))), 2)
        return self.out(F.relu(self.head(x.flatten(1))))


def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Training images and labels, test images and labels."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images, labels = images[order], labels[order]
    return images[:-TEST], labels[:-TEST], images[-TEST:], labels[-TEST:]


def train(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    generator = torch.Generator().manual_seed(1)
    net.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images), generator=generator).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(net(images[batch]), labels[batch]).backward()
            optimizer.step()
        schedule.step()


def batches(images: torch.Tensor) -> Callable[[], Iterator[torch.Tensor]]:
    """What `distill` learns from: a function that gives the batches of a pass, inputs only."""
    generator = torch.Generator().manual_seed(2)
    return lambda: (images[i] for i in torch.randperm(len(images), generator=generator).split(BATCH))


@torch.no_grad()
def accuracy(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    net.eval()
    return (net(images).argmax(1) == labels).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratio", type=float, default=48)
    parser.add_argument("--steps", type=int, default=200, help="of tuning")
    parser.add_argument("--out", type=Path, default=Path("demo-out"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "digits.tersor"

    torch.manual_seed(0)
    net = DigitsNet()
    train_images, train_labels, test_images, test_labels = data()
    print(f"training on {len(train_images)} digits ...", flush=True)
    train(net, train_images, train_labels)
    before = accuracy(net, test_images, test_labels)

    with tempfile.TemporaryDirectory() as folder:
        torch.save(net.state_dict(), Path(folder) / "dense.pt")
        dense_file = os.path.getsize(Path(folder) / "dense.pt")
    recipe = tersor.Recipe(ratio=options.ratio, keep="bf16")
    plan = tersor.dry_run(net, recipe)
    print("\n".join(plan.lines()))
    archive = tersor.compress(net, recipe)
    coded = accuracy(archive.apply_(DigitsNet()), test_images, test_labels)

    print(f"tuning towards the original's answers, without labels, {options.steps} steps ...", flush=True)
    student = tersor.tunable(net, archive, moving=True)
    tersor.distill(student, net, batches(train_images), steps=options.steps, checks=1)
    size = student.freeze().save(path, force=True)

    loaded = tersor.open(path).apply_(DigitsNet())
    after = accuracy(loaded, test_images, test_labels)
    print(archive.coverage)
    print(f"before: {plan.nbytes:,} B of tensors ({dense_file:,} B as a .pt file), accuracy {before:.2%}")
    print(f"after:  {size:,} B on disk, {plan.nbytes / size:.2f}x smaller, accuracy {after:.2%}")
    print(f"        ({TEST} test digits; {coded:.2%} after coding alone)")
    print(f"file:   {path.resolve()}")


if __name__ == "__main__":
    main()
