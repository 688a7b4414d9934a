"""A scalar group of an archive as a module: its palette or its scales are parameters, symbols stay as they are.

The gradient of a shared value is the sum of the gradients of all weights that have it (the "cumulative gradient" of
Han et al. 2016 and Marinò et al. 2021); zero stays zero, so that what was pruned stays pruned.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tersor.errors import TersorError
from tersor.representations import affine, kept
from tersor.representations.scalars import ScalarReader, ScalarRecord, pack_grids

_LEAST = 1e-30


class ToBfloat16(torch.autograd.Function):
    """Float32 numbers to the nearest bfloat16 ones, gradient straight through."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        """The stored form of scales."""
        return values.clamp(min=_LEAST).bfloat16().float()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        """The gradient as it is."""
        return gradient


class ScalarGroup(nn.Module):
    """Tensors of one scalar group, decoded from parameters.

    Attributes:
        palette: Parameter [size]; None for integers.
        logs: Parameter [units], natural logarithms of the scales of all tensors; None for a palette.
    """

    palette: nn.Parameter | None
    logs: nn.Parameter | None

    def __init__(self, reader: ScalarReader) -> None:
        super().__init__()
        self.record, self.shapes = reader.record, reader.shapes
        self.palette = self.logs = None
        self._names = [f"_symbols{t}" for t in range(len(self.shapes))]
        low, _ = affine.limits(max(self.record.bits, 2), self.record.zeros)
        for t, name in enumerate(self._names):
            self.register_buffer(name, torch.from_numpy(reader.symbols(t)), persistent=False)
        if not self.record.bits:
            palette = torch.from_numpy(reader.palette.copy())
            self.palette = nn.Parameter(palette)
            self.register_buffer("_alive", (palette != 0).float(), persistent=False)
            return
        grids = reader.grids
        self.logs = nn.Parameter(torch.from_numpy(np.log(np.concatenate([g.scales for g in grids]))))
        self._sizes = [len(g.scales) for g in grids]
        offsets = torch.from_numpy(np.concatenate([g.zeros for g in grids]) - low)
        self.register_buffer("_offsets", offsets, persistent=False)

    def values(self) -> torch.Tensor:
        """The palette or the scales as the file holds them."""
        if self.palette is not None:
            return self.palette * self.get_buffer("_alive")
        assert self.logs is not None
        return torch.as_tensor(ToBfloat16.apply(self.logs.exp()))

    def forward(self) -> list[torch.Tensor]:
        """The group's tensors, float32, in order and in their shapes."""
        values, out = self.values(), []
        found = [self.get_buffer(name) for name in self._names]
        if self.palette is not None:
            return [
                F.embedding(s.reshape(-1), values[:, None]).reshape(shape)
                for s, shape in zip(found, self.shapes, strict=True)
            ]
        scales, offsets = values.split(self._sizes), self.get_buffer("_offsets").split(self._sizes)
        for symbols, shape, scale, offset in zip(found, self.shapes, scales, offsets, strict=True):
            units = symbols.reshape(len(scale), -1)
            out.append(((units - offset[:, None]).float() * scale[:, None]).reshape(shape))
        return out

    @torch.no_grad()
    def stored(self) -> tuple[ScalarRecord, bytes]:
        """The record, and the section that holds the parameters.

        Raises:
            TersorError: a parameter is NaN or infinite.
        """
        values = self.values().cpu()
        if not values.isfinite().all():
            raise TersorError("shared values or scales have become NaN or infinite; lower the learning rate")
        if self.palette is not None:
            return self.record, kept.pack(values.numpy().astype("<f4").tobytes(), 4)
        low, _ = affine.limits(self.record.bits, self.record.zeros)
        zeros = (self.get_buffer("_offsets").cpu().numpy() + low).astype(np.int32)
        return self.record, pack_grids([affine.Grid(values.numpy(), zeros)], self.record.zeros)
