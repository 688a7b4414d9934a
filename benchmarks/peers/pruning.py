"""Magnitude pruning to a size: global threshold, cubic schedule, recovery, survivors at 8 bits and entropy-coded.

Sources: Han et al., "Learning both Weights and Connections", 2015, and "Deep Compression", 2016; Zhu and Gupta, "To
prune, or not to prune", 2017 (the schedule). `score="lamp"` ranks weights of different tensors as Lee et al.,
"Layer-adaptive Sparsity for the Magnitude-based Pruning", 2021.

For the first 60 % of the steps more is pruned at each of 20 events, of the dense weights; then the mask stays,
survivors are quantized in every forward, and only a few weights are pruned or put back where the file left its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.peers import survivors
from benchmarks.peers.tuned import Tuned, exactly, host

PRUNING, EVENTS, CHECKS, REGROW = 0.6, 20, 12, 0.85
"""Share of the steps with pruning; prunings in it; looks at the size in recovery; share until weights may come back."""

FILL = (0.988, 0.996)
"""Parts of the budget between which a look at the size in recovery changes nothing; pruning aims at the second."""

_LEVELS = 127


class Student(Tuned):
    """The pruned network.

    Args:
        survivor_bits: 8, or 16 for float16 survivors.
        score: "magnitude", or "lamp".
        rate: unit of learning, in root mean squares of the tensor.
    """

    METHOD = "pruning"

    def __init__(
        self, net: nn.Module, budget: int, steps: int, *, survivor_bits: int = 8, score: str = "magnitude",
        rate: float = 2.0,
    ) -> None:  # fmt: skip
        super().__init__(net, budget, steps)
        if survivor_bits not in (8, 16) or score not in ("magnitude", "lamp"):
            raise ValueError("survivor_bits is 8 or 16; score is magnitude or lamp")
        self.bits, self.score = survivor_bits, score
        values = [v.detach().clone() for v in self.latents]
        self.take(values, [rate * float(v.square().mean().sqrt()) for v in values])
        self.masks = nn.ParameterList([nn.Parameter(torch.ones_like(v, dtype=torch.bool), False) for v in values])
        self.scales = nn.Parameter(torch.ones(len(values)), False)
        self.quantizing = False
        self.total = sum(v.numel() for v in values)
        self.sparsity = 1 - self._fit(FILL[1] * budget) / self.total
        """At the end of pruning."""
        self._mask(self.total)

    # ------------------------------------------------------------------ network
    def weights(self) -> list[torch.Tensor]:
        shown = []
        for value, mask, scale in zip(self.dense(), self.masks, self.scales, strict=True):
            kept = exactly(self._rounded(value, scale), value) if self.quantizing else value
            shown.append(torch.where(mask, kept, torch.zeros_like(kept)))
        return shown

    def _levels(self, value: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return (value / scale).round().clamp(-_LEVELS, _LEVELS)

    def _rounded(self, value: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return value.half().float() if self.bits == 16 else self._levels(value, scale) * scale

    @torch.no_grad()
    def _rescale(self) -> None:
        for i, (value, mask) in enumerate(zip(self.dense(), self.masks, strict=True)):
            self.scales[i] = torch.where(mask, value, 0).abs().amax().clamp(min=1e-12) / _LEVELS

    # ------------------------------------------------------------------ schedule
    def after_step(self, step: int) -> None:
        end = round(PRUNING * self.steps)
        if step <= end:
            self._prune(step, end)
        if self.quantizing:
            self._rescale()
            every = max(1, (self.steps - end) // CHECKS)
            if (self.steps - step) % every == 0:
                self._correct(step < REGROW * self.steps)

    def _prune(self, step: int, end: int) -> None:
        """One event of the cubic schedule, when its time has come; the last ones find the final sparsity again."""
        event = EVENTS * step // max(end, 1)
        if event == EVENTS * (step - 1) // max(end, 1):
            return
        if event >= EVENTS - 3:
            self.sparsity = 1 - self._fit(FILL[1] * self.budget) / self.total
        share = self.sparsity * (1 - (1 - event / EVENTS) ** 3)
        self._mask(round((1 - share) * self.total))
        self.quantizing = self.quantizing or event == EVENTS

    def _correct(self, regrow: bool) -> None:
        """Prune a little more, or put the largest pruned weights back, where the file has left its size."""
        size = len(self.written())
        if size > self.budget * (FILL[1] if regrow else 1) or (regrow and size < FILL[0] * self.budget):
            self._mask(self._fit(sum(FILL) / 2 * self.budget, stay=True), stay=True)

    # ------------------------------------------------------------------ masks
    @torch.no_grad()
    def _scores(self, stay: bool) -> torch.Tensor:
        """What the survivors have most of; with `stay`, those of now come before all others."""
        rows = []
        for value, mask in zip(self.dense(), self.masks, strict=True):
            row = value.abs().flatten()
            if self.score == "lamp":
                squares, order = row.double().square().sort()
                tails = squares.flip(0).cumsum(0).flip(0).clamp(min=1e-300)
                row = torch.empty_like(row).scatter_(0, order, (squares / tails).float())
            top = row.argmax()
            row = row.double() + mask.flatten() * 1e6 if stay else row
            row[top] = torch.inf  # no tensor is pruned away altogether
            rows.append(row)
        return torch.cat(rows)

    @torch.no_grad()
    def _mask(self, count: int, stay: bool = False) -> None:
        """Let `count` weights live."""
        scores = self._scores(stay)
        alive = torch.zeros_like(scores, dtype=torch.bool)
        alive[scores.topk(min(max(count, 0), self.total), sorted=False).indices] = True
        for mask, part in zip(self.masks, alive.split([m.numel() for m in self.masks]), strict=True):
            mask.copy_(part.reshape(mask.shape))
        self._rescale()

    def _fit(self, target: float, stay: bool = False) -> int:
        """How many weights may live for a file of `target` bytes, or one that is a little smaller."""
        before = [m.clone() for m in self.masks], self.scales.clone()
        low, high = len(self.masks), self.total
        while high - low > max(1, self.total // 20_000):
            middle = (low + high + 1) // 2
            self._put(*before)
            self._mask(middle, stay)
            low, high = (middle, high) if len(self.written()) <= target else (low, middle)
        self._put(*before)
        return low

    @torch.no_grad()
    def _put(self, masks: Sequence[torch.Tensor], scales: torch.Tensor) -> None:
        self.scales.copy_(scales)
        for mask, value in zip(self.masks, masks, strict=True):
            mask.copy_(value)

    # ------------------------------------------------------------------ file
    def file(self) -> bytes:
        """The whole file; where it is over the budget, a few more weights are pruned first."""
        self.quantizing = True
        blob = self.written()
        if len(blob) > self.budget:
            self._mask(self._fit(self.budget, stay=True), stay=True)
            blob = self.written()
        return blob

    def coded(self) -> tuple[Any, list[bytes]]:
        rows = zip(self.dense(), self.masks, self.scales, strict=True)
        parts = []
        for value, mask, scale in rows:
            alive = value.detach()[mask]
            levels = self._levels(alive, scale).to(torch.int16) if self.bits == 8 else alive.half()
            parts.append(survivors.pack(mask, levels))
        scales = host(self.scales).tobytes() if self.bits == 8 else b""
        return [self.bits, scales], [section for part in parts for section in part]

    @torch.no_grad()
    def restore(self, settings: Any, sections: Sequence[bytes]) -> None:
        self.bits, scales = settings
        self.quantizing = True
        if scales:
            self.scales.copy_(torch.frombuffer(bytearray(scales), dtype=torch.float32))
        values = []
        for i, mask in enumerate(self.masks):
            found, levels = survivors.unpack(sections[2 * i : 2 * i + 2], mask.numel(), self.bits)
            mask.copy_(torch.from_numpy(found).reshape(mask.shape))
            value = torch.zeros(mask.numel())
            value[torch.from_numpy(found)] = torch.from_numpy(levels.astype(np.float32)) * (
                self.scales[i].cpu() if scales else 1
            )
            values.append(value)
        self.take(values)
