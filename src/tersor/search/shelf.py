"""The files of a search: the best archive so far, and beside it the record of every trial, as soon as it is judged.

Beside OUT lie OUT.search.json (the record) and OUT.search.svg (its chart). While a better archive is being written
there is OUT.search.tersor too: the archive goes there first, then the record, then OUT, so that whatever interrupts,
the record speaks of a file that is there.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec

from tersor.checkpoint.fingerprint import differences, of_bytes
from tersor.errors import TersorError
from tersor.files import atomic_output
from tersor.search.curve import draw
from tersor.search.journal import Journal
from tersor.search.trial import Trial, leader

_ANEW = "force=True (--force) without resume begins anew"


class Shelf:
    """The files of one search."""

    def __init__(self, out: str | os.PathLike[str]) -> None:
        """At `out`, and beside it."""
        self.out = os.fspath(out)
        self.record = f"{self.out}.search.json"
        self.chart = f"{self.out}.search.svg"
        self.pending = f"{self.out}.search.tersor"

    def check(self, *, resume: bool, force: bool) -> None:
        """Fail before the work, not after it.

        Raises:
            TersorError: the folder is missing, or files are there that neither `resume` nor `force` speak for.
        """
        folder = os.path.dirname(os.path.abspath(self.out))
        if not os.path.isdir(folder):
            raise TersorError(f"{folder} does not exist; make it or give another path")
        if os.path.isdir(self.out):
            raise TersorError(f"{self.out} is a folder; give the name of a file in it")
        if force or (resume and os.path.exists(self.record)):
            return
        for path in (self.out, self.record):
            if os.path.lexists(path):
                how = "resume=True (--resume) goes on with a search, force=True (--force) begins anew"
                raise TersorError(f"{path} exists; {how}")

    def resume(self, settings: dict[str, Any], max_drop: float, baseline: float | None) -> Journal | None:
        """The record of before, or None where there is none.

        Raises:
            TersorError: it is damaged, was made with other settings, or the file it speaks of is gone or another.
        """
        if not os.path.exists(self.record):
            return None
        try:
            with open(self.record, "rb") as file:
                journal = msgspec.json.decode(file.read(), type=Journal)
        except (OSError, msgspec.MsgspecError) as error:
            raise TersorError(f"{self.record}: not the record of a search ({error}); {_ANEW}") from error
        before = {**journal.settings, "max_drop": journal.max_drop}
        now = {**msgspec.json.decode(msgspec.json.encode(settings)), "max_drop": max_drop}
        if baseline is not None:
            before, now = {**before, "baseline": journal.baseline}, {**now, "baseline": baseline}
        if told := differences(before, now):
            raise TersorError(f"{self.record}: cannot go on with other settings: {'; '.join(told)}; {_ANEW}")
        self._settle(leader(journal.trials))
        return journal

    def _settle(self, best: Trial | None) -> None:
        """Finish what was interrupted while a better archive was being written."""
        if os.path.exists(self.pending):
            data = _read(self.pending)
            if best is not None and of_bytes(data) == best.digest:
                self._write(self.out, data)
            os.unlink(self.pending)
        if best is not None and not (os.path.exists(self.out) and of_bytes(_read(self.out)) == best.digest):
            raise TersorError(f"{self.out} is not the file that {self.record} speaks of; put that back, or {_ANEW}")

    def clear(self) -> None:
        """Forget an earlier search; OUT itself stays until there is a better one."""
        for path in (self.record, self.chart, self.pending):
            if os.path.lexists(path):
                os.unlink(path)

    def keep(self, journal: Journal, archive: bytes | None = None) -> None:
        """Write the record, the chart, and the archive where it is the best so far."""
        if archive is not None:
            self._write(self.pending, archive)
        self._write(self.record, journal.to_json())
        if archive is not None:
            self._write(self.out, archive)
            os.unlink(self.pending)
        self._write(self.chart, draw(journal.trials, journal.baseline, journal.max_drop).encode())

    @staticmethod
    def _write(path: str, data: bytes) -> None:
        with atomic_output(path, force=True) as file:
            file.write(data)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise TersorError(f"{path}: cannot be read ({error.strerror or error}); {_ANEW}") from error
