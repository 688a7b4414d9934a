"""What a search tried and found: plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tersor.archive import Archive


@dataclass(frozen=True)
class Trial:
    """One candidate and its judgement.

    Attributes:
        asked: the compression ratio asked for.
        bytes: of the file; None where no file can meet the ratio (`note` says why), and so for all that follows.
        ratio: bytes of all tensors over bytes of the file, as it came out.
        score: what `evaluate` said.
        drop: baseline minus score, in the unit of the scores.
        feasible: whether the drop is within what is allowed.
        seconds: spent on making and judging it.
        digest: of the file, to know it again.
        note: why there is no file.
    """

    asked: float
    bytes: int | None
    ratio: float | None
    score: float | None
    drop: float | None
    feasible: bool
    seconds: float
    digest: str = ""
    note: str = ""


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        archive: the file at `path`, open.
        path: where it is.
        met: whether it is within the drop allowed; if not, it is the nearest, of the highest score.
        score: the archive's.
        baseline: the original network's score.
        trials: all of them, in order; those of the runs that were resumed too.
    """

    archive: Archive
    path: str
    met: bool
    score: float
    baseline: float
    trials: tuple[Trial, ...]


def leader(trials: Sequence[Trial]) -> Trial | None:
    """The smallest feasible trial, of the better score where two are alike; while there is none, the nearest.

    The nearest has the highest score, and the fewer bytes where two are alike. None if no trial gave a file.
    """
    files = [(t.bytes, t.score, t) for t in trials if t.bytes is not None and t.score is not None]
    feasible = [file for file in files if file[2].feasible]
    if feasible:
        return min(feasible, key=lambda file: (file[0], -file[1]))[2]
    return min(files, key=lambda file: (-file[1], file[0]))[2] if files else None


def is_feasible(score: float, baseline: float, max_drop: float) -> bool:
    """Whether the drop is within what is allowed, up to rounding: 90.01 - 89.71 is not more than 0.3."""
    return baseline - score <= max_drop + 1e-9 * max(1.0, abs(baseline))
