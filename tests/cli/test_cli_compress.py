"""`tersor compress`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from calls import run
from safetensors.torch import save_file

import tersor
from networks import network


def test_json_is_one_object(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, back = tmp_path / "net.tersor", tmp_path / "back.safetensors"
    assert run("compress", checkpoint, small, "--bpp", 6, "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["size"] == small.stat().st_size and made["bits_per_parameter"] <= 6
    assert made["kept"] and made["groups"] and "coded" in made["coverage"]
    for command in (["inspect", small], ["verify", small], ["decompress", small, back]):
        assert run(*command, "--json") == 0
        assert isinstance(json.loads(capsys.readouterr().out), dict)


def test_dry_run_writes_nothing(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = tmp_path / "net.tersor"
    assert run("compress", checkpoint, small, "--size", "4kB", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "predicted size 4,000 B" in out and "nothing written" in out and not small.exists()
    assert run("compress", checkpoint, small, "--size", "4kB", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["predicted_size"] == 4000


def test_recipe_file_and_overrides(checkpoint: Path, tmp_path: Path) -> None:
    recipe, out = tmp_path / "r.toml", tmp_path / "out.tersor"
    recipe.write_text('bpp = 6.0\neffort = "draft"\nkeep = "bf16"\nexclude = ["fc.*"]\n')
    assert run("compress", checkpoint, out, "--recipe", recipe, "--ratio", 3) == 0
    stored = tersor.open(out).recipe
    assert (stored.ratio, stored.bpp, stored.effort, stored.keep, stored.exclude) == (
        3,
        None,
        "draft",
        "bf16",
        ("fc.*",),
    )


def test_importance_file(checkpoint: Path, tmp_path: Path) -> None:
    weights = {"fc.weight": torch.full((16, 64), 100.0), "conv.weight": torch.ones(16, 16, 3, 3)}
    save_file(weights, tmp_path / "w.safetensors")
    plain, weighted = tmp_path / "a.tersor", tmp_path / "b.tersor"
    assert run("compress", checkpoint, plain, "--bpp", 6) == 0
    assert run("compress", checkpoint, weighted, "--bpp", 6, "--importance", tmp_path / "w.safetensors") == 0
    truth = network()["fc.weight"]
    errors = [(tersor.open(p)["fc.weight"] - truth).square().sum().item() for p in (plain, weighted)]
    assert errors[1] < 0.5 * errors[0]


def test_a_function_instead_of_a_file(nets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for source in ("nets:small", "nets:state", f"{nets}/nets.py:small"):
        assert run("compress", source, "out.tersor", "--ratio", 4, "--force", "--json") == 0
        assert json.loads(capsys.readouterr().out)["parameters"] == 3_360
    assert run("compress", "nets:small", "out.tersor", "--ratio", 4, "--dry-run") == 0
    assert "Net: 13" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("nets:missing", "missing"),
        ("nowhere:small", "nowhere"),
        ("nets:broken", "nets:broken raised ValueError: no images here"),
        ("nets:nothing", "list is no checkpoint"),
        ("nets:closeness", "closeness() missing 1 required positional argument"),
    ],
)
def test_functions_that_give_no_network(source: str, told: str, nets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compress", source, "out.tersor", "--ratio", 4) == 1
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1 and err.startswith("tersor: ")
    assert not (nets / "out.tersor").exists()


def test_a_file_whose_name_has_a_colon(tmp_path: Path) -> None:
    save_file(network(), tmp_path / "a:b.safetensors")
    assert run("compress", tmp_path / "a:b.safetensors", tmp_path / "out.tersor", "--ratio", 4) == 0


def test_importance_must_fit(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"other": torch.ones(3)}, tmp_path / "w.safetensors")
    out = tmp_path / "a.tersor"
    assert run("compress", checkpoint, out, "--bpp", 6, "--importance", tmp_path / "w.safetensors") == 1
    assert "other" in capsys.readouterr().err and not out.exists()
