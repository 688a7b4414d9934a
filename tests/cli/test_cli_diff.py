"""`tersor diff`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from calls import run
from safetensors.torch import load_file, save_file

import tersor
from networks import network


@pytest.fixture
def files(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, Path]:
    small = tmp_path / "net.tersor"
    assert run("compress", checkpoint, small, "--ratio", 4, "--effort", "draft") == 0
    capsys.readouterr()
    return checkpoint, small


def test_text(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("diff", *files) == 0
    out = capsys.readouterr()
    assert not out.err
    assert all(f"{path}: {path.stat().st_size:,} B, 7 tensors" in out.out for path in files)
    exact = load_file(files[0])["fc.weight"].numpy().astype(np.float64)
    error = tersor.open(files[1])["fc.weight"].numpy() - exact
    db = 10 * np.log10(np.square(error).sum() / np.square(exact).sum())
    line = next(line for line in out.out.splitlines() if line.startswith("fc.weight"))
    assert "16x64" in line and line.endswith(f"error {db:.1f} dB, largest difference {np.abs(error).max():.3g}")
    assert "fc.bias" not in out.out and "4 of 7 tensors equal bit for bit; all floats: error" in out.out
    assert run("diff", *files, "--all") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 7 + 1 and sum(line.endswith(" equal") for line in lines) == 4


def test_json_tells_of_all(files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zero = tmp_path / "zero.safetensors"
    save_file({name: torch.zeros_like(t) for name, t in network().items()}, zero)
    assert run("diff", zero, files[1], "--json") == 0
    found = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert found["b"]["size"] == files[1].stat().st_size and len(found["tensors"]) == 7
    assert found["error_db"] is None and found["tensors"][0]["error_db"] is None, "A is zero: no number"
    assert found["tensors"][0]["max_difference"] > 0 and found["outputs"] is None


def test_outputs(nets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compress", "nets:small", "a.tersor", "--ratio", 4, "--effort", "draft") == 0
    capsys.readouterr()
    model = ("--model", "nets:small", "--data", "nets:batches")
    assert run("diff", "nets:state", "a.tersor", *model, "--json") == 0
    found = json.loads(capsys.readouterr().out)["outputs"]
    assert found["batches"] == 4 and found["argmax"]["chosen"] == 32 and 0.5 < found["argmax"]["equal"] <= 1
    assert found["tensors"][0]["error_db"] < -10
    assert run("diff", "nets:small", "a.tersor", *model, "--batches", 2) == 0
    text = capsys.readouterr().out
    assert "output on 2 batches, 256 values: error -" in text and "same argmax in dimension 1: " in text
    assert run("diff", "a.tersor", "a.tersor", "--model", "nets:small", "--data", "nets:labelled", "--labelled") == 0
    assert "output on 4 batches, 512 values: equal" in capsys.readouterr().out


def test_whatever_differs_is_no_failure(nets: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("diff", checkpoint, "nets:wide") == 0
    assert "no name is in both" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none.tersor", "nets:small"], "none.tersor"),
        (["nets:small", "none.safetensors"], "does not exist"),
        (["nets:missing", "nets:small"], "missing"),
        (["nets:small", "nets:small", "--model", "nets:wide", "--data", "nets:batches"], "does not fit Sequential"),
        (["nets:small", "nets:small", "--model", "nets:small", "--data", "nets:nothing"], "no batches"),
        (["nets:small", "nets:small", "--model", "nets:small", "--data", "nets:misshapen"], "raised RuntimeError"),
        (["nets:small", "nets:small", "--model", "nets:state", "--data", "nets:batches"], "return the network"),
        (
            ["nets:small", "nets:small", "--model", "nets:small", "--data", "nets:batches", "--batches", "0"],
            "batches=0",
        ),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], told: str, nets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("diff", *arguments) == 1
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1 and err.startswith("tersor: ")


def test_a_model_without_data_is_wrong_usage(nets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("diff", "nets:small", "nets:small", "--model", "nets:small") == 2
    assert "both --model and --data" in capsys.readouterr().err
