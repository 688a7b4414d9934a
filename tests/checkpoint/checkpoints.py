"""Hypothesis strategies and small networks shared by the tests of this room."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from hypothesis import strategies as st
from torch import nn

from tersor.checkpoint import Checkpoint, header

REAL = Path(__file__).parents[2].parent / "shared" / "data"
"""Real checkpoints that lie beside the repository on some machines."""

DTYPES = [getattr(torch, name) for name in header.SAFETENSORS_CODES if hasattr(torch, name)]

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda name: name != "__metadata__")


@st.composite
def tensors(draw: st.DrawFn, dtypes: list[torch.dtype] = DTYPES) -> torch.Tensor:
    """Any shape from 0-d on, empty ones and non-contiguous ones included, with arbitrary bytes as values."""
    dtype = draw(st.sampled_from(dtypes))
    packed = dtype.itemsize == 1 and str(dtype).endswith("_x2")  # safetensors counts its values on the last axis
    shape = draw(st.lists(st.integers(0, 4), min_size=1 if packed else 0, max_size=4))
    count = int(torch.Size(shape).numel())
    data = bytearray(draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize)))
    if dtype == torch.bool:
        data = bytearray(value & 1 for value in data)
    flat = torch.frombuffer(data, dtype=dtype) if count else torch.empty(0, dtype=dtype)
    tensor = flat.reshape(shape)
    return tensor.movedim(0, -1) if len(shape) > 1 and draw(st.booleans()) else tensor


state_dicts = st.dictionaries(names, tensors(), min_size=1, max_size=6)


def raw(tensor: torch.Tensor) -> bytes:
    """The bytes of the elements in row-major order: equal exactly when the values are, NaN included."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def assert_holds(checkpoint: Checkpoint, expected: Mapping[str, torch.Tensor]) -> None:
    """Same names in the same order, and tensors that are bit for bit the same, ready for use."""
    assert [entry.name for entry in checkpoint.entries] == list(expected)
    for entry in checkpoint.entries:
        tensor = checkpoint.read(entry.name)
        want = expected[entry.name]
        assert (entry.shape, entry.dtype) == (tuple(want.shape), str(want.dtype).removeprefix("torch."))
        assert (tensor.shape, tensor.dtype) == (want.shape, want.dtype)
        assert tensor.is_contiguous() and tensor.device.type == "cpu" and not tensor.requires_grad
        assert raw(tensor) == raw(want)
        assert entry.nbytes == len(raw(want)) and entry.numel == want.numel()


class Tied(nn.Module):
    """A language model's tie of embedding and output, and a batch norm used twice under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 3)
        self.norm = nn.BatchNorm1d(3)
        self.again = self.norm
        self.output = nn.Linear(3, 7)
        self.output.weight = self.embedding.weight


TIES = {
    "again.weight": "norm.weight",
    "again.bias": "norm.bias",
    "again.running_mean": "norm.running_mean",
    "again.running_var": "norm.running_var",
    "again.num_batches_tracked": "norm.num_batches_tracked",
    "output.weight": "embedding.weight",
}


def ties_of(checkpoint: Checkpoint) -> dict[str, str]:
    return {entry.name: entry.tied_to for entry in checkpoint.entries if entry.tied_to is not None}
