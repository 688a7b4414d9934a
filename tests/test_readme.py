"""What the README shows is what works: its Python, its commands, its recipe."""

from __future__ import annotations

import re
import shlex
import sys
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


NETS = """
import torch
from torch import nn
from networks import network

def model():
    net = nn.Sequential(nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 64))
    state = network(width=64)
    net.load_state_dict({
        "0.weight": state["fc.weight"], "0.bias": state["fc.bias"],
        "2.weight": state["point.weight"][:64, :, 0, 0], "2.bias": state["norm.weight"],
    })
    return net.eval()

def batches():
    g = torch.Generator().manual_seed(0)
    for _ in range(2):
        yield torch.randn(16, 256, generator=g)

def accuracy(net):
    with torch.no_grad():
        right = [net(x).argmax(-1) == model()(x).argmax(-1) for x in batches()]
    return 100 * torch.cat(right).float().mean().item()
"""


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    sys.modules.pop("nets", None)
    (tmp_path / "nets.py").write_text(NETS)
    save_file(network(width=64), "model.safetensors")
    commands = [shlex.split(line, comments=True) for line in README.splitlines() if line.startswith("tersor ")]
    named = parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    assert {c[1] for c in commands} == set(named or ()), "the README shows every command"
    for command in commands:
        main(command[1:])
        assert capsys.readouterr().out
    assert {p.name for p in tmp_path.iterdir() if p.is_file()} == {
        "model.safetensors", "model.tersor", "plain.safetensors", "nets.py", "weights.safetensors", "sharp.tersor",
        "tuned.tersor", "large.tersor", "best.tersor", "best.tersor.search.json", "best.tersor.search.svg",
        "pruned.tersor", "int4.tersor", "model.onnx", "model.pt2", "int8.safetensors", "report.html",
    }  # fmt: skip
    sys.modules.pop("nets", None)


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
