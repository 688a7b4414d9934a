"""Rate control while codes move: one step for all groups, steered so that the file stays within its recipe's target."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from msgspec.structs import replace

from tersor.archive import Archive
from tersor.assemble import assemble
from tersor.encode import ROUNDS
from tersor.errors import TargetError, TersorError
from tersor.recipe import Recipe
from tersor.representations.control import NEAR, Unreachable, meet
from tersor.representations.group import GroupSpec
from tersor.tune.moving import MovingGroup
from tersor.tune.rewrite import NO_ERROR, kept_sections
from tersor.values import importance_of

_SLOPE = 0.8
"""Bits per weight that a file loses when the step doubles; as in `control.meet`, before it is measured."""

_DAMPING, _MOST = 0.25, 0.05  # of a correction, and octaves that the step may move at once

REFRESH = 10
"""Choices of codes between corrections of step and tables: with each, codes near a decision change that need not."""

_COARSE = 64  # times the largest magnitude: a step at which everything is zero, in any basis of up to 256 vectors
_FAR = 2.0**30  # times as large as weights are to begin with; squares of much larger numbers of steps leave float32
_STEEP = 2.0  # bits per weight and octave where latents were trained: many lie near a decision
_REFINEMENTS, _TRIALS = 6, 40  # attempts to fill the file, and to stay within it
_SLACK = (32, 0.03)  # bytes, and share of the kept tensors' bytes, by which they may grow in tuning


class Steering:
    """The moving groups of an archive and the step they share.

    Args:
        archive: says what is coded how; its recipe says how large the file may be (or as large as it is, if larger).
        original: tensors by name; where the latents start.
        importance: as for `compress`.

    Attributes:
        groups: a `MovingGroup` for each group of the archive.
        step: of the next choice.
    """

    def __init__(
        self, archive: Archive, original: Mapping[str, torch.Tensor], importance: Mapping[str, torch.Tensor] | None
    ) -> None:
        index, recipe = archive.index, archive.recipe
        self.archive = archive
        self._limit = self.budget = max(archive.size, recipe.budget(*archive.given))
        coded = {index.names[i]: index.shapes[i] for record in index.groups for i in record.tensors}
        owner = {name: index.names[index.ties.get(i, i)] for i, name in enumerate(index.names)}
        weights = None if importance is None else importance_of(coded, owner, importance)
        self.groups = []
        for g in range(len(index.groups)):
            names = [index.names[i] for i in index.groups[g].tensors]
            given = None if weights is None else [weights.get(name) for name in names]
            self.groups.append(MovingGroup(_spec(archive, g, recipe), _alive(archive, g, original), given))
        self._rounds = ROUNDS[recipe.effort]
        sections = sum(archive.sections.bytes_of(g) for g in range(len(index.groups)))
        self._rest = archive.size - sections
        kept = sum(archive.index.lengths) - sections
        self.budget -= min(_SLACK[0] + int(_SLACK[1] * kept), self.budget // 50)  # kept tensors are still to be tuned
        self._weights = sum(group.coder.weights for group in self.groups)
        self.step = self._finest = self._coarsest = 0.0
        self._size, self._calls = 0.0, 0

    def begin(self) -> None:
        """Find the step at which the latents, as they are, fill the file."""
        target = max(self.budget - self._rest, 1.0)
        coders = [group.coder for group in self.groups]
        finest, coarsest = max(c.finest for c in coders), max(c.coarsest for c in coders)
        lattices = [r.lattice.step for r in self.archive.index.groups if r.lattice is not None]
        spread = sum(c.spread * c.weights for c in coders) / self._weights
        first = lattices[0] if lattices else 2 * 2.0 ** (spread - 8 * target / self._weights)
        finest = max(finest, first / 64)
        self._finest, self._coarsest = finest, max(coarsest, finest)
        try:
            self.step = meet(
                lambda step: sum(c.at(step) for c in coders), target, self._weights, first=first, finest=finest,
                coarsest=self._coarsest, rounds=self._rounds,
            )  # fmt: skip
        except Unreachable as error:
            raise TargetError(
                f"{self.archive.name}: its {self.budget:,} B cannot hold this model's weights; "
                "give the model that it was made of"
            ) from error
        for group in self.groups:
            group.coder.settle()
            group.show()

    def choose(self, share: float) -> float:
        """Choose codes for the latents; returns predicted bytes, as of the last time that they were measured.

        Every `REFRESH` calls, the first one included, tables follow the codes and the step is corrected; in between
        both stay.
        """
        self._check()
        fresh = self._calls % REFRESH == 0
        self._calls += 1
        if fresh:
            self._size = self._rest + sum(group.choose(self.step, share) for group in self.groups)
            octaves = 8 * (self._size - self.budget * (1 + NEAR) / 2) / self._weights / _SLOPE
            step = self.step * 2 ** max(-_MOST, min(_MOST, _DAMPING * octaves))
            self.step = min(max(step, self._finest), self._coarsest)  # sizes of codebooks alone may never be met
        else:
            for group in self.groups:
                group.follow(self.step, share)
        for group in self.groups:
            group.show()
        return self._size

    def sound(self) -> bool:
        """Whether every latent is a number, and not absurdly far from where latents began."""
        return self._peak() <= _FAR * self._coarsest

    def _peak(self) -> float:
        """The largest magnitude of a latent; NaN if one is."""
        return float(torch.stack([latent.detach().abs().max() for g in self.groups for latent in g.latents]).max())

    def _check(self) -> None:
        if not self.sound():
            raise TersorError("a latent weight has become NaN, infinite or absurdly large; lower the learning rate")

    def resume(self, step: float) -> None:
        """Go on at this step, with tables that follow the next choice: latents are others than they were."""
        self.step, self._calls = step, 0

    def settle(self, kept: Mapping[int, torch.Tensor]) -> Archive:
        """An archive of codes for the latents as they are, within the budget and near it.

        Raises:
            TersorError: a latent is NaN or infinite.
        """
        self._check()
        rest, octaves, best = kept_sections(self.archive.index, kept), 0.0, b""
        coarsest = max(self.step, _COARSE * self._peak())
        least: bytes | None = None
        low: float | None = None  # octaves that are too fine, and that fit
        high: float | None = None
        for trial in range(_TRIALS):
            for group in self.groups:
                group.choose(min(self.step * 2**octaves, coarsest))
            made = [group.coder.finish() for group in self.groups]
            index = replace(
                self.archive.index,
                groups=tuple(record for record, _, _ in made),
                errors=tuple(NO_ERROR for _ in self.archive.index.errors),
            )
            data = assemble(index, [s for _, sections, _ in made for s in sections] + rest)
            least = data if least is None or len(data) < len(least) else least
            if len(best) < len(data) <= self.budget:
                best = data
            if best and (trial >= _REFINEMENTS or len(best) >= NEAR * self.budget):
                return Archive(best)
            fits = len(data) <= self.budget
            low, high = (low, octaves) if fits else (octaves, high)
            aim = 8 * (len(data) - (1 + NEAR) / 2 * self.budget) / self._weights / _STEEP
            extra = 0.0 if fits else max(0.001 * trial, 0.0001 * 1.4**trial)
            octaves = octaves + aim + extra if low is None or high is None else (low + high) / 2
        assert least is not None
        if len(least) <= self._limit:  # with nothing set aside for kept tensors
            return Archive(least)
        raise TersorError(
            f"{len(least):,} B are more than the {self._limit:,} B that the file may have, however coarse its codes: "
            f"kept tensors take {sum(map(len, rest)):,} B by now; start from a larger file"
        )


def _spec(archive: Archive, g: int, recipe: Recipe) -> GroupSpec:
    """What a group of an archive is made of."""
    record = archive.index.groups[g]
    codebooks = (record.num_codebooks, record.codebook_size) if record.num_codebooks else None
    return GroupSpec(
        record.tensors, tuple(archive.index.shapes[i] for i in record.tensors), record.dim, codebooks,
        record.lattice is not None, recipe.scales, recipe.effort, recipe.seed, record.survivors is not None,
    )  # fmt: skip


def _alive(archive: Archive, g: int, original: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """Where a group's latents start: the original's values, zero wherever a mask of the archive says so."""
    values = [original[archive.index.names[i]] for i in archive.index.groups[g].tensors]
    if archive.index.groups[g].survivors is None:
        return values
    masks = archive.group(g).masks or []
    return [v * torch.from_numpy(mask).to(v.device) for v, mask in zip(values, masks, strict=True)]
