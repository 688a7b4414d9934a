"""The section of a search: the rate-accuracy curve, where there is a record beside the file."""

from __future__ import annotations

import os
from dataclasses import dataclass

import msgspec

from tersor.archive import Archive
from tersor.checkpoint.fingerprint import of_bytes
from tersor.errors import TersorError
from tersor.report import curve, words
from tersor.report.html import Html, join, tag
from tersor.report.parts import section, table
from tersor.search.journal import Journal
from tersor.search.shelf import Shelf
from tersor.search.trial import Trial, leader

_KEY = "Filled: within the drop. Hollow: too much lost; an arrow where the score is far below. Ring: the best."


@dataclass(frozen=True)
class Record:
    """The record of a search beside an archive: its file's name, what is in it, and whether the archive is its best."""

    name: str
    journal: Journal
    is_best: bool


def record_of(archive: Archive) -> Record | None:
    """The record of the search that made an archive, or None where none lies beside it.

    Raises:
        TersorError: it is no record of a search.
    """
    path = Shelf(archive.name).record
    if not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as file:
            journal = msgspec.json.decode(file.read(), type=Journal)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise TersorError(f"{path}: not the record of a search ({error}); move it away, or put it right") from error
    best = leader(journal.trials)
    is_best = best is not None and best.digest == of_bytes(archive.to_bytes())
    return Record(os.path.basename(path), journal, is_best)


def trials(record: Record | None, file: str) -> Html:
    """The section."""
    head = "Rate and accuracy"
    if record is None:
        missing = f"No search was run: there is no {file}.search.json beside the file. "
        return section("curve", head, join([missing, tag("code", "tersor search"), " makes one."]))
    journal = record.journal
    files = [t for t in journal.trials if t.bytes is not None and t.score is not None]
    if not files:
        return section("curve", head, f"{record.name} records no file yet: there is no curve to show.")
    best = leader(journal.trials)
    told = _told(record, best)
    rows = [_row(t, t is best) for t in sorted(files, key=lambda t: t.bytes or 0)]
    heads = ("Bytes", "Ratio", "Score", "Drop", "Verdict")
    plot = tag("figure", curve.draw(journal.trials, journal.baseline, journal.max_drop),
               tag("figcaption", _KEY))  # fmt: skip
    return section(
        "curve", head, told, tag("div", plot, table(heads, rows, "All files tried", numbers=(1, 2, 3)), class_="pair")
    )


def _told(record: Record, best: Trial | None) -> str:
    journal = record.journal
    tried = words.count(len(journal.trials), "ratio")
    failed = sum(t.bytes is None for t in journal.trials)
    gone = f" ({failed} could not be met)" if failed else ""
    told = f"{tried} tried{gone}, with a drop of {journal.max_drop:.4g} from {journal.baseline:.6g} allowed."
    if best is not None and best.bytes is not None and best.score is not None:
        what = "smallest within it" if best.feasible else "nearest"
        told += f" The {what} has {words.size(best.bytes)} and scores {best.score:.6g}."
    if not record.is_best:
        told += f" This file is not the best that {record.name} speaks of: it was changed since, or is another."
    return told


def _row(trial: Trial, best: bool) -> list[object]:
    verdict = ("best" if trial.feasible else "nearest") if best else "within" if trial.feasible else "too much"
    drop = "" if trial.drop is None else f"{trial.drop:.4g}".replace("-", "−")
    ratio = "" if trial.ratio is None else words.times(trial.ratio)
    return [f"{trial.bytes:,}", ratio, f"{trial.score:.6g}", drop, tag("strong", verdict) if best else verdict]
