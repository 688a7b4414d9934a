"""`tersor tune`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from calls import run

import tersor

CALL = ("tune", "in.tersor", "out.tersor", "--model", "nets:small", "--steps", 20, "--data")


@pytest.fixture
def archive(nets: Path) -> Path:
    assert run("compress", "nets:small", "in.tersor", "--ratio", 8, "--effort", "draft", "--json") == 0
    return nets / "in.tersor"


@pytest.mark.parametrize("options", [[], ["--fixed"]])
def test_tunes_and_keeps_the_size(options: list[str], archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(*CALL, "nets:batches", "--evaluate", "nets:closeness", *options, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    out = tersor.open("out.tersor")
    assert out.verify() is None and out.size == told["size"] <= 1.02 * archive.stat().st_size
    assert (told["steps"], told["failed"], told["stopped"]) == (20, False, None)
    assert told["score"] > told["score_before"] - 1  # codes that move take longer to be ahead
    assert told["score"] > told["score_before"] or not options
    from nets import closeness, small  # type: ignore[import-not-found]

    assert closeness(out.apply_(small())) == pytest.approx(told["score"], abs=1e-3)
    assert closeness(tersor.open(archive).apply_(small())) == told["score_before"]


def test_text_tells_bytes_and_scores(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(*CALL, "nets:batches", "--fixed", "--evaluate", "nets:closeness") == 0
    out = capsys.readouterr()
    size = (archive.parent / "out.tersor").stat().st_size
    assert f"out.tersor: {archive.stat().st_size:,} B -> {size:,} B, loss " in out.out and " -> 9" in out.out
    assert out.err == "", "quiet when not a terminal"


def test_the_plan_is_told_on_a_terminal(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr("tersor.cli.tune.note", lines.append)
    assert run(*CALL, "nets:batches") == 0
    assert lines == [
        f"in.tersor: {archive.stat().st_size:,} B, 2 tensors coded, 2 kept",
        "  trained: all weights, and their codes move; 3,360 numbers, 20 steps",
    ]


def test_all_options_reach_the_loop(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    options = "--labelled --label-weight 0.5 --temperature 3 --features 0 1 --feature-weight 2 --share 0.5 --every 2"
    files = "--held-out nets:labelled --checkpoint run.pt"
    more = "--lr 0.001 --precision bf16 --seed 3"
    assert run(*CALL, "nets:labelled", *f"{options} {files} {more}".split(), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["held_out"] > 0 and (archive.parent / "run.pt").exists()


def test_the_same_seed_gives_the_same_file(archive: Path) -> None:
    files = []
    for _ in range(2):
        assert run(*CALL, "nets:batches", "--force", "--json") == 0
        files.append((archive.parent / "out.tersor").read_bytes())
    assert files[0] == files[1]


def test_an_interrupt_leaves_the_checkpoint_and_resume_goes_on(
    archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*CALL, "nets:interrupted", "--fixed", "--steps", 5) == 130
    assert "nothing written" in capsys.readouterr().err
    assert run(*CALL, "nets:interrupted", "--fixed", "--steps", 5, "--checkpoint", "run.pt") == 130
    assert "--resume" in capsys.readouterr().err and not (archive.parent / "out.tersor").exists()
    assert run(*CALL, "nets:batches", "--fixed", "--steps", 5, "--checkpoint", "run.pt", "--resume") == 0
    assert tersor.open("out.tersor").verify() is None


def test_a_loss_that_breaks_down_keeps_the_best_state(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(*CALL, "nets:not_a_number", "--fixed", "--json") == 1
    out = capsys.readouterr()
    told = json.loads(out.out)
    assert told["failed"] and "NaN" in told["stopped"]
    assert "NaN" in out.err and "out.tersor" in out.err and out.err.count("\n") == 1
    assert tersor.open("out.tersor").verify() is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nets:missing"], "missing"),
        (["nets:nothing"], "no batches"),
        (["nets:broken"], "nets:small on nets:broken raised ValueError: no images here"),
        (["nets:misshapen"], "raised RuntimeError"),
        (["nets:batches", "--labelled"], "labels"),
        (["nets:labelled"], "labelled"),
        (["nets:batches", "--steps", "0"], "steps"),
        (["nets:batches", "--features", "9"], "9"),
        (["nets:batches", "--evaluate", "nets:nan"], "evaluate returned nan"),
        (["nets:batches", "--evaluate", "nets:broken"], "evaluate raised ValueError: no images here"),
        (["nets:batches", "--model", "nets:wide"], "does not fit"),
        (["nets:batches", "--model", "nets:state"], "return the network"),
        (["nets:batches", "--importance", "none.safetensors"], "none.safetensors"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], told: str, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(*CALL, *arguments) == 1
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1 and err.startswith("tersor: ")
    assert not (archive.parent / "out.tersor").exists()


def test_files_are_checked_first(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (archive.parent / "out.tersor").write_text("precious")
    assert run(*CALL, "nets:nothing") == 1
    assert "--force" in capsys.readouterr().err
    assert run("tune", "in.tersor", "in.tersor", *CALL[3:], "nets:batches", "--force") == 1
    assert "the input itself" in capsys.readouterr().err
    assert run("tune", "none.tersor", "new.tersor", *CALL[3:], "nets:batches") == 1
    assert "none.tersor" in capsys.readouterr().err
    assert run(*CALL, "nets:batches", "--force", "--resume") == 2
    assert "--checkpoint" in capsys.readouterr().err
