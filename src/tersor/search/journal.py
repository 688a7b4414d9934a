"""The record of a search: its settings and every trial judged so far, as JSON."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec

from tersor.search.trial import Trial, leader


@dataclass(frozen=True)
class Journal:
    """What is known so far.

    Attributes:
        settings: what the scores depend on; a resumed search must have the same.
        max_drop, baseline: of the scores; a trial is feasible down to baseline - max_drop.
        trials: in order.
    """

    settings: dict[str, Any]
    max_drop: float
    baseline: float
    trials: tuple[Trial, ...] = ()

    def plus(self, trial: Trial) -> Journal:
        """With one more trial."""
        return replace(self, trials=(*self.trials, trial))

    def to_json(self) -> bytes:
        """For the file: what it holds, and for its readers which trial is the best and whether it meets the target."""
        best = leader(self.trials)
        told = {
            "baseline": self.baseline,
            "max_drop": self.max_drop,
            "met": best is not None and best.feasible,
            "best": None if best is None else self.trials.index(best),
            "trials": self.trials,
            "settings": self.settings,
        }
        return msgspec.json.format(msgspec.json.encode(told), indent=1) + b"\n"
