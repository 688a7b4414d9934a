"""The command line, as a user and a script see it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tersor
from networks import network
from tersor.cli import main


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    save_file(network(), path)
    return path


def run(*arguments: object) -> int:
    """Exit code of a call."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_the_whole_way(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, back = tmp_path / "net.tersor", tmp_path / "back.safetensors"
    assert run("compress", checkpoint, small, "--ratio", 4) == 0
    out = capsys.readouterr()
    assert f"{small.stat().st_size:,} B" in out.out and "coded" in out.out and "kept" in out.out
    assert out.err == "", "quiet when not a terminal"
    assert run("verify", small) == 0 and "all good" in capsys.readouterr().out
    assert run("decompress", small, back) == 0
    original, restored = network(), load_file(back)
    assert list(restored) == list(restored | original)
    archive = tersor.open(small).state_dict()
    assert all(torch.equal(restored[name], archive[name]) for name in original)
    assert run("inspect", small) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in original) and "bits per weight" in text and "one-dimensional" in text


def test_json_is_one_object(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, back = tmp_path / "net.tersor", tmp_path / "back.safetensors"
    assert run("compress", checkpoint, small, "--bpp", 6, "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["size"] == small.stat().st_size and made["bits_per_parameter"] <= 6
    assert made["kept"] and made["groups"] and "coded" in made["coverage"]
    for command in (["inspect", small], ["verify", small], ["decompress", small, back]):
        assert run(*command, "--json") == 0
        assert isinstance(json.loads(capsys.readouterr().out), dict)


def test_inspect_accounts_for_the_bytes(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = tmp_path / "net.tersor"
    assert run("compress", checkpoint, small, "--bpp", 6) == 0
    capsys.readouterr()
    run("inspect", small, "--json")
    found = json.loads(capsys.readouterr().out)
    coded = sum(t["bytes"] for t in found["tensors"] if "bytes" in t)
    archive = tersor.open(small)
    streams = 0
    for g, record in enumerate(archive.index.groups):
        reader = archive.group(g)
        streams += sum(len(s) for c in range(reader.chunks) for s in reader.chunk_streams(c))
        assert record.lattice is not None
    chunks = sum(archive.group(g).chunks for g in range(len(archive.index.groups)))
    assert abs(streams - coded) <= 8 * chunks + 0.01 * streams
    assert found["size"] == small.stat().st_size
    assert found["bits_per_parameter"] == pytest.approx(8 * found["size"] / found["parameters"], abs=1e-3)


def test_dry_run_writes_nothing(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = tmp_path / "net.tersor"
    assert run("compress", checkpoint, small, "--size", "4kB", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "predicted size 4,000 B" in out and "nothing written" in out and not small.exists()
    assert run("compress", checkpoint, small, "--size", "4kB", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["predicted_size"] == 4000


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["compress", "IN", "OUT"], 2, "give a target"),
        (["compress", "IN"], 2, "OUT"),
        (["nonsense"], 2, "nonsense"),
        ([], 2, ""),
        (["compress", "IN", "OUT", "--ratio", "4", "--bpp", "2"], 1, "exactly one"),
        (["compress", "IN", "OUT", "--ratio", "-1"], 1, "above 0"),
        (["compress", "IN", "OUT", "--ratio", "4", "--scheme", "7"], 1, "scheme"),
        (["compress", "IN", "OUT", "--ratio", "4", "--effort", "huge"], 1, "effort"),
        (["compress", "IN", "OUT", "--size", "4 bananas"], 1, "bananas"),
        (["compress", "IN", "OUT", "--size", "300"], 1, "smallest possible"),
        (["compress", "IN", "OUT", "--ratio", "4", "--exclude", "nothing*"], 1, "matches no tensor"),
        (["compress", "missing.safetensors", "OUT", "--ratio", "4"], 1, "missing.safetensors"),
        (["compress", "IN", "OUT", "--ratio", "4", "--recipe", "none.toml"], 1, "none.toml"),
        (["inspect", "IN"], 1, "not a tersor archive"),
        (["verify", "missing.tersor"], 1, "missing.tersor"),
        (["decompress", "missing.tersor", "OUT"], 1, "missing.tersor"),
    ],
)
def test_bad_calls(
    arguments: list[str],
    code: int,
    message: str,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out.tersor"
    real = {"IN": str(checkpoint), "OUT": str(out)}
    assert run(*[real.get(a, a) for a in arguments]) == code
    err = capsys.readouterr().err
    assert message in err and not out.exists()
    if code == 1:
        assert err.count("\n") == 1 and err.startswith("tersor: ")


def test_out_that_exists_needs_force(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.tersor"
    out.write_text("precious")
    assert run("compress", checkpoint, out, "--ratio", 4) == 1
    assert "--force" in capsys.readouterr().err and out.read_text() == "precious"
    assert run("compress", checkpoint, out, "--ratio", 4, "--force") == 0
    tersor.open(out).verify()


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


@pytest.mark.parametrize("arguments", [["--help"], ["verify", "ARCHIVE"], ["inspect", "ARCHIVE"]])
def test_quick_commands_do_not_import_torch(arguments: list[str], checkpoint: Path, tmp_path: Path) -> None:
    small = tmp_path / "net.tersor"
    tersor.compress(str(checkpoint), tersor.Recipe(ratio=4)).save(small)
    real = [str(small) if a == "ARCHIVE" else a for a in arguments]
    code = f"""
import sys
from tersor.cli import main
try:
    main({real!r})
except SystemExit as stop:
    assert not stop.code, stop.code
assert "torch" not in sys.modules, "torch was imported"
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)
