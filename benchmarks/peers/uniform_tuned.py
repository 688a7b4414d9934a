"""Uniform scalar quantization with entropy coding, trained straight through, its step steered to a size.

Codecs round with a dead zone, since zeros are cheap: a magnitude of x steps becomes floor(x + offset), with an offset
of its own between zero and one. The pair of offsets with the least error at equal bytes on the initial weights is
taken. All tensors share one step, or, with `per_tensor`, each learns its own relative to the one that is steered (Esser
et al., "Learned Step Size Quantization", 2020).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from benchmarks.peers.tuned import Tuned, host
from tersor.codec import integers

OFFSETS = ((0.5, 0.5), (0.4, 0.5), (0.33, 0.5), (0.4, 0.4), (0.33, 0.33), (0.25, 0.4))
"""(between zero and one, above), tried on the initial weights."""

FILL = 0.998
"""The part of the budget that is aimed at."""

EVERY, LOOKS = 10, 20
"""Steps between corrections by estimated bytes; times that the estimate is compared with a real file."""

_SLOPE, _DAMPING, _MOST = 0.8, 0.5, 0.05  # bits a weight loses per octave of the step; of a correction; octaves at once


class Student(Tuned):
    """The quantized network.

    Args:
        per_tensor: learn a step for each tensor.
        offsets: of rounding; None to choose.
        rate: unit of learning, in initial steps.

    Attributes:
        step: shared by all tensors.
        relative: per tensor, logarithm of its step over the shared one.
    """

    METHOD = "uniform"

    def __init__(
        self, net: nn.Module, budget: int, steps: int, *, per_tensor: bool = False,
        offsets: tuple[float, float] | None = None, rate: float = 2.0,
    ) -> None:  # fmt: skip
        super().__init__(net, budget, steps)
        values = [v.detach().clone() for v in self.latents]
        self.total = sum(v.numel() for v in values)
        self.step = nn.Parameter(torch.ones(()), False)
        self.relative = nn.Parameter(torch.zeros(len(values)), per_tensor)
        self.per_tensor, self.offsets, self._estimate_off = per_tensor, offsets or OFFSETS[0], 0.0
        self.fixed: torch.Tensor | None = None  # steps from a file
        self._scale(math.sqrt(sum(float(v.square().sum()) for v in values) / max(self.total, 1)))
        self._fit(float(self.step) * 2.0**-8, float(self.step) * 2.0**5, rounds=12)
        found = [self._try(pair) for pair in ([offsets] if offsets else OFFSETS)]
        _, self.offsets, step = min(found)
        self._scale(step)
        self.take(values, [rate * step] * len(values))
        self._look()

    def _try(self, offsets: tuple[float, float]) -> tuple[float, tuple[float, float], float]:
        """(squared error, offsets, step) of initial weights coded to the budget."""
        self.offsets = offsets
        self._exact(FILL * self.budget)
        with torch.no_grad():
            pairs = zip(self.weights(), self.dense(), strict=True)
            return sum(float((a - b).square().sum()) for a, b in pairs), offsets, float(self.step)

    # ------------------------------------------------------------------ network
    def weights(self) -> list[torch.Tensor]:
        shown = []
        for value, step in zip(self.dense(), self._steps(), strict=True):
            scaled = value / step
            shown.append((self._round(scaled) + (scaled - scaled.detach())) * step)  # as of LSQ: both gradients
        return shown

    def _steps(self) -> list[torch.Tensor]:
        return list(self.step * self.relative.exp() if self.fixed is None else self.fixed)

    @torch.no_grad()
    def _round(self, scaled: torch.Tensor) -> torch.Tensor:
        first, others = self.offsets
        size = scaled.abs()
        return torch.where(size < 1, (size + first).floor(), (size + others).floor()) * scaled.sign()

    def _levels(self) -> list[torch.Tensor]:
        with torch.no_grad():
            return [self._round(v / s).long() for v, s in zip(self.dense(), self._steps(), strict=True)]

    # ------------------------------------------------------------------ size
    def after_step(self, step: int) -> None:
        if step == self.steps:
            self._exact(FILL * self.budget)
        elif step % EVERY == 0:
            if step % max(EVERY, self.steps // LOOKS // EVERY * EVERY) == 0:
                self._look()
            bits = 8 * (self._estimate() + self._estimate_off - FILL * self.budget) / self.total
            octaves = max(-_MOST, min(_MOST, _DAMPING * bits / _SLOPE))
            self._scale(float(self.step) * 2.0**octaves)

    def _scale(self, step: float) -> None:
        with torch.no_grad():
            self.step.fill_(step)

    def _estimate(self) -> float:
        """Bytes by the empirical entropies of all tensors."""
        bits = 0.0
        for levels in self._levels():
            counts = torch.bincount((levels - levels.min()).flatten()).double()
            share = counts[counts > 0] / levels.numel()
            bits -= levels.numel() * float((share * share.log2()).sum())
        return bits / 8

    def _look(self) -> None:
        """How much larger than its estimate the file is."""
        self._estimate_off = len(self.written()) - self._estimate()

    def _fit(self, fine: float, coarse: float, rounds: int, target: float | None = None) -> None:
        """The finest step between two at which the file keeps to the target; the coarse one if none does."""
        target = FILL * self.budget if target is None else target
        for _ in range(rounds):
            middle = math.sqrt(fine * coarse)
            fine, coarse = (fine, middle) if self._fits(middle, target) else (middle, coarse)
        self._scale(coarse)

    def _exact(self, target: float) -> None:
        """The nearest step at which the file keeps to the target, a bisection between wider and wider bounds."""
        step, reach = float(self.step), 1.01
        while reach < 64 and (self._fits(step / reach, target) or not self._fits(step * reach, target)):
            reach **= 2
        self._fit(step / reach, step * reach, 10, target)

    def _fits(self, step: float, target: float) -> bool:
        self._scale(step)
        return len(self.written()) <= target

    # ------------------------------------------------------------------ file
    def file(self) -> bytes:
        """The whole file; where it is over the budget, the step is raised first."""
        blob = self.written()
        if len(blob) > self.budget:
            self._exact(self.budget)
            blob = self.written()
        return blob

    def coded(self) -> tuple[Any, list[bytes]]:
        steps = torch.stack(self._steps()) if self.per_tensor else self.step
        return [self.offsets, host(steps).tobytes()], [integers.pack(host(v)) for v in self._levels()]

    @torch.no_grad()
    def restore(self, settings: Any, sections: Sequence[bytes]) -> None:
        offsets, data = settings
        self.offsets = tuple(offsets)
        steps = torch.frombuffer(bytearray(data), dtype=torch.float32)
        self.fixed = steps.to(self.step.device) if self.per_tensor else None
        self._scale(float(steps.mean()))
        levels = [integers.unpack(s, v.numel()) for s, v in zip(sections, self.latents, strict=True)]
        pairs = zip(levels, steps.expand(len(levels)), strict=True)
        self.take([torch.from_numpy(q).float() * s for q, s in pairs])
