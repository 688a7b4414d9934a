"""What docs/huggingface.md shows is what works: its commands and its Python, in their order."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

pytest.importorskip("transformers", minversion="5", reason='needs transformers 5: pip install "tersor[hf]"')

from hf_models import save

from tersor.cli import main

PAGE = Path(__file__).resolve().parents[2] / "docs" / "huggingface.md"


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save("llama", Path("llama"))
    scope: dict[str, object] = {}
    commands = 0
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        if language == "python":
            exec(compile(text, str(PAGE), "exec"), scope)
            continue
        for line in text.splitlines():
            if line.startswith("tersor "):
                main(shlex.split(line)[1:])
                commands += 1
    assert commands == 5
    folders = {"llama-small", "llama-plain", "llama-exact-head", "llama-python", "llama-made-in-two-steps"}
    assert folders <= {path.name for path in tmp_path.iterdir()}
