"""Batch norms stand still: what they do in eval mode as a scale and a shift, and small vectors as integers. Comes last.

In eval mode a batch norm is y = a x + b, a = gamma / sqrt(var + eps), b = beta - a mean (folding, as in Jacob et al.,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018, section 3.2, but
with the layer before it left as it is). Stored so, its statistics are zeros and ones, which take no bytes. Ours: to do
it after tuning, which needs the statistics, on what the file keeps without codes.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from tersor.index import CODED, DTYPES, REASONS
from tersor.passes.step import Stage, Step
from tersor.passes.work import Work
from tersor.representations import affine
from tersor.tune.rewrite import with_kept

if TYPE_CHECKING:
    from tersor.archive import Archive

_LEAST = 8
"""Vectors with fewer elements stay: a scale of their own would cost as much."""
_STEPS = 8


class Still(Step, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`still()` or `still(bits=8)`: for inference only; training would start from wrong statistics.

    Args:
        bits: kept vectors of floats (biases, scales, shifts; not statistics, nor what the recipe excludes) become
            integers of so many bits with a scale and a zero point each, if that is smaller and fine enough; none leaves
            them.
    """

    name: ClassVar[str] = "still"
    stage: ClassVar[Stage] = Stage.TUNE
    about: ClassVar[str] = "batch norms as a scale and a shift, small vectors as integers; comes last, for inference"

    bits: int | None = None

    def check(self) -> None:
        """Ranges."""
        low, high = affine.MIN_BITS, affine.MAX_BITS
        self.need(self.bits is None or low <= self.bits <= high, f"bits are {low} to {high}")

    def after(self, work: Work, archive: Archive) -> Archive:
        """The archive with other kept tensors."""
        index = archive.index
        position = {name: i for i, name in enumerate(index.names)}
        stored = {i for i, _, _ in index.kept}
        plain = {i for i, reason, _ in index.kept if REASONS[reason] in ("one-dimensional", "small")}
        tied = set(itertools.chain(*index.ties.items()))
        values = {i: archive[index.names[i]] for i in stored}
        statistics: set[int] = set()
        for path, module in work.network.named_modules():
            if isinstance(module, _NormBase) and module.track_running_stats:
                four = [position.get(f"{path}.{leaf}", -1) for leaf in _LEAVES]
                statistics |= {*four[2:]}
            if isinstance(module, _BatchNorm) and module.track_running_stats:
                if stored.issuperset(four) and tied.isdisjoint(four):
                    found = stilled(module, [values[i] for i in four])
                    values |= {i: v.to(values[i].dtype) for i, v in zip(four, found, strict=True)}
                else:
                    work.tell(f"{path}: left, its tensors are shared with others, coded, or there are none")
        tried = [with_kept(archive, values, [], affine.MAX_BITS)]
        few = [
            i for i in sorted(plain - statistics)
            if DTYPES[index.dtypes[i]] in CODED and values[i].ndim == 1 and values[i].numel() >= _LEAST
            and bool(values[i].isfinite().all())
        ]  # fmt: skip
        if self.bits is not None:
            wide = [i for i in few if not _even(values[i], self.bits)]
            few = [i for i in few if i not in wide]
            if wide:
                work.tell(
                    f"{len(wide)} vectors stay floats: {self.bits} bits would be too coarse for most of their elements"
                )
        if self.bits is not None and few:
            tried.append(with_kept(archive, values, few, self.bits))
        made = min([*tried, archive], key=lambda one: one.size)
        if made is archive:
            work.tell("left as it is: the file would not be smaller")
        work.network = made.apply_(work.network)
        return made


def _even(vector: torch.Tensor, bits: int) -> bool:
    """Whether half of the elements, at least, are several steps of an integer grid over all of them.

    A few channels that hardly vary have scales hundreds of times those of the others; a grid that reaches them would
    round the others to nothing.
    """
    values = vector.detach().double()
    step = float(values.max().clamp(min=0) - values.min().clamp(max=0)) / (2**bits - 1)
    return step * _STEPS <= float(values.abs().median())


_LEAVES = ("weight", "bias", "running_mean", "running_var")


def stilled(norm: nn.Module, values: list[torch.Tensor]) -> list[torch.Tensor]:
    """Weight, bias, mean and variance of a batch norm that does the same in eval mode, with mean 0 and variance 1."""
    weight, bias, mean, var = (v.double() for v in values)
    eps = float(norm.eps)  # type: ignore[arg-type]
    scale = weight / (var + eps).sqrt()
    return [scale * (1 + eps) ** 0.5, bias - scale * mean, torch.zeros_like(mean), torch.ones_like(var)]
