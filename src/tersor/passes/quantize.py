"""Low precision: weights on a grid of integers, trained to be there; inputs of layers too, from a calibration.

Sources: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
2018 (affine grids, training with simulated quantization). Rounding in forward with the gradient passed straight through
within the range is torch's own `fake_quantize_per_channel_affine`; grids are those that the file stores
(`representations.affine`), so that what is trained is what is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.utils import parametrize

from tersor.passes.sites import Site, sites
from tersor.passes.step import Stage, Trained
from tersor.passes.work import Work
from tersor.representations import affine
from tersor.representations.affine import Grid
from tersor.structure.inputs import grid_of, quantize_inputs

_TAIL = 1e-4
"""The share of a layer's inputs beyond each end of its grid: outliers would make it coarse for all others."""


class Quantize(Trained, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`quantize(bits=4, block=64, activations=8, steps=300)`; the recipe's scheme is then `int4/64`.

    Args:
        bits: of weights, 2 to 8.
        block: weights that share a scale: -1 a row (output channel), 0 the tensor, else runs of so many in a row.
        zero: zero points, for weights that are not spread about zero.
        activations: bits of the inputs of layers, 2 to 8; none leaves them.
        batches: of the data that inputs are calibrated on.
        steps: batches to learn from with weights rounded in forward; 0 rounds what there is.
    """

    name: ClassVar[str] = "quantize"
    stage: ClassVar[Stage] = Stage.QUANTIZE
    about: ClassVar[str] = "weights, and inputs of layers, as integers of few bits; trained to be so"

    bits: int = 8
    block: int = -1
    zero: bool = False
    activations: int | None = None
    batches: int = 16

    def check(self) -> None:
        """Ranges."""
        super().check()
        low, high = affine.MIN_BITS, affine.MAX_BITS
        self.need(low <= self.bits <= high, f"bits are {low} to {high}")
        self.need(self.activations is None or low <= self.activations <= high, f"activations are {low} to {high} bits")
        self.need(self.block >= -1 and self.batches >= 1, "block is -1, 0 or a length; batches is 1 or more")

    @property
    def needs_data(self) -> bool:
        """Training and the calibration of inputs do."""
        return self.steps > 0 or self.activations is not None

    @property
    def scheme(self) -> str:
        """How the recipe writes the grid."""
        return affine.scheme(self.bits, self.block, self.zero)

    def run(self, work: Work) -> None:
        """Calibrate, train, round."""
        found = []
        for site in sites(work.network, work.exclude):
            if site.name in work.made:
                continue
            found.append(site)
            if self.block_of(site) != self.block:
                work.tell(
                    f"{site.name}: a scale for each row; rows of {site.weight[0].numel()} have no runs of {self.block}"
                )
        self.need(bool(found), "the network has no linear, convolution or embedding layer to quantize")
        if self.activations is not None:
            for site, (low, high) in calibrated(work, found, self.batches).items():
                quantize_inputs(site.module, grid_of(low, high, self.activations).to(work.device))
        if self.steps:
            with _rounded(found, self), _renamed(work, found):
                work.train(self)
        with torch.no_grad():
            for site in found:
                values = site.weight.detach().float().cpu().numpy()
                block = self.block_of(site)
                grid = affine.fit(values, self.bits, block, self.zero)
                q = affine.quantize(values, grid, self.bits, block, self.zero)
                site.weight.copy_(torch.from_numpy(affine.dequantize(q, grid, block)))
                work.grids[site.name] = grid

    def block_of(self, site: Site) -> int:
        """What shares a scale in a layer: runs of the length asked for, or rows where there are no such runs."""
        return self.block if affine.fits(tuple(site.weight.shape), self.block) else affine.PER_ROW


class _Round(nn.Module):
    """A weight on the grid that fits it now."""

    def __init__(self, settings: Quantize, block: int) -> None:
        super().__init__()
        self.settings, self.block = settings, block

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight rounded, gradient straight through within the grid's range."""
        s = self.settings
        grid = affine.fit(weight.detach().float().cpu().numpy(), s.bits, self.block, s.zero)
        return rounded(weight, grid, s.bits, self.block, s.zero)


def rounded(weight: torch.Tensor, grid: Grid, bits: int, block: int, zero: bool) -> torch.Tensor:
    """The weight on a grid, by torch's own simulated quantization."""
    low, high = affine.limits(bits, zero)
    rows = 1 if block == affine.PER_TENSOR else len(grid.scales)
    scales = torch.from_numpy(grid.scales).to(weight.device)
    zeros = torch.from_numpy(grid.zeros).to(weight.device)
    flat = torch.fake_quantize_per_channel_affine(weight.reshape(rows, -1), scales, zeros, 0, low, high)
    return flat.reshape(weight.shape)


@contextmanager
def _rounded(found: list[Site], settings: Quantize) -> Iterator[None]:
    """Weights rounded in forward."""
    for site in found:
        parametrize.register_parametrization(
            site.module, "weight", _Round(settings, settings.block_of(site)), unsafe=True
        )
    try:
        yield
    finally:
        for site in found:
            parametrize.remove_parametrizations(site.module, "weight", leave_parametrized=False)


@contextmanager
def _renamed(work: Work, found: list[Site]) -> Iterator[None]:
    """Masks and fixed parameters under the names they have while weights are rounded."""
    names = {s.name: f"{s.name.removesuffix('weight')}parametrizations.weight.original" for s in found}
    masks, fixed = work.masks, work.fixed
    work.masks = {names.get(name, name): mask for name, mask in masks.items()}
    work.fixed = {names.get(name, name) for name in fixed}
    try:
        yield
    finally:
        work.masks, work.fixed = masks, fixed


def calibrated(work: Work, found: list[Site], batches: int) -> dict[Site, tuple[float, float]]:
    """The range of each layer's inputs over some batches, all but the outermost `_TAIL` at each end."""
    ranges: dict[Site, tuple[float, float]] = {}
    kinds = [s for s in found if not isinstance(s.module, nn.Embedding)]

    def noted(site: Site) -> Any:
        def note(module: nn.Module, args: tuple[Any, ...]) -> None:
            x = args[0].detach().float().reshape(-1)
            ordered = x.sort().values
            cut = min(int(_TAIL * len(x)), len(x) - 1)
            low, high = float(ordered[cut]), float(ordered[len(x) - 1 - cut])
            before = ranges.get(site, (low, high))
            ranges[site] = min(low, before[0]), max(high, before[1])

        return note

    hooks = [s.module.register_forward_pre_hook(noted(s)) for s in kinds]
    try:
        work.network.eval()
        with torch.no_grad():
            for batch in work.batches(batches):
                batch.call(work.network)
    finally:
        for hook in hooks:
            hook.remove()
    return ranges
