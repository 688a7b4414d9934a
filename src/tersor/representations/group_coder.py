"""Encoding a group: vectors cut, scaled, and coded at any step; sections at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tersor.codec import integers
from tersor.lattice import fit, tokens
from tersor.representations import measures, scales, vectors
from tersor.representations.chunk_coder import Heads
from tersor.representations.codes_stage import CodesStage
from tersor.representations.group_reader import GroupReader
from tersor.representations.group_spec import MEMORY, SCALES, GroupSpec
from tersor.representations.lattice_stage import LatticeStage
from tersor.representations.records import GroupRecord
from tersor.representations.sparse import Masks

_TRIED, _NEAR = 0.5, 0.15  # octaves between steps at which choices are tried, and within which they do not change


class GroupCoder:
    """Encodes a group at any step; the last step stands.

    Args:
        spec: the group.
        tensors: its values, float32, in order; read one at a time.
        importance: per tensor None (all 1) or a weight per element, shaped like the tensor, 1 on average.
    """

    def __init__(
        self,
        spec: GroupSpec,
        tensors: Sequence[Callable[[], NDArray[np.float32]]],
        importance: Sequence[NDArray[np.float32] | None] | None = None,
    ) -> None:
        self.spec, self.tensors, self._importance = spec, tensors, importance
        self.masks = Masks(read() for read in tensors) if spec.sparse else None
        self._gains: dict[float, float] = {}
        self._last: tuple[float, bool] | None = None
        self._settled = False
        self._load()

    def _load(self) -> None:
        """Read the tensors and set up the stages that code them."""
        spec, importance = self.spec, self._importance
        self.scale_levels: list[NDArray[np.int64]] = []
        self.factors: list[NDArray[np.float32]] = []
        cut: list[NDArray[np.float32]] = []
        weighs = importance is not None or (self.masks is not None and self.masks.whole)
        weights: list[NDArray[np.float32]] | None = [] if weighs else None
        for t, read in enumerate(self.tensors):
            v = self._cut(t, read())
            given = None if importance is None else importance[t]
            w = None
            if weighs:
                w = np.ones(v.shape, np.float32) if given is None else self._cut(t, given)
            if importance is not None or spec.scales != "none":
                alive = v if self.masks is None else self.masks.alive(t, v)
                weighs_alive = None
                if importance is not None and w is not None:
                    weighs_alive = w if self.masks is None else self.masks.alive(t, w)
                level, factor = measures.scaling(alive, weighs_alive, self._scales)
                self.scale_levels.append(level)
                self.factors.append(factor)
                v = v / scales.broadcast(scales.scale_of(level))
                w = None if w is None else w * scales.broadcast(factor)
            if weights is not None and w is not None:
                weights.append(w if self.masks is None else self.masks.held(t, w))
            cut.append(v)
        self.planes = spec.planes(None if self.masks is None else self.masks.survivors)
        self.energy = [measures.energy(v) for v in cut]
        self._spread = measures.spread(self.energy, [v.size for v in cut])
        self._peak = max(max(float(v.max(initial=0.0)), -float(v.min(initial=0.0))) for v in cut)
        self.codes: CodesStage | None = None
        self.lattice: LatticeStage | None = None
        if spec.codebooks is not None:
            self.codes = CodesStage(self.planes, cut, weights, spec.codebooks, spec.effort, spec.seed, spec.device)
        if spec.lattice:
            own = cut if self.codes is None else None
            weight = self._lattice_weight(weights)
            self.lattice = LatticeStage(self.planes, own, weight, MEMORY[spec.effort])

    def _choose(self, step: float) -> None:
        """Set what costs less about this step for a sparse lattice: masks, or zeros as symbols.

        Both are tried at steps half an octave apart; between them the costs' ratio is interpolated. Where two steps
        near to each other want different choices, the earlier one stays: sizes would jump between them without end.
        """
        if self.masks is None or self.codes is not None or self._settled:
            return
        octave = math.log2(step)
        if all(abs(octave - tried) > _TRIED for tried in self._gains):
            masked, whole = (self._try(whole, step) for whole in (False, True))
            self._gains[octave] = math.log(max(masked, 1e-9) / max(whole, 1e-9))
        tried = sorted(self._gains)
        choice = bool(np.interp(octave, tried, [self._gains[o] for o in tried]) > 0)
        if self._last is not None and choice != self._last[1] and abs(octave - self._last[0]) < _NEAR:
            choice = self._last[1]
            self.settle()
        self._last = octave, choice
        if self.masks.whole != choice:
            self.masks.whole = choice
            self._load()

    def _try(self, whole: bool, step: float) -> float:
        """What a choice costs: weighted squared error in steps, and bits at `fit.LAMBDA` each."""
        assert self.masks is not None
        self.masks.whole = whole
        self._load()
        assert self.lattice is not None
        return self.lattice.cost(step) + 8 * fit.LAMBDA * self.fixed

    def settle(self) -> None:
        """Keep to the last choice from now on."""
        self._settled = True

    @property
    def _scales(self) -> str:
        """What there is a scale for; the survivors of a sparse tensor stand in no rows and have one in all."""
        return "tensor" if self.masks is not None and self.spec.scales == "row" else self.spec.scales

    def _cut(self, t: int, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors [rows, cols, dim] of values shaped like tensor t."""
        return vectors.cut(values, self.spec.dim) if self.masks is None else self.masks.cut(t, values, self.spec.dim)

    def _join(self, t: int, cut: NDArray[np.float32]) -> NDArray[np.float32]:
        """Tensor t from its vectors."""
        return vectors.join(cut, self.spec.shapes[t]) if self.masks is None else self.masks.join(t, cut)

    def _lattice_weight(self, weights: list[NDArray[np.float32]] | None) -> NDArray[np.float32] | None:
        """Importance in scan order."""
        return None if weights is None else self.planes.gather(measures.of_vectors(w) for w in weights)

    @property
    def weights(self) -> int:
        """Number of values coded, padding included; of a sparse group, those that are not zero."""
        return self.planes.symbols if self.masks is None else sum(self.masks.counts)

    @property
    def fixed(self) -> int:
        """Bytes of the masks, as chosen last."""
        return 0 if self.masks is None else sum(map(len, self.masks.sections(self.planes)))

    @property
    def spread(self) -> float:
        """Mean log2 of the values' root mean square, plane by plane."""
        return self._spread

    @property
    def finest(self) -> float:
        """The smallest step at which the largest magnitude, in any basis, still has a token."""
        return 1.1 * math.sqrt(self.spec.dim) * self._peak / (2 * tokens.MAX_MAGNITUDE) if self.lattice else 0.0

    @property
    def coarsest(self) -> float:
        """A step at which every value is nearer to zero than to anything else."""
        return 4 * math.sqrt(self.spec.dim) * self._peak

    def reset(self) -> None:
        """Forget the tables and codebooks of earlier steps."""
        if self.codes is not None:
            self.codes.reset()
        if self.lattice is not None:
            self.lattice.reset()

    def renew(self, tensors: Sequence[Callable[[], NDArray[np.float32]]], share: float = 1.0) -> None:
        """Take other values of the same tensors; scales, basis and tables stay, codebooks follow the values.

        With a share below 1, only that part of the vectors, those furthest from what their symbols stand for, counts
        as changed; the others are held where they are.
        """
        self.tensors = tensors
        cut = [self._cut(t, read()) for t, read in enumerate(tensors)]
        if self.scale_levels:
            cut = [v / scales.broadcast(scales.scale_of(s)) for v, s in zip(cut, self.scale_levels, strict=True)]
        self.energy = [measures.energy(v) for v in cut]
        hold = None
        if share < 1:
            cut, hold = _held(cut, self._unscaled(), share)
        if self.codes is not None:
            self.codes.renew(cut, hold)
        if self.lattice is not None:
            self.lattice.renew(cut if self.codes is None else None, hold)

    def decoded(self) -> list[NDArray[np.float32]]:
        """What a reader will decode from the last symbols, per tensor in its shape."""
        out = self._unscaled()
        if self.scale_levels:
            out = [v * scales.broadcast(scales.scale_of(s)) for v, s in zip(out, self.scale_levels, strict=True)]
        return [self._join(t, v) for t, v in enumerate(out)]

    def _unscaled(self) -> list[NDArray[np.float32]]:
        """Decoded vectors [rows, cols, dim] per tensor, in units of their scales."""
        parts = [stage.decoded() for stage in (self.codes, self.lattice) if stage is not None]
        return parts[0] if len(parts) == 1 else [a + b for a, b in zip(*parts, strict=True)]

    def at(self, step: float) -> float:
        """Bytes of the group's sections at a step (predicted; exact to about a byte per chunk)."""
        self._choose(step)
        size = float(len(self._scales_section()) + self.fixed)
        if self.codes is not None:
            size += self.codes.at(fit.LAMBDA * step * step)
            if self.lattice is not None:
                self.lattice.values = self.planes.gather(self.codes.residual())
        if self.lattice is not None:
            size += self.lattice.at(step)
        return size

    def follow(self) -> bool:
        """Symbols for renewed values, step and tables staying; False where that is not to be had: then call `at`."""
        return self.codes is None and self.lattice is not None and self.lattice.follow()

    def costs(self) -> tuple[float, NDArray[np.float64], int]:
        """After `at`: bytes of the heads, bits of each tensor's symbols, bytes of the scales; not of masks."""
        heads, bits = 0.0, np.zeros(len(self.tensors))
        for stage in (self.codes, self.lattice):
            if stage is not None:
                own, spent = stage.costs()
                heads, bits = heads + own, bits + spent
        return heads, bits, len(self._scales_section())

    def fixed_heads(self, peaks: Sequence[float]) -> Heads:
        """What the last call of `at` found, for all rows of the tensors, whose largest magnitudes are `peaks`."""
        steps: tuple[float, ...] = ()
        sections, lattice = [], None
        if self.codes is not None:
            steps, heads = self.codes.units_of_file(), self.codes.heads()
            sections += heads
        if self.lattice is not None:
            lattice, heads = self.lattice.fixed(self.bound(peaks))
            sections += heads
        m, k = self.spec.codebooks or (0, 0)
        record = GroupRecord(self.spec.tensors, self.spec.dim, m, k, steps, self._kind, lattice, None)
        levels = [int(level[0]) for level in self.scale_levels] if self._kind == 1 else []
        factors = [float(factor[0]) for factor in self.factors] if self._kind == 1 else []
        return Heads(record, tuple(sections), tuple(levels), tuple(factors))

    def bound(self, peaks: Sequence[float]) -> float:
        """The largest coefficient there may be, given the largest magnitude of each tensor."""
        bounds = np.array(peaks, dtype=np.float64)
        if self._kind == 1:
            bounds = bounds / [float(scales.scale_of(level)[0]) for level in self.scale_levels]
        elif self._kind == 2:  # no value is larger than its row's root mean square times the root of the row's length
            lengths = [shape.cols * shape.dim for shape in self.planes.shapes]
            heaviest = max([1.0, *(float(w.max(initial=0)) for w in self._importance or () if w is not None)])
            bounds = np.sqrt(lengths) * math.sqrt(heaviest)
        words = 0.0 if self.codes is None or self.codes.codes is None else self.codes.largest_sum()
        return 1.1 * math.sqrt(self.spec.dim) * (float(bounds.max()) + words)

    @property
    def _kind(self) -> int:
        """What there is a scale for, as the record says it."""
        kind = SCALES.index(self._scales)
        return 1 if kind == 0 and self.scale_levels else kind

    def _scales_section(self) -> bytes:
        return integers.pack(np.concatenate(self.scale_levels)) if self.scale_levels else b""

    def finish(self) -> tuple[GroupRecord, list[bytes], list[int]]:
        """The record, the sections in order, and each tensor's error in half decibels of its energy."""
        sections = [self._scales_section()] if self.scale_levels else []
        streams: list[list[bytes]] = []
        steps: tuple[float, ...] = ()
        lattice = None
        if self.codes is not None:
            steps, heads, codes = self.codes.finish()
            left = self.planes.gather(self.codes.residual())
            squares = fit.plane_sums(self.planes, lambda part: np.square(left[part], dtype=np.float64))
            sections += heads
            streams.append(codes)
        if self.lattice is not None:
            lattice, heads, symbols, squares = self.lattice.finish()
            sections += heads
            streams.append(symbols)
        if self.masks is not None:
            streams.append(self.masks.sections(self.planes))
        for chunk in zip(*streams, strict=True):
            sections += chunk
        m, k = self.spec.codebooks or (0, 0)
        kind = self._kind
        survivors = None if self.masks is None else self.masks.survivors
        record = GroupRecord(self.spec.tensors, self.spec.dim, m, k, steps, kind, lattice, survivors)
        sums = np.bincount(self.planes.table[:, 2], weights=squares, minlength=len(self.planes.shapes))
        errors, energy = np.asarray(sums, dtype=np.float64), self.energy
        if kind == 2:  # rows weigh differently: only decoding tells the error of a tensor as a whole
            errors, energy = self._decoded_errors(record, sections)
        return record, sections, [measures.half_decibels(e, s) for e, s in zip(errors, energy, strict=True)]

    def _decoded_errors(self, record: GroupRecord, sections: list[bytes]) -> tuple[NDArray[np.float64], list[float]]:
        """Squared error and energy of each tensor, from the sections as a reader sees them."""
        reader = GroupReader(record, self.spec.shapes, sections.__getitem__)
        errors, energy = np.zeros(len(self.tensors)), [0.0] * len(self.tensors)
        for t, values in reader.decode(range(len(self.tensors))):
            original = self.tensors[t]()
            errors[t], energy[t] = measures.energy(original - values), measures.energy(original)
        return errors, energy


_HOLD = 16.0
"""Weight of the error of a vector that is to keep its symbols."""


def _held(
    cut: list[NDArray[np.float32]], now: list[NDArray[np.float32]], share: float
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    """Vectors, those nearest to what they are coded as put exactly there; weights [rows, cols, 1] that hold them."""
    drift = [np.square(v - d).sum(axis=-1, keepdims=True) for v, d in zip(cut, now, strict=True)]
    limit = np.quantile(np.concatenate([d.reshape(-1) for d in drift]), 1 - share)
    held = [d <= limit for d in drift]
    values = [np.where(h, d, v) for h, d, v in zip(held, now, cut, strict=True)]
    return values, [np.where(h, np.float32(_HOLD), np.float32(1)) for h in held]
