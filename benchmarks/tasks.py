"""What the tuning benchmarks train and judge: the labelled networks of ../shared/data, their inputs and test items.

Every task scores in points (per cent), keeps its test items apart so that two networks can be compared item by item,
and gives training inputs without labels; some training inputs are held out, and the test part is never trained on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from benchmarks.accuracy import load_zoo

Items = NDArray[np.float64]
RESAMPLES = 1000


@dataclass(frozen=True)
class Task:
    """A network with inputs to tune on and items to judge by.

    Attributes:
        name: of the network.
        metric: what a point is.
        steps: of tuning, unless asked otherwise.
        lr: the highest rate of learning.
        importance: of the weights' errors, unless asked otherwise; "none" where the held-out divergence was lower
            without.
        data: for a seed, a function that gives the batches of a pass.
        held_out: batches that no pass holds.
        items: one row per test item for a network.
        score: points from some rows of items.
    """

    name: str
    metric: str
    steps: int
    data: Callable[[int], Callable[[], Iterator[Any]]]
    held_out: Callable[[], list[Any]]
    items: Callable[[nn.Module], Items]
    score: Callable[[Items], float]
    lr: float = 2e-3
    importance: str = "none"

    def load(self) -> nn.Module:
        """The network with its public weights, in eval mode."""
        net: nn.Module = zoo().load(self.name)
        return net.to(memory_format=torch.channels_last) if self.name != "stories260k" else net

    def interval(self, items: Items) -> tuple[float, float]:
        """95 % interval of the score: bootstrap over items, own generator."""
        scores = [self.score(items[rows]) for rows in _resamples(len(items))]
        return float(np.quantile(scores, 0.025)), float(np.quantile(scores, 0.975))

    def lost(self, before: Items, after: Items) -> tuple[float, float, float]:
        """Points lost, and its 95 % interval from the same items under both networks (paired bootstrap)."""
        gaps = [self.score(before[rows]) - self.score(after[rows]) for rows in _resamples(len(before))]
        lost = self.score(before) - self.score(after)
        return lost, float(np.quantile(gaps, 0.025)), float(np.quantile(gaps, 0.975))


def _resamples(count: int) -> Iterator[NDArray[np.int64]]:
    generator = np.random.default_rng(0)
    for _ in range(RESAMPLES):
        yield generator.integers(0, count, count)


@functools.cache
def zoo() -> ModuleType:
    """The module that loads networks and data."""
    return load_zoo()


# ------------------------------------------------------------------ images and classes
_HELD = {"cifar": 1000, "imagenet": 100}


@functools.cache
def _cifar_train() -> torch.Tensor:
    """Normalized training inputs, float32 [N, 32, 32, 3]."""
    return zoo().normalize_cifar(zoo().cifar10("train")[0]).permute(0, 2, 3, 1).contiguous()


def cifar_data(seed: int, batch: int = 128) -> Callable[[], Iterator[torch.Tensor]]:
    """Training inputs, cropped and mirrored at random."""
    generator = torch.Generator().manual_seed(seed)

    def one_pass() -> Iterator[torch.Tensor]:
        images = _cifar_train()[: -_HELD["cifar"]]
        for index in torch.randperm(len(images), generator=generator).split(batch):
            if len(index) == batch:
                yield crop_and_flip(images[index], 4, generator)

    return one_pass


def crop_and_flip(images: torch.Tensor, margin: int, generator: torch.Generator) -> torch.Tensor:
    """Images [B, H, W, C] shifted by up to `margin` and mirrored at random, as [B, C, H, W] in channels-last memory."""
    count, height, width, _ = images.shape
    padded = F.pad(images, (0, 0, margin, margin, margin, margin))
    top, left = torch.randint(0, 2 * margin + 1, (2, count, 1), generator=generator)
    columns = left + torch.arange(width)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    rows = top + torch.arange(height)
    item = torch.arange(count)[:, None, None]
    return padded[item, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _cifar_held() -> list[torch.Tensor]:
    return list(_cifar_train()[-_HELD["cifar"] :].permute(0, 3, 1, 2).split(250))


def _hits(images: torch.Tensor, labels: torch.Tensor, prepare: Callable[..., torch.Tensor], batch: int) -> Any:
    @torch.no_grad()
    def items(net: nn.Module) -> Items:
        net.eval()
        found = []
        for x, y in zip(images.split(batch), labels.split(batch), strict=True):
            found.append(net(prepare(x).contiguous(memory_format=torch.channels_last)).argmax(1) == y)
        return torch.cat(found).numpy().astype(np.float64)[:, None]

    return items


def _percent(items: Items) -> float:
    return float(100 * items.mean())


def _cifar_items(net: nn.Module) -> Items:
    return _hits(*zoo().cifar10("test"), zoo().normalize_cifar, 500)(net)


def _imagenet_data(seed: int, batch: int = 25) -> Callable[[], Iterator[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)

    def one_pass() -> Iterator[torch.Tensor]:
        images = zoo().imagenet("train")[0][: -_HELD["imagenet"]]
        for index in torch.randperm(len(images), generator=generator).split(batch):
            chosen = zoo().normalize_mobilenet(images[index]).permute(0, 2, 3, 1)
            yield crop_and_flip(chosen, 16, generator)

    return one_pass


def _imagenet_held() -> list[torch.Tensor]:
    images = zoo().imagenet("train")[0][-_HELD["imagenet"] :]
    return list(zoo().normalize_mobilenet(images).split(25))


def _imagenet_items(net: nn.Module) -> Items:
    return _hits(*zoo().imagenet("val"), zoo().normalize_mobilenet, 50)(net)


# ------------------------------------------------------------------ segmentation
_CAMVID_HELD, _CAMVID_CROP = 10, 256


def _camvid_data(seed: int, batch: int = 4) -> Callable[[], Iterator[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)

    def one_pass() -> Iterator[torch.Tensor]:
        images = zoo().camvid("train")[0][:-_CAMVID_HELD]
        for index in torch.randperm(len(images), generator=generator).split(batch):
            top, left = torch.randint(0, (512 - _CAMVID_CROP) // 8 + 1, (2,), generator=generator).mul(8).tolist()
            x = images[index][:, :, top : top + _CAMVID_CROP, left : left + _CAMVID_CROP]
            yield x.flip(3) if torch.rand((), generator=generator) < 0.5 else x

    return one_pass


def _camvid_held() -> list[torch.Tensor]:
    return list(zoo().camvid("train")[0][-_CAMVID_HELD:].split(2))


@torch.no_grad()
def _camvid_items(net: nn.Module) -> Items:
    """A confusion matrix per image, flat: predicted classes by 11 true ones, as in `zoo.evaluate`."""
    net.eval()
    rows = []
    for x, y in zip(*zoo().camvid("test"), strict=True):
        p = F.interpolate(net(x[None]), size=y.shape, mode="bilinear", align_corners=False).argmax(1)[0]
        counts = torch.bincount(p.flatten() * 12 + y.flatten().long(), minlength=144).view(12, 12)
        rows.append(counts.numpy().astype(np.float64).ravel())
    return np.stack(rows)


def _mean_iou(items: Items) -> float:
    confusion = items.sum(axis=0).reshape(12, 12)[:, :11]
    hit = np.diagonal(confusion)[:11]
    return float(100 * (hit / (confusion.sum(0) + confusion[:11].sum(1) - hit)).mean())


# ------------------------------------------------------------------ language
_STORIES_HELD = 100


def _stories_data(seed: int, batch: int = 8, length: int = 256) -> Callable[[], Iterator[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)

    def one_pass() -> Iterator[torch.Tensor]:
        stories = [s for s in zoo().stories("train")[_STORIES_HELD:] if len(s) > length // 2]
        for index in torch.randperm(len(stories), generator=generator).split(batch):
            chosen = [stories[i] for i in index.tolist()]
            shortest = min(length, *(len(s) - 1 for s in chosen))
            yield torch.stack([s[:shortest] for s in chosen])

    return one_pass


def _stories_held() -> list[torch.Tensor]:
    return [s[None, :-1] for s in zoo().stories("train")[:_STORIES_HELD]]


@torch.no_grad()
def _stories_items(net: nn.Module) -> Items:
    """Summed loss and number of tokens of each story."""
    net.eval()
    rows = []
    for t in zoo().stories("test"):
        loss = F.cross_entropy(net(t[None, :-1])[0], t[1:], reduction="sum").item()
        rows.append((loss, len(t) - 1))
    return np.array(rows, dtype=np.float64)


def _probability(items: Items) -> float:
    """100 over the perplexity: the geometric mean of the right tokens' probabilities, in per cent."""
    loss, tokens = items.sum(axis=0)
    return float(100 * np.exp(-loss / tokens))


def _cifar(name: str) -> Task:
    return Task(name, "top-1, %", 200, cifar_data, _cifar_held, _cifar_items, _percent)


TASKS = {
    "resnet20-cifar10jpeg": _cifar("resnet20-cifar10jpeg"),
    "resnet20-cifar10": _cifar("resnet20-cifar10"),
    "resnet32-cifar10": _cifar("resnet32-cifar10"),
    "mobilenetv1-075-imagenet": Task(
        "mobilenetv1-075-imagenet", "top-1, %", 180, _imagenet_data, _imagenet_held, _imagenet_items, _percent
    ),
    "enet-camvid": Task("enet-camvid", "mean IoU, %", 600, _camvid_data, _camvid_held, _camvid_items, _mean_iou),
    "stories260k": Task(
        "stories260k",
        "100 / perplexity",
        1200,
        _stories_data,
        _stories_held,
        _stories_items,
        _probability,
        lr=5e-4,
        importance="fisher",
    ),
}
