"""What the pages show is what works: their Python, their commands, their recipes, and what these print."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from docs_pages import DOCS, Block, blocks, commands, differs, run_python

from tersor.cli import main
from tersor.recipe import Recipe

RUN = [
    "index",
    "quickstart",
    "how",
    "recipes",
    "faq",
    "onnx",
    *(f"tutorials/{p.stem}" for p in DOCS.glob("tutorials/*.md")),
]


@pytest.mark.parametrize("page", sorted(RUN))
def test_examples_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All blocks of a page, in order, in one namespace and one folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    path = DOCS / f"{page}.md"
    for block in blocks(path):  # a file of this page, not of the page before
        sys.modules.pop((block.title or "").removesuffix(".py"), None)
    scope: dict[str, object] = {"__name__": path.stem}
    printed, ran = "", 0
    for block in blocks(path):
        where = f"{path.name}, line {block.line}"
        if block.title is not None:
            (tmp_path / block.title).write_text(block.text)
        elif block.language == "python":
            run_python(block, path, scope)
            printed, ran = capsys.readouterr().out, ran + 1
        elif block.language in ("", "console"):
            printed = _commands(block, where, capsys, printed)
            ran += len(commands(block))
        elif block.language == "text":
            assert not differs(printed, block.text), f"{where}: {differs(printed, block.text)}"
        if block.language == "toml" and block.title is None:
            (tmp_path / "block.toml").write_text(block.text)
            Recipe.load(tmp_path / "block.toml")
            ran += 1
    assert ran, f"{path} shows nothing that runs"


def _commands(block: Block, where: str, capsys: pytest.CaptureFixture[str], before: str) -> str:
    """Run the commands of a block; in a console block, what stands below one is what it prints."""
    printed = before
    for arguments, expected in commands(block):
        try:
            main(arguments)
        except SystemExit as stop:
            pytest.fail(f"{where}: tersor {' '.join(arguments)} ended with {stop.code}: {capsys.readouterr().err}")
        printed = capsys.readouterr().out
        assert not expected or not differs(printed, expected), f"{where}: {differs(printed, expected)}"
    return printed
