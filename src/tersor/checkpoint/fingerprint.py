"""What results depend on, so that a resumed run goes on with the same and says what is another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tersor.checkpoint.inventory import Checkpoint

if TYPE_CHECKING:
    import torch


def of_bytes(data: bytes) -> str:
    """A short digest."""
    return hashlib.sha256(data).hexdigest()[:16]


def of_checkpoint(checkpoint: Checkpoint) -> str:
    """A digest of all names, dtypes, shapes, ties and values."""
    import torch

    digest = hashlib.sha256()
    for entry in checkpoint.entries:
        digest.update(repr((entry.name, entry.dtype, entry.shape, entry.tied_to)).encode())
        if entry.tied_to is None and entry.numel:
            digest.update(checkpoint.read(entry.name).reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def of_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """A digest of tensors by name, whatever their order."""
    from tersor.checkpoint.readers import open_checkpoint

    return of_checkpoint(open_checkpoint({name: tensors[name] for name in sorted(tensors)}))


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings that differ, one text each; digests are not quoted, they tell nobody anything."""
    told = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if old != new:
            opaque = name in ("model", "importance", "tensors")
            told.append(f"another {name}" if opaque else f"{name} was {old!r} and is {new!r}")
    return told
