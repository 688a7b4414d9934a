"""`tersor report` on the command line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from archives import state
from safetensors.torch import save_file

from tersor.cli import report
from tersor.errors import ArchiveError, TersorError

Stored = Callable[..., Path]


def run(*arguments: object) -> None:
    root = argparse.ArgumentParser()
    report.add_to(root.add_subparsers())
    options = root.parse_args(["report", *map(str, arguments)])
    options.run(options)


def test_a_page_beside_the_file(stored: Stored, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = stored("lattice")
    run(path)
    out = tmp_path / "lattice.html"
    assert f"{out}: {out.stat().st_size:,} B" in capsys.readouterr().out
    assert "<h1>lattice</h1>" in out.read_text()
    with pytest.raises(TersorError, match="exists; pass --force"):
        run(path)
    run(path, "--force", "--title", "A & B", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found == {"file": str(path), "page": str(out), "size": out.stat().st_size, "against": None}
    assert "<h1>A &amp; B</h1>" in out.read_text()


def test_against_the_original(stored: Stored, tmp_path: Path) -> None:
    dense, out = tmp_path / "dense.safetensors", tmp_path / "page.html"
    save_file(state("lattice"), dense)
    run(stored("lattice"), "-o", out, "--against", dense)
    assert "measured against dense.safetensors" in out.read_text()
    other = {**state("lattice"), "fc.weight": torch.zeros(3, 3)}
    save_file(other, dense)
    run(stored("lattice"), "-o", out, "--against", dense, "--force")
    assert "fc.weight: 16×64 here, 3×3 in dense.safetensors; not compared" in out.read_text()


def test_what_does_not_fit_leaves_nothing(stored: Stored, tmp_path: Path) -> None:
    dense, out = tmp_path / "dense.safetensors", tmp_path / "page.html"
    save_file({"other": torch.zeros(3)}, dense)
    with pytest.raises(TersorError, match=r"dense.safetensors does not fit .*lattice.tersor: no tensor"):
        run(stored("lattice"), "-o", out, "--against", dense)
    with pytest.raises(TersorError, match="does not exist"):
        run(stored("lattice"), "-o", out, "--against", tmp_path / "nowhere.safetensors")
    with pytest.raises(TersorError, match="is the input itself"):
        run(stored("lattice"), "-o", stored("lattice"), "--force")
    with pytest.raises(TersorError, match="does not exist"):
        run(stored("lattice"), "-o", tmp_path / "no" / "page.html")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dense.safetensors", "lattice.tersor"]


def test_damage_is_told_and_leaves_nothing(stored: Stored, tmp_path: Path) -> None:
    path, out = stored("lattice"), tmp_path / "page.html"
    whole = path.read_bytes()
    for at in range(200, len(whole), max(len(whole) // 23, 1)):
        broken = bytearray(whole)
        broken[at] ^= 1
        path.write_bytes(broken)
        with pytest.raises(ArchiveError, match=r"lattice\.tersor: .*damaged"):
            run(path, "-o", out)
    path.write_bytes(whole[:-9])
    with pytest.raises(ArchiveError, match="cut short"):
        run(path, "-o", out)
    assert not out.exists() and len(list(tmp_path.iterdir())) == 1


def test_a_record_that_is_none(stored: Stored, tmp_path: Path) -> None:
    path = stored("lattice", searched=True)
    (tmp_path / "lattice.tersor.search.json").write_text("[]")
    with pytest.raises(TersorError, match=r"lattice.tersor.search.json: not the record of a search"):
        run(path)
    assert not (tmp_path / "lattice.html").exists()
