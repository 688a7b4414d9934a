"""`tersor importance`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from calls import run
from safetensors.torch import load_file

import tersor

CALL = ("importance", "w.safetensors", "--model", "nets:small", "--data")


@pytest.mark.parametrize("kind", ["fisher", "activation"])
def test_measures_what_compress_takes(kind: str, nets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*CALL, "nets:batches", "--kind", kind, "--batches", 2) == 0
    out = capsys.readouterr()
    assert f"{kind} importance of" in out.out and "--importance w.safetensors" in out.out and not out.err
    found = load_file(nets / "w.safetensors")
    assert found["0.weight"].shape == (16, 16, 3, 3) and (found["0.weight"] >= 0).all()
    call = ("compress", "nets:small", "out.tersor", "--ratio", 4, "--importance", "w.safetensors")
    assert run(*call) == 0
    assert tersor.open("out.tersor").verify() is None


def test_labelled_data_and_json(nets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*CALL, "nets:labelled", "--labelled", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == "fisher" and "0.weight" in told["tensors"]
    assert told["size"] == (nets / "w.safetensors").stat().st_size


def test_the_same_seed_gives_the_same_file(nets: Path) -> None:
    files = []
    for seed in (1, 1, 2):
        assert run(*CALL, "nets:batches", "--seed", seed, "--force") == 0
        files.append((nets / "w.safetensors").read_bytes())
    assert files[0] == files[1] != files[2]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nets:missing"], "missing"),
        (["nowhere:batches"], "nowhere"),
        (["batches"], "does not name a function"),
        (["nets:nothing"], "no batches"),
        (["nets:broken"], "nets:small on nets:broken raised ValueError: no images here"),
        (["nets:misshapen"], "raised RuntimeError"),
        (["nets:labelled"], "labelled"),
        (["nets:batches", "--kind", "guess"], "guess"),
        (["nets:batches", "--batches", "0"], "batches"),
        (["nets:batches", "--model", "nets:state"], "return the network"),
        (["nets:batches", "--model", "nets:broken"], "no images here"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], told: str, nets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*CALL, *arguments) == 1
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1 and err.startswith("tersor: ")
    assert not (nets / "w.safetensors").exists()


def test_out_is_safetensors_and_not_overwritten(nets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("importance", "w.pt", "--model", "nets:small", "--data", "nets:batches") == 1
    assert ".safetensors" in capsys.readouterr().err
    (nets / "w.safetensors").write_text("precious")
    assert run(*CALL, "nets:batches") == 1
    assert "--force" in capsys.readouterr().err and (nets / "w.safetensors").read_text() == "precious"
