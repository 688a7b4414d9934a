"""`tersor search`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from calls import run

import tersor

CALL = ("search", "best.tersor", "--model", "nets:small", "--evaluate", "nets:closeness", "--effort", "draft")


def test_finds_a_file_within_the_drop(nets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*CALL, "--max-drop", 5, "--trials", 6) == 0
    out = capsys.readouterr()
    size = (nets / "best.tersor").stat().st_size
    assert f"best.tersor: {size:,} B" in out.out and "6 trials" in out.out and "(within)" in out.out
    assert out.err == "", "quiet when not a terminal"
    from nets import closeness, small  # type: ignore[import-not-found]

    assert closeness(tersor.open("best.tersor").apply_(small())) >= 95
    assert {p.name for p in nets.glob("best*")} == {
        "best.tersor",
        "best.tersor.search.json",
        "best.tersor.search.svg",
    }


def test_json_is_one_object(nets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*CALL, "--max-drop", 5, "--trials", 3, "--baseline", 100, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["met"] and told["size"] == (nets / "best.tersor").stat().st_size and len(told["trials"]) == 3
    assert told["drop"] == pytest.approx(100 - told["score"]) and told["baseline"] == 100


def test_a_target_that_cannot_be_met_keeps_the_nearest(nets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = (*CALL, "--max-drop", 0, "--ratios", 10, 20, "--json")
    assert run(*call) == 1
    out = capsys.readouterr()
    told = json.loads(out.out)
    assert not told["met"] and told["size"] == tersor.open("best.tersor").size
    assert out.err.count("\n") == 1 and "the nearest" in out.err and "best.tersor" in out.err


def test_tunes_every_candidate(nets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = (*CALL, "--max-drop", 5, "--trials", 2, "--json")
    assert run(*call) in (0, 1)
    plain = json.loads(capsys.readouterr().out)["trials"]
    for options in ((), ("--fixed", "--lr", 0.001)):
        tuning = ("--data", "nets:batches", "--steps", 20, *options, "--force")
        assert run(*call, *tuning) in (0, 1)
        tuned = json.loads(capsys.readouterr().out)["trials"]
        assert tuned[0]["digest"] != plain[0]["digest"] and tuned[0]["asked"] == plain[0]["asked"]
    assert tuned[0]["score"] > plain[0]["score"]


def test_resume_goes_on_and_refuses_other_settings(nets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*CALL, "--max-drop", 5, "--trials", 2, "--json") in (0, 1)
    first = json.loads(capsys.readouterr().out)["trials"]
    assert run(*CALL, "--max-drop", 5, "--trials", 4, "--resume", "--json") in (0, 1)
    trials = json.loads(capsys.readouterr().out)["trials"]
    assert trials[:2] == first and len(trials) == 4
    for change, told in (
        (["--max-drop", "4"], "max_drop was 5.0 and is 4.0"),
        (["--max-drop", "5", "--effort", "best"], "recipe was"),
        (["--max-drop", "5", "--model", "nets.py:small"], "model function was"),
        (["--max-drop", "5", "--data", "nets:batches", "--steps", "3"], "steps was None and is 3"),
    ):
        assert run(*CALL, *change, "--resume") == 1
        err = capsys.readouterr().err
        assert told in err and err.count("\n") == 1


def test_an_interrupt_keeps_what_was_judged(
    nets: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import nets as module  # type: ignore[import-not-found]

    left, closeness = [3], module.closeness

    def stopping(model: object) -> float:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return float(closeness(model))

    monkeypatch.setattr(module, "closeness", stopping)
    assert run(*CALL, "--max-drop", 5) == 130
    err = capsys.readouterr().err
    assert "2 trials judged in this run are kept" in err and err.count("\n") == 1
    assert tersor.open("best.tersor").verify() is None
    monkeypatch.undo()
    assert len(json.loads((nets / "best.tersor.search.json").read_text())["trials"]) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--max-drop", "5", "--data", "nets:batches"], 2, "both --data and --steps"),
        (["--max-drop", "5", "--steps", "5"], 2, "both --data and --steps"),
        (["--max-drop", "5", "--label-weight", "0.5"], 2, "--label-weight says how to tune"),
        (["--max-drop", "5", "--fixed"], 2, "--fixed says how to tune"),
        ([], 2, "--max-drop"),
        (["--max-drop", "-1"], 1, "max_drop"),
        (["--max-drop", "5", "--ratios", "3", "2"], 1, "ratios"),
        (["--max-drop", "5", "--trials", "0"], 1, "trials"),
        (["--max-drop", "5", "--evaluate", "nets:missing"], 1, "missing"),
        (["--max-drop", "5", "--evaluate", "nets:nan"], 1, "the original model: evaluate returned nan"),
        (["--max-drop", "5", "--evaluate", "nets:broken", "--baseline", "1"], 1, "trial 1 (ratio 11.31): evaluate"),
        (["--max-drop", "5", "--model", "nets:state"], 1, "return the network"),
        (["--max-drop", "5", "--data", "nets:nothing", "--steps", "3"], 1, "no batches"),
        (["--max-drop", "5", "--data", "nets:broken", "--steps", "3"], 1, "tune raised ValueError: no images here"),
        (["--max-drop", "5", "--effort", "huge"], 1, "effort"),
        (["--max-drop", "5", "--recipe", "r.toml"], 1, "the search finds size itself"),
    ],
)
def test_bad_calls(arguments: list[str], code: int, told: str, nets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (nets / "r.toml").write_text('size = "4kB"\n')
    assert run(*CALL, *arguments) == code
    err = capsys.readouterr().err
    assert told in err and not (nets / "best.tersor").exists()
    if code == 1:
        assert err.count("\n") == 1 and err.startswith("tersor: ")
