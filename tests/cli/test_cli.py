"""The command line as a whole: exit codes, one line for what is wrong, and how quickly it answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from calls import run

import tersor


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


@pytest.mark.parametrize("command", ["compress", "importance", "tune", "search", "decompress", "inspect", "verify"])
def test_help_teaches_by_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0
    assert f"  tersor {command} " in capsys.readouterr().out


def test_as_a_module(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "tersor", "--version"], capture_output=True, text=True, timeout=120)
    assert done.stdout == f"tersor {tersor.__version__}\n" and not done.returncode
