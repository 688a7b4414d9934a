"""The group lasso on a weight: groups of positions, the sum of their norms, its gradient and its proximal step.

Source: Wen et al., "Learning Structured Sparsity in Deep Neural Networks", NeurIPS 2016, section 3 (filters, channels,
shapes of filters, depth), with plain norms: no factor for the size of a group, as in the authors' code. The proximal
step is the standard one (Yuan and Lin, 2006) in place of their threshold.
"""

from __future__ import annotations

import torch

KINDS = ("filters", "channels", "shapes", "depth")


def groups_of(weight: torch.Tensor, kind: str, rows: int = 0) -> torch.Tensor:
    """Flat positions of each group: int64 [groups, size]; every position is in exactly one.

    Args:
        weight: of a layer, [out, in, ...].
        kind: `filters` (one output channel), `channels` (one input channel), `shapes` (one weight of every filter: a
            column of the layer as a matrix), `depth` (the whole layer).
        rows: the dimension of output channels; 1 for transposed convolutions.
    """
    places = torch.arange(weight.numel(), device=weight.device).reshape(weight.shape)
    if rows:
        places = places.transpose(0, rows)
    if kind == "filters":
        return places.reshape(len(places), -1)
    if kind == "channels":
        return places.transpose(0, 1).reshape(places.shape[1], -1)
    if kind == "shapes":
        return places.reshape(len(places), -1).T.contiguous()
    if kind == "depth":
        return places.reshape(1, -1)
    raise ValueError(f"no groups of kind {kind!r}")


def norms(weight: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """The norm of each group, [groups]."""
    return weight.reshape(-1)[groups].norm(dim=1)


def value(weight: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """The penalty: the sum of the groups' norms, []."""
    return norms(weight, groups).sum()


def gradient(weight: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Its gradient: each weight over its group's norm; zero in a group of zeros. Shaped like the weight."""
    length = norms(weight, groups)
    return _scaled(weight, groups, torch.where(length > 0, 1 / length, 0))


def prox(weight: torch.Tensor, groups: torch.Tensor, threshold: float) -> torch.Tensor:
    """What minimises `|w - v|^2 / 2 + threshold * value(w)`, for v the weight: every norm is that much less.

    Groups with a norm up to the threshold become exactly zero.
    """
    length = norms(weight, groups)
    return _scaled(weight, groups, torch.where(length > threshold, 1 - threshold / length, 0))


def are_zero(weight: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Which groups have nothing but zeros, bool [groups]."""
    return (weight.reshape(-1)[groups] == 0).all(1)


def _scaled(weight: torch.Tensor, groups: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    flat = torch.empty_like(weight).reshape(-1)
    flat[groups] = weight.reshape(-1)[groups] * factors[:, None]
    return flat.reshape(weight.shape)
