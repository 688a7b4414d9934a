"""Passes on the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import tersor
from tersor.cli import main

NETS = """
import torch
from torch import nn

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).eval()

def batches():
    g = torch.Generator().manual_seed(0)
    for _ in range(2):
        yield torch.randn(16, 32, generator=g)
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "nets.py").write_text(NETS)
    sys.modules.pop("nets", None)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = 0
    try:
        main(arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_every_pass_tells_its_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(
        capsys, "compress", "nets:model", "x.tersor", "--ratio", "8", "--effort", "draft", "--data", "nets:batches",
        "--pass", "prune(sparsity=0.5, criterion=obd)", "--pass", "tune(steps=2)",
    )  # fmt: skip
    assert code == 0
    lines = out.splitlines()
    assert any(line.startswith("prune(sparsity=0.5") and " B -> " in line and "equal error" in line for line in lines)
    assert any(line.startswith("tune(steps=2") and " B -> " in line for line in lines)
    assert "of the original" in out
    assert tersor.open("x.tersor").recipe.passes == ("prune(sparsity=0.5, criterion=obd)", "tune(steps=2)")


def test_json_has_the_chain_and_what_was_told(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(
        capsys, "compress", "nets:model", "x.tersor", "--scheme", "int4", "--pass", "prune(sparsity=0.5)", "--json"
    )
    found = json.loads(out)
    assert code == 0 and found["passes"] == ["prune(sparsity=0.5)", "code as int4"] and found["told"]
    assert found["size"] == Path("x.tersor").stat().st_size


def test_a_recipe_of_passes_from_a_file(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    (here / "r.toml").write_text('bpp = 4\npasses = ["lowrank(share=0.5)"]\neffort = "draft"\n')
    code, out, _ = run(capsys, "compress", "nets:model", "x.tersor", "--recipe", "r.toml")
    assert code == 0 and "lowrank(share=0.5)" in out
    code, out, _ = run(capsys, "compress", "nets:model", "y.tersor", "--recipe", "r.toml", "--dry-run")
    assert (
        out.splitlines()
        == ["lowrank(share=0.5)", "code as auto", "nothing written; sizes follow from the passes' work"]
        and not Path("y.tersor").exists()
    )


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--pass", "prun(sparsity=0.5)"), "did you mean prune?"),
        (("--pass", "prune(sparsity=0.5)", "--pass", "merge(share=0.2)"), "cannot come after"),
        (("--pass", "prune(sparsity=0.5, steps=3)"), "needs data"),
        (("--pass", "prune(sparsity=1.5)"), "below 1"),
        (("--pass", "prune(sparsity=0.5)", "--memory", "1GB"), "leave memory, resume and distributed out"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], what: str
) -> None:
    code, _, err = run(capsys, "compress", "nets:model", "x.tersor", "--ratio", "8", *arguments)
    assert code == 1 and what in err and len(err.splitlines()) == 1
    assert not Path("x.tersor").exists()


def test_tensors_alone_are_not_enough(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "compress", "nets:model", "x.tersor", "--bpp", "8")
    run(capsys, "decompress", "x.tersor", "x.safetensors")
    code, _, err = run(capsys, "compress", "x.safetensors", "y.tersor", "--ratio", "8", "--pass", "prune(sparsity=0.5)")
    assert code == 1 and "module:function" in err


def test_the_list_of_passes_and_the_settings_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "passes")
    assert code == 0 and all(name in out for name in ("prune", "merge", "ssl", "lowrank", "factorize", "quantize"))
    code, out, _ = run(capsys, "passes", "prune")
    assert code == 0 and "criterion = 'magnitude'" in out and "Optimal Brain Damage" in out
    code, out, _ = run(capsys, "passes", "prune", "--json")
    assert json.loads(out)["pass"] == "prune"
    code, _, err = run(capsys, "passes", "merg")
    assert code == 1 and "did you mean merge" in err


def test_a_scheme_with_a_size_of_its_own_needs_no_target(capsys: pytest.CaptureFixture[str]) -> None:
    for scheme in ("int8", "shared16", "bf16"):
        code, out, _ = run(capsys, "compress", "nets:model", f"{scheme}.tersor", "--scheme", scheme)
        assert code == 0 and f"{scheme}.tersor" in out
        assert run(capsys, "verify", f"{scheme}.tersor")[0] == 0
        assert "nothing written" in run(capsys, "compress", "nets:model", "z", "--scheme", scheme, "--dry-run")[1]
    assert run(capsys, "compress", "nets:model", "y.tersor", "--scheme", "lattice")[0] == 2
