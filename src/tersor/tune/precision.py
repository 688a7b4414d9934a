"""Mixed precision: the network in half precision, master weights, losses and updates in float32.

bfloat16 has float32's range and needs no scaling; float16 has not, so its losses are scaled, and a step whose gradients
overflow is skipped while the scale is halved. Source: Micikevicius et al., "Mixed Precision Training", 2018.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch

from tersor.errors import TersorError
from tersor.tune.ranks import Ranks

Precision = Literal["fp32", "bf16", "fp16"]


class Mixed:
    """One training step's forward and backward in the precision asked for.

    Args:
        precision: "fp32", "bf16" or "fp16".
        device: type of the device, such as "cpu".
        ranks: the processes whose gradients are averaged.
    """

    def __init__(self, precision: str, device: str, ranks: Ranks | None = None) -> None:
        self._ranks = Ranks() if ranks is None else ranks
        if precision not in get_args(Precision):
            raise TersorError(f"precision is {precision!r}; use one of {', '.join(get_args(Precision))}")
        self._device = device
        self._dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self.scaler = torch.amp.GradScaler(device, enabled=precision == "fp16")

    def autocast(self) -> torch.autocast:
        """For the forward passes and the loss."""
        return torch.autocast(self._device, dtype=self._dtype or torch.bfloat16, enabled=self._dtype is not None)

    def step(self, loss: torch.Tensor, optimizer: torch.optim.Optimizer, clip: float | None = None) -> bool:
        """Backward and update; False where gradients were infinite or NaN and nothing was updated.

        Without loss scaling a bad gradient is found before it is applied, too: parameters stay as they were.
        """
        optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self._ranks.average_(p for group in optimizer.param_groups for p in group["params"])
        self.scaler.unscale_(optimizer)  # before clipping: thresholds are in true units
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = _norm(gradients)
        finite = math.isfinite(norm)
        if finite and clip is not None and norm > clip:
            for gradient in gradients:
                gradient.mul_(clip / norm)
        if finite or self.scaler.is_enabled():
            self.scaler.step(optimizer)  # does nothing where it found an infinity
        self.scaler.update()
        return finite


def _norm(gradients: list[torch.Tensor]) -> float:
    """The norm of all together."""
    dense = [g.coalesce().values() if g.is_sparse else g for g in gradients]
    each = [torch.linalg.vector_norm(g).to(dense[0].device) for g in dense]
    return float(torch.linalg.vector_norm(torch.stack(each))) if each else 0.0
