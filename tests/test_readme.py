"""What the README shows is what works: its Python, its commands, its recipe."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from safetensors.torch import save_file

import tersor
from networks import network
from tersor.cli import main, parser

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Code blocks of a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_python_snippet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (snippet,) = blocks("python")
    scope: dict[str, object] = {}
    exec(compile(snippet, "README.md", "exec"), scope)
    assert (tmp_path / "model.tersor").stat().st_size > 0
    assert len(snippet.strip().splitlines()) <= 10


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    save_file(network(width=64), "model.safetensors")
    commands = [shlex.split(line, comments=True) for line in README.splitlines() if line.startswith("tersor ")]
    assert [c[1] for c in commands] == ["compress", "inspect", "verify", "decompress"]
    for command in commands:
        main(command[1:])
    assert capsys.readouterr().out
    assert {p.name for p in tmp_path.iterdir()} == {"model.safetensors", "model.tersor", "plain.safetensors"}


def test_nothing_is_left_to_fill_in() -> None:
    assert "RESULTS_" not in README and "TODO" not in README


def test_recipe(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    (tmp_path / "r.toml").write_text(text)
    assert tersor.Recipe.load(tmp_path / "r.toml").effort == "best"


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_every_option_the_readme_names_exists() -> None:
    text = README + parser().format_help()
    known = set()
    for action in parser()._subparsers._group_actions[0].choices.values():  # type: ignore[union-attr,index]
        known |= set(re.findall(r"--[a-z-]+", action.format_help()))
    assert set(re.findall(r"`(--[a-z-]+)", README)) <= known, text
