"""The error of each coded tensor: measured where the dense tensors are at hand, else as the index tells it."""

from __future__ import annotations

from dataclasses import dataclass

from tersor.report.against import Measured
from tersor.report.facts import Facts
from tersor.report.words import to_decibels


@dataclass(frozen=True)
class Errors:
    """Relative squared errors, error over energy, by position of the tensor; 0 is exact.

    Attributes:
        ratios: of coded tensors of which one is known.
        unknown: coded tensors of which none is known.
        overall: of all coded tensors that were measured together; None where only the index speaks.
    """

    ratios: dict[int, float]
    unknown: tuple[int, ...]
    overall: float | None

    @property
    def worst(self) -> int | None:
        """The tensor of the largest error."""
        return max(self.ratios, key=lambda i: (self.ratios[i], -i)) if self.ratios else None

    def median(self, facts: Facts) -> float:
        """The error that half of the coded weights are below, by tensors."""
        order = sorted((ratio, facts.tensors[i].numel) for i, ratio in self.ratios.items())
        half, passed = sum(n for _, n in order) / 2, 0
        for ratio, numel in order:
            passed += numel
            if passed >= half:
                return ratio
        return 0.0

    @property
    def worst_db(self) -> float:
        """The largest error in decibels."""
        return to_decibels(self.ratios[self.worst]) if self.worst is not None else 0.0


def errors_of(facts: Facts, measured: Measured | None) -> Errors:
    """Errors of coded tensors.

    The index says nothing of tensors that came back exactly and of those that tuning moved; both are unknown here.
    """
    coded = [i for i, t in enumerate(facts.tensors) if t.kind == "coded"]
    if measured is not None:
        found = {i: measured.ratios[facts.tensors[i].name] for i in coded if facts.tensors[i].name in measured.ratios}
        overall = measured.error / measured.energy if measured.energy else 0.0
    else:
        told = {i: facts.tensors[i].error_db for i in coded}
        found, overall = {i: 10 ** (db / 10) for i, db in told.items() if db is not None}, None
    return Errors(found, tuple(i for i in coded if i not in found), overall)
