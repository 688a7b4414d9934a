"""Codes that move: dense latent weights are trained, and codes are chosen again for them, rate included.

Forward shows what the codes decode to, backward gives the gradient to the latents (straight through); choosing again
brings the codes after them. Source: Malinovskii et al., "PV-Tuning", 2024, which moves a share of the codes of language
models by the same alternation; latents instead of its linearised step, because a whole choice of lattice points costs
a tenth of a training step here. The rate stays in the choice, and the step is steered so that the file keeps its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tersor.representations.group import GroupCoder, GroupSpec
from tersor.representations.scales import scale_of
from tersor.tune.decode import dense


class StraightThrough(torch.autograd.Function):
    """The decoded value forward, the latent's gradient backward."""

    @staticmethod
    def forward(ctx: Any, latent: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
        """`decoded`, as a tensor of its own."""
        return decoded.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        """The gradient as it is, to the latent."""
        return dense(gradient), None


class MovingGroup(nn.Module):
    """Tensors of one group as latents, Parameters in the tensors' shapes, seen through the codes nearest to them.

    Its state dict holds the latents and what their codes decode to, not the codes: after loading, forward is as it was,
    and the next choice of codes chooses all of them.

    Args:
        spec: the group.
        values: float32 tensors, where the latents start.
        importance: per tensor None or a weight for every element's squared error.
    """

    def __init__(
        self,
        spec: GroupSpec,
        values: Sequence[torch.Tensor],
        importance: Sequence[NDArray[np.float32] | None] | None = None,
    ) -> None:
        super().__init__()
        self.latents = nn.ParameterList([nn.Parameter(v.detach().float().clone()) for v in values])
        self.coder = GroupCoder(spec, [partial(np.asarray, v) for v in self._values()], importance)
        for t, v in enumerate(values):
            self.register_buffer(f"_decoded{t}", v.detach().float().clone())
        self._loaded = False  # then the coder's codes are not those of the tensors that are seen

    def _values(self) -> list[NDArray[np.float32]]:
        return [np.array(latent.detach().cpu().numpy(), order="C") for latent in self.latents]

    def choose(self, step: float, share: float = 1.0) -> float:
        """Choose codes for the latents as they are; returns the predicted bytes of the group.

        Args:
            step: of the lattice, or for codebooks what lambda follows from.
            share: of the vectors, those whose latents have gone furthest from their codes, may change; the others are
                held where they are.
        """
        self._renew(share)
        return self.coder.at(step)

    def follow(self, step: float, share: float = 1.0) -> None:
        """Choose codes under the tables and the step of the last `choose`, which is quicker and moves fewer of them."""
        self._renew(share)
        if not self.coder.follow():
            self.coder.at(step)

    def _renew(self, share: float) -> None:
        self.coder.renew([partial(np.asarray, v) for v in self._values()], 1.0 if self._loaded else share)
        self._loaded = False

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._loaded = True

    def units(self) -> list[float]:
        """Of each tensor, what a step of the lattice is multiplied with: the median of its scales."""
        levels = self.coder.scale_levels
        return [float(np.median(scale_of(level))) for level in levels] if levels else [1.0] * len(self.latents)

    @torch.no_grad()
    def show(self) -> None:
        """Let forward see the codes chosen last."""
        for t, values in enumerate(self.coder.decoded()):
            target: torch.Tensor = getattr(self, f"_decoded{t}")
            target.copy_(torch.from_numpy(values))

    def forward(self) -> list[torch.Tensor]:
        """The group's tensors, float32, in order and in their shapes."""
        return [StraightThrough.apply(latent, getattr(self, f"_decoded{t}")) for t, latent in enumerate(self.latents)]
