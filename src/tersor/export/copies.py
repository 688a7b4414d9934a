"""Finding dense copies of coded weights among the constants of a graph or a program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tersor.archive import Archive

if TYPE_CHECKING:
    import torch

_LARGE = 256
"""Elements from which a constant is looked at."""
_ALIKE = 0.5
"""Squared error over energy below which a constant is a copy, of the weight as coded or as it came."""


def copy_of(archive: Archive, state: Mapping[str, torch.Tensor], value: torch.Tensor) -> str | None:
    """The coded tensor that a constant is a copy of, in storage order or transposed; None if it is none.

    `state` holds the archive's tensors, decoded.
    """
    if value.numel() < _LARGE or not value.is_floating_point():
        return None
    flat = value.detach().float().reshape(-1)
    for members in archive.index.coded:
        for i in members:
            entry = archive.entries[i]
            if entry.numel != value.numel():
                continue
            weight = state[entry.name].float()
            ways = [weight] if weight.ndim < 2 else [weight, weight.transpose(0, 1), weight.flatten(1).T]
            energy = float(weight.square().sum())
            if any(float((way.reshape(-1) - flat).square().sum()) < _ALIKE * energy for way in ways):
                return entry.name
    return None
