"""Checkpoints as named tensors: reading them from modules, mappings and files, and writing plain safetensors.

A `Checkpoint` is an inventory (`Entry`: name, dtype, shape, which names are tied) and a way to read one tensor at a
time. This room knows nothing of codes, and importing it does not import torch.
"""

from __future__ import annotations

from tersor.checkpoint.inventory import Checkpoint, Entry
from tersor.checkpoint.readers import open_checkpoint
from tersor.checkpoint.shards import stream_shards
from tersor.checkpoint.survey import count_zeros
from tersor.checkpoint.writer import save_safetensors, stream_safetensors

__all__ = [
    "Checkpoint",
    "Entry",
    "count_zeros",
    "open_checkpoint",
    "save_safetensors",
    "stream_safetensors",
    "stream_shards",
]
