"""Whether channels can be removed, tried on copies of a network.

Ours. Two networks must answer alike: one in which the layers behind multiply some channels by zero, and one without
these channels. To learn whether what torch-pruning says holds for any weights, the copy's weights are random.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from tersor.passes.dependency import Coupled, Dependency, floats
from tersor.passes.sites import TRANSPOSED
from tersor.passes.work import Work
from tersor.tune.batches import Batch, mapped

_SAME = 1e-4  # of the largest answer; a wrong channel changes the answer of a random network by far more
_FEW = 4


def few(work: Work, count: int = _FEW) -> Batch:
    """The first items of the example batch; all of it where its tensors do not agree on what an item is."""
    whole = work.example()
    sizes: list[int] = []
    mapped(whole, lambda leaf: sizes.append(len(leaf) if isinstance(leaf, torch.Tensor) and leaf.ndim else -1))
    if len({size for size in sizes if size >= 0}) != 1:
        return whole
    part = mapped(whole, lambda leaf: leaf[:count] if isinstance(leaf, torch.Tensor) and leaf.ndim else leaf)
    try:
        answers(work.network, part)
    except MemoryError:
        raise
    except Exception:  # a size written in the network
        return whole
    return part


@torch.no_grad()
def answers(network: nn.Module, batch: Batch) -> list[torch.Tensor]:
    """All floating tensors that a network answers with."""
    return floats(batch.call(network))


def alike(new: list[torch.Tensor], old: list[torch.Tensor], tolerance: float = _SAME) -> bool:
    """Whether answers are the same but for rounding; no answer is like none."""
    if not new or [t.shape for t in new] != [t.shape for t in old]:
        return False
    return all(
        float((a - b).abs().max()) <= tolerance * max(float(b.abs().max()), 1e-6) for a, b in zip(new, old, strict=True)
    )


def confirmed(work: Work, groups: list[Coupled], batch: Batch) -> Iterator[Coupled]:
    """Those groups that stand the trial: all at once if they do, else halved until the culprits stand alone."""
    if not groups:
        return
    if _stand(work, groups, batch):
        yield from groups
    elif len(groups) > 1:
        half = len(groups) // 2
        yield from confirmed(work, groups[:half], batch)
        yield from confirmed(work, groups[half:], batch)


@torch.no_grad()
def _stand(work: Work, groups: list[Coupled], batch: Batch) -> bool:
    """Whether a random network without some channels answers like one in which nothing reads them."""
    random = torch.Generator().manual_seed(work.seed)
    trial = copy.deepcopy(work.network)
    _randomize(trial, random)
    try:
        graph = Dependency(trial, batch)
        chosen = {}
        for group in groups:
            order = torch.randperm(group.count, generator=random).tolist()
            chosen[group.root] = sorted(order[: max(1, group.count // 3)])
            deafen(trial, group, set(chosen[group.root]))
        masked = answers(trial, batch)
        for root, channels in chosen.items():
            graph.prune(root, channels)
        return alike(answers(trial, batch), masked)
    except MemoryError:
        raise
    except Exception:  # shapes that do not fit, indices out of range: the graph is wrong about the network
        return False


def deafen(network: nn.Module, group: Coupled, channels: set[int]) -> None:
    """Zero what the layers behind do with these channels."""
    for member in group.of("in"):
        module: Any = network.get_submodule(member.path)
        gone = [c for root, c in zip(member.roots, member.channels, strict=True) if root in channels]
        if isinstance(module, TRANSPOSED):
            module.weight[gone] = 0
        else:
            module.weight[:, gone] = 0


def _randomize(network: nn.Module, random: torch.Generator) -> None:
    """Random weights that keep values in range, so that no channel is without effect."""
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        leaf = name.rpartition(".")[2]
        if tensor.ndim > 1:
            made = torch.randn(tensor.shape, generator=random) * (2 / max(tensor[0].numel(), 1)) ** 0.5
        elif leaf in ("weight", "running_var"):
            made = torch.rand(tensor.shape, generator=random) + 0.5
        else:
            made = torch.randn(tensor.shape, generator=random) * 0.1
        tensor.copy_(made)
