"""How many elements of tensors are exactly zero: what pruning leaves."""

from __future__ import annotations

from collections.abc import Iterable

from tersor.checkpoint.inventory import Checkpoint


def count_zeros(checkpoint: Checkpoint, names: Iterable[str]) -> dict[str, int]:
    """Number of zeros, of either sign, in each of the named tensors; reads them one at a time."""
    import torch

    counts = {}
    for name in names:
        tensor = checkpoint.read(name)
        counts[name] = tensor.numel() - int(torch.count_nonzero(tensor))
    return counts
