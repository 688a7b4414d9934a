"""The files of a search, whatever interrupts it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tersor.checkpoint.fingerprint import of_bytes
from tersor.errors import TersorError
from tersor.search.journal import Journal
from tersor.search.shelf import Shelf
from tersor.search.trial import Trial

SETTINGS = {"model": "abc", "recipe": {"exclude": ("a", "b")}, "steps": 3}


def trial(data: bytes, score: float, feasible: bool = True) -> Trial:
    return Trial(8.0, len(data), 2.0, score, 1.0, feasible, 0.5, of_bytes(data))


def kept(path: Path, *files: bytes) -> Journal:
    """A search whose trials gave these files, each better than the one before."""
    journal = Journal(SETTINGS, 0.5, 92.0)
    Shelf(path).keep(journal)
    for data in files:
        journal = journal.plus(trial(data, 91.9))
        Shelf(path).keep(journal, data)
    return journal


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    out = tmp_path / "a.tersor"
    journal = kept(out, b"longer", b"short")
    assert out.read_bytes() == b"short"
    assert {p.name for p in tmp_path.iterdir()} == {"a.tersor", "a.tersor.search.json", "a.tersor.search.svg"}
    back = Shelf(out).resume(SETTINGS, 0.5, None)
    assert back is not None and back.trials == journal.trials and back.baseline == 92.0
    told = json.loads((tmp_path / "a.tersor.search.json").read_text())
    assert (told["met"], told["best"], len(told["trials"])) == (True, 1, 2)


def test_resume_without_a_record_is_a_beginning(tmp_path: Path) -> None:
    assert Shelf(tmp_path / "a.tersor").resume(SETTINGS, 0.5, None) is None


@pytest.mark.parametrize("stop", ["a.tersor.search.tersor", "a.tersor.search.json", "a.tersor", "a.tersor.search.svg"])
@pytest.mark.parametrize("after", [False, True])
def test_an_interrupt_at_any_write(stop: str, after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "a.tersor"
    kept(out, b"longer")
    write = Shelf._write

    def interrupted(path: str, data: bytes) -> None:
        if os.path.basename(path) == stop and not after:
            raise KeyboardInterrupt
        write(path, data)
        if os.path.basename(path) == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(Shelf, "_write", staticmethod(interrupted))
    journal = Journal(SETTINGS, 0.5, 92.0, (trial(b"longer", 91.9), trial(b"short", 91.9)))
    with pytest.raises(KeyboardInterrupt):
        Shelf(out).keep(journal, b"short")
    monkeypatch.undo()
    back = Shelf(out).resume(SETTINGS, 0.5, None)
    assert back is not None
    best = b"short" if len(back.trials) == 2 else b"longer"
    assert out.read_bytes() == best and back.trials[-1].digest == of_bytes(best)
    assert not (tmp_path / "a.tersor.search.tersor").exists()


@pytest.mark.parametrize(
    ("settings", "max_drop", "baseline", "told"),
    [
        ({**SETTINGS, "model": "xyz"}, 0.5, None, "another model"),
        ({**SETTINGS, "steps": 4}, 0.5, None, "steps was 3 and is 4"),
        ({**SETTINGS, "recipe": {}}, 0.5, None, "recipe was {'exclude': ['a', 'b']} and is {}"),
        (SETTINGS, 1.0, None, "max_drop was 0.5 and is 1.0"),
        (SETTINGS, 0.5, 93.0, "baseline was 92.0 and is 93.0"),
    ],
)
def test_other_settings_are_refused(
    settings: dict[str, object], max_drop: float, baseline: float | None, told: str, tmp_path: Path
) -> None:
    kept(tmp_path / "a.tersor", b"data")
    with pytest.raises(TersorError) as caught:
        Shelf(tmp_path / "a.tersor").resume(settings, max_drop, baseline)
    assert told in str(caught.value) and "--force" in str(caught.value)


def test_the_same_baseline_is_no_difference(tmp_path: Path) -> None:
    kept(tmp_path / "a.tersor", b"data")
    assert Shelf(tmp_path / "a.tersor").resume(SETTINGS, 0.5, 92.0) is not None


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"trials": 3}', "\0"])
def test_a_damaged_record(damage: str, tmp_path: Path) -> None:
    kept(tmp_path / "a.tersor", b"data")
    (tmp_path / "a.tersor.search.json").write_text(damage)
    with pytest.raises(TersorError, match="not the record of a search"):
        Shelf(tmp_path / "a.tersor").resume(SETTINGS, 0.5, None)


def test_another_file_in_its_place(tmp_path: Path) -> None:
    out = tmp_path / "a.tersor"
    kept(out, b"data")
    out.write_bytes(b"other")
    with pytest.raises(TersorError, match="not the file that"):
        Shelf(out).resume(SETTINGS, 0.5, None)
    out.unlink()
    with pytest.raises(TersorError, match="not the file that"):
        Shelf(out).resume(SETTINGS, 0.5, None)


def test_files_in_the_way(tmp_path: Path) -> None:
    out = tmp_path / "a.tersor"
    Shelf(out).check(resume=False, force=False)
    out.write_bytes(b"precious")
    for resume in (False, True):
        with pytest.raises(TersorError, match="--force"):
            Shelf(out).check(resume=resume, force=False)
    Shelf(out).check(resume=False, force=True)
    kept(out, b"data")
    Shelf(out).check(resume=True, force=False)
    with pytest.raises(TersorError, match="exists"):
        Shelf(out).check(resume=False, force=False)
    with pytest.raises(TersorError, match="does not exist"):
        Shelf(tmp_path / "none" / "a.tersor").check(resume=False, force=False)
    with pytest.raises(TersorError, match="is a folder"):
        Shelf(tmp_path).check(resume=False, force=True)


def test_clear_forgets_the_record_and_leaves_the_archive(tmp_path: Path) -> None:
    kept(tmp_path / "a.tersor", b"data")
    Shelf(tmp_path / "a.tersor").clear()
    assert [p.name for p in tmp_path.iterdir()] == ["a.tersor"]
