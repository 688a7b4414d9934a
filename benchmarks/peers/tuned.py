"""What all tuned baselines share: the user's network over weights that a method computes from latent ones.

Coded are float tensors of two dimensions and more with at least `MIN_SIZE` elements, tied ones once; what tersor codes
by default. A latent is a weight over its tensor's `units`, a power of two: Adam's rate of learning then counts in
units, as tersor's counts in steps of its lattice, and every baseline trains at a rate that suits it under one `lr`.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy.typing as npt
import torch
from torch import nn

from benchmarks.peers import tuned_file

MIN_SIZE = 256

Array = npt.NDArray[Any]


class Tuned(nn.Module):
    """A network that computes with `weights()`, and is one file.

    Attributes:
        network: the user's, without its coded tensors.
        latents: of the coded tensors, in units.
        units: per coded tensor.
        budget: bytes that the file may have.
        steps: of the training.
    """

    METHOD: ClassVar[str]

    def __init__(self, net: nn.Module, budget: int, steps: int) -> None:
        super().__init__()
        self.network, self.budget, self.steps = copy.deepcopy(net), budget, steps
        state = self.network.state_dict(keep_vars=True)
        self.listing = tuned_file.listing(state)
        firsts = [i for i, (_, _, _, first) in enumerate(self.listing) if first == i]
        found = [i for i in firsts if _coded(state[self.listing[i][0]])]
        self.names = [self.listing[i][0] for i in found]
        values = [state[name] for name in self.names]
        self._dtypes = [value.dtype for value in values]
        self._slots = [self._take_out(i) for i in found]
        self.units = [1.0] * len(found)
        learns = [isinstance(value, nn.Parameter) and value.requires_grad for value in values]
        copies = [value.detach().clone().float() for value in values]
        self.latents = nn.ParameterList([nn.Parameter(v, g) for v, g in zip(copies, learns, strict=True)])

    def _take_out(self, i: int) -> list[tuple[nn.Module, str]]:
        owners = []
        for name, _, _, first in self.listing:
            if first == i:
                path, _, leaf = name.rpartition(".")
                owner = self.network.get_submodule(path)
                owner._parameters.pop(leaf, None)
                owner._buffers.pop(leaf, None)
                owners.append((owner, leaf))
        return owners

    # ------------------------------------------------------------------ what a method says
    @abstractmethod
    def weights(self) -> list[torch.Tensor]:
        """The coded tensors as the file has them, differentiable."""

    @abstractmethod
    def coded(self) -> tuple[Any, list[bytes]]:
        """(settings, sections) of the coded tensors."""

    @abstractmethod
    def restore(self, settings: Any, sections: Sequence[bytes]) -> None:
        """Take what `coded` wrote."""

    def after_step(self, step: int) -> None:
        """Called after every step of training."""

    # ------------------------------------------------------------------ network
    def dense(self) -> list[torch.Tensor]:
        """Latent weights in the network's own unit."""
        return [v * unit for v, unit in zip(self.latents, self.units, strict=True)]

    @torch.no_grad()
    def take(self, values: Sequence[torch.Tensor | Array], units: Sequence[float] | None = None) -> None:
        """Set the latent weights, given in the network's own unit; `units`, if given, rounded to powers of two."""
        if units is not None:
            self.units = [2.0 ** round(math.log2(max(unit, 1e-12))) for unit in units]
        for latent, value, unit in zip(self.latents, values, self.units, strict=True):
            latent.copy_(torch.as_tensor(value).reshape(latent.shape) / unit)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the user's network returns."""
        for value, owners, dtype in zip(self.weights(), self._slots, self._dtypes, strict=True):
            for owner, leaf in owners:
                setattr(owner, leaf, value.to(dtype))
        return self.network(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        """Copies go without the shown weights, which the next forward makes again."""
        for owner, leaf in (place for owners in self._slots for place in owners):
            owner.__dict__.pop(leaf, None)
        return self.__dict__.copy()

    # ------------------------------------------------------------------ file
    def _kept(self) -> list[torch.Tensor]:
        return list({id(v): v for v in self.network.state_dict(keep_vars=True).values()}.values())

    def written(self) -> bytes:
        """The file of the student as it is, over the budget or not."""
        settings, sections = self.coded()
        kept = tuned_file.pack_kept(self._kept())
        return tuned_file.assemble(self.METHOD, self.listing, settings, sections, kept)

    def file(self) -> bytes:
        """The whole file."""
        return self.written()

    def load(self, blob: bytes) -> None:
        """Take everything from a file of `file`: from then on forward computes with exactly what it holds."""
        settings, sections, kept = tuned_file.parse(blob, self.METHOD, self.listing)
        self.restore(settings, sections)
        tuned_file.unpack_kept(kept, [v.data for v in self._kept()])


def host(tensor: torch.Tensor) -> Array:
    """A tensor's values in a row, for coders."""
    return tensor.detach().cpu().numpy().ravel()


def exactly(value: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
    """`value`, bit for bit, whose gradient goes to `latent` as it is (straight through)."""
    return value.detach() + (latent - latent.detach())


def _coded(value: torch.Tensor) -> bool:
    return value.is_floating_point() and value.ndim >= 2 and value.numel() >= MIN_SIZE
