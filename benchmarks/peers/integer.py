"""Integers of 8 to 2 bits with a learned step per output channel: Esser et al., "Learned Step Size Quantization", 2020.

Levels are -2**(bits - 1) to 2**(bits - 1) - 1 times the step, whose gradient has LSQ's scale, 1 / sqrt(weights of the
step * largest level). It starts where the channel's squared error is least, and is learned as a logarithm, so that
Adam moves it by a share of itself. A file may hold each tensor's levels packed at `bits` bits, and, where that is
shorter, those bytes under zstd 19, or the levels entropy-coded; steps are float16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import zstandard
from torch import nn

from benchmarks.peers.tuned import Array, Tuned, exactly, host
from tersor.codec import integers
from tersor.representations import kept

CODES = ("packed", "zstd", "entropy")
_LEAST = 6e-8  # the smallest float16


class Student(Tuned):
    """The quantized network; `budget` is not used.

    Args:
        bits: of a weight, 2 to 8.
        edge_bits: of the first and the last coded tensor; None for `bits`. The paper has 8.
        entropy: whether the file may code levels shorter than packed.
        rate: unit of learning, in steps.

    Attributes:
        codes: per tensor, how `coded` last wrote it, one of `CODES`.
    """

    METHOD = "integer"

    def __init__(
        self, net: nn.Module, budget: int, steps: int, *, bits: int = 4, edge_bits: int | None = None,
        entropy: bool = True, rate: float = 2.0,
    ) -> None:  # fmt: skip
        super().__init__(net, budget, steps)
        if not all(2 <= b <= 8 for b in (bits, edge_bits or bits)):
            raise ValueError("2 to 8 bits")
        values = [v.detach().clone() for v in self.latents]
        self.entropy, self.codes = entropy, ["packed"] * len(values)
        edges = {0, len(values) - 1}
        self.bits = [edge_bits if edge_bits and i in edges else bits for i in range(len(values))]
        first = [best_steps(v.flatten(1), b) for v, b in zip(values, self.bits, strict=True)]
        self.logs = nn.ParameterList([nn.Parameter(s.log()) for s in first])
        self.take(values, [rate * float(s.mean()) for s in first])

    # ------------------------------------------------------------------ network
    def _scaled(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Per tensor its weights in steps, and the steps as they are stored; both [channels, ...]."""
        out = []
        for value, log, bits in zip(self.dense(), self.logs, self.bits, strict=True):
            factor = (value[0].numel() * (2 ** (bits - 1) - 1)) ** -0.5
            step = log.exp()
            step = exactly(step.clamp(min=_LEAST).half().float(), step * factor)
            step = step.reshape(-1, *[1] * (value.ndim - 1))
            out.append((value / step, step))
        return out

    def weights(self) -> list[torch.Tensor]:
        shown = []
        for (scaled, step), bits in zip(self._scaled(), self.bits, strict=True):
            inside = scaled.clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
            shown.append(exactly(inside.round(), inside) * step)
        return shown

    # ------------------------------------------------------------------ file
    @torch.no_grad()
    def coded(self) -> tuple[Any, list[bytes]]:
        sections, steps = [], []
        for i, ((scaled, step), bits) in enumerate(zip(self._scaled(), self.bits, strict=True)):
            levels = host(scaled.round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)).astype(np.int64)
            packed = pack(levels, bits)
            written = {"packed": packed}
            if self.entropy:
                written |= {"zstd": zstandard.compress(packed, 19), "entropy": integers.pack(levels)}
            self.codes[i] = min(written, key=lambda code: len(written[code]))
            sections.append(written[self.codes[i]])
            steps.append(host(step).astype(np.float16).tobytes())
        return [self.bits, [CODES.index(code) for code in self.codes]], [*sections, kept.pack(b"".join(steps), 2)]

    @torch.no_grad()
    def restore(self, settings: Any, sections: Sequence[bytes]) -> None:
        self.bits, codes = settings
        self.codes = [CODES[code] for code in codes]
        counts = [log.numel() for log in self.logs]
        row = np.frombuffer(kept.unpack(sections[-1], 2, sum(counts)), np.float16).astype(np.float32)
        values = []
        for i, step in enumerate(torch.from_numpy(row).split(counts)):
            size, data = self.latents[i].numel(), sections[i]
            if self.codes[i] == "entropy":
                levels = integers.unpack(data, size)
            else:
                levels = unpack(zstandard.decompress(data) if self.codes[i] == "zstd" else data, self.bits[i], size)
            values.append(torch.from_numpy(levels).float().reshape(len(step), -1) * step[:, None])
            self.logs[i].copy_(step.log())
        self.take(values)


@torch.no_grad()
def best_steps(rows: torch.Tensor, bits: int) -> torch.Tensor:
    """The step of least squared error per row, of 60 tried."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    top = rows.abs().amax(1).clamp(min=1e-6) / max(high, 1)
    best, least = top.clone(), torch.full_like(top, math.inf)
    for share in torch.linspace(0.15, 1.1, 60).tolist():
        step = (top * share).half().float().clamp(min=_LEAST)[:, None]
        error = ((rows / step).round().clamp(low, high) * step - rows).square().sum(1)
        best, least = torch.where(error < least, step[:, 0], best), torch.minimum(error, least)
    return best


def pack(levels: Array, bits: int) -> bytes:
    """Levels at `bits` bits each, most significant first, the last byte filled with zeros."""
    unsigned = (levels + 2 ** (bits - 1)).astype(np.uint8)
    return np.packbits(np.unpackbits(unsigned[:, None], axis=1)[:, 8 - bits :]).tobytes()


def unpack(data: bytes, bits: int, size: int) -> Array:
    """What `pack` wrote."""
    rows = np.unpackbits(np.frombuffer(data, np.uint8), count=bits * size).reshape(size, bits)
    return np.packbits(np.pad(rows, ((0, 0), (8 - bits, 0))), axis=1)[:, 0].astype(np.int64) - 2 ** (bits - 1)
