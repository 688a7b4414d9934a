"""What the commands share."""

from __future__ import annotations

import io
import json
import sys

import pytest

from tersor.cli import shared
from tersor.errors import TersorError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal in place of stderr, from now on."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return stream


def test_progress_shows_stages_and_details_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    with shared.progress() as show:
        show("tuning", 1, 10, "loss 0.5")
        show("tuning", 10, 10, "loss 0.25")
        show("tuning", 1, 10, "loss 0.75")  # the next candidate
        show("coding", 1, 2)
    assert "tuning" in screen.getvalue() and "coding" in screen.getvalue()
    assert "loss 0.75" in screen.getvalue()


def test_silence_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    with shared.progress() as show:
        show("tuning", 1, 10, "loss 0.5")
    shared.note("a line")
    assert capsys.readouterr() == ("", "")


def test_notes_go_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    shared.note("a line")
    assert screen.getvalue() == "a line\n"


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    shared.print_json({"a": float("nan"), "b": 1.5, "c": float("-inf"), "d": "x"})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": 1.5, "c": None, "d": "x"}


def test_durations() -> None:
    assert [shared.duration(s) for s in (5.4, 89.0, 600.0)] == ["5 s", "89 s", "10 min"]


def test_faults_of_tersor_keep_their_traceback() -> None:
    with pytest.raises(TypeError), shared.faults_of("nets:batches"):
        shared.duration("x")  # type: ignore[arg-type]


def test_faults_of_the_user_are_one_line() -> None:
    with pytest.raises(TersorError, match=r"nets:batches raised KeyError: 'a' \(.*test_cli_shared"):  # noqa: SIM117
        with shared.faults_of("nets:batches"):
            {}["a"]
    with pytest.raises(MemoryError), shared.faults_of("nets:batches"):
        raise MemoryError
