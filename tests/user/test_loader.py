from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.errors import TersorError
from tersor.user.loader import load_function

MODULE = """
import dataclasses

@dataclasses.dataclass
class Box:
    value: int = 3

    @staticmethod
    def make():
        return Box(7)

def build():
    return 42

number = 5
"""


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """In an empty folder; what a test imports or puts on the path is gone afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path: str, text: str = MODULE) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    return path


def refusal(spec: str) -> str:
    with pytest.raises(TersorError) as caught:
        load_function(spec)
    message = str(caught.value)
    assert "\n" not in message and spec in message
    return message


def test_a_module_of_the_current_directory() -> None:
    write("loader_nets.py")
    assert load_function("loader_nets:build")() == 42
    assert load_function("loader_nets:Box.make")().value == 7
    assert load_function("loader_nets:Box")().value == 3


def test_a_module_inside_a_package() -> None:
    write("loader_package/__init__.py", "")
    write("loader_package/deep.py", "from loader_package.other import build")
    write("loader_package/other.py")
    assert load_function("loader_package.deep:build")() == 42


def test_installed_modules() -> None:
    assert load_function("json.decoder:JSONDecoder.decode") is __import__("json").JSONDecoder.decode


def test_a_file_finds_its_neighbours_and_is_imported_once(tmp_path: Path) -> None:
    write("far/loader_neighbour.py", "def name():\n    return 'neighbour'")
    spec = write(
        "far/loader_script.py", "from loader_neighbour import name\ncount = []\ndef add():\n    count.append(1)"
    )
    load_function(f"{spec}:add")()
    load_function(f"{tmp_path / spec}:add")()
    assert load_function(f"./{spec}:name")() == "neighbour"
    assert sys.modules["loader_script"].count == [1, 1]


def test_a_file_does_not_displace_a_module_of_its_name() -> None:
    import json

    write("json.py", "def build():\n    return 'mine'")
    assert load_function("json.py:build")() == "mine"
    assert load_function("json.py:build") is load_function("./json.py:build")
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    "spec", ["", ":", "build", "nets:", ":build", "nets:a..b", "nets:1", ".nets:build", "nets:a-b"]
)
def test_what_is_no_spec(spec: str) -> None:
    assert "package.module:function" in refusal(spec)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("loader_missing:f", ["no module 'loader_missing'", "install"]),
        ("loader_nets.inner:f", ["no module 'loader_nets.inner'"]),
        ("missing.py:f", ["no file 'missing.py'"]),
        ("folder/nets:f", ["no file 'folder/nets'"]),
        ("./notes.txt:f", ["not a .py file"]),
        ("loader_nets:biuld", ["has no 'biuld'", "did you mean build"]),
        ("loader_nets:Box.zzz", ["loader_nets.Box has no 'zzz'", "it has make"]),
        ("loader_nets.py:zzz", ["loader_nets.py has no 'zzz'", "Box", "build"]),
        ("loader_nets:number", ["int", "cannot be called"]),
    ],
)
def test_what_is_not_there(spec: str, words: list[str]) -> None:
    write("loader_nets.py")
    write("notes.txt", "")
    message = refusal(spec)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\nraise ValueError('first\\nsecond')", ["ValueError: first second", "line 2"]),
        ("import loader_absent", ["ModuleNotFoundError", "loader_absent", "line 1"]),
        ("import sys\nsys.exit(3)", ["SystemExit: 3", "line 2"]),
        ("def f(:", ["SyntaxError", "line 1"]),
        ("from . import sibling", ["ImportError"]),
        ("raise RuntimeError('x' * 10000)", ["RuntimeError", "xxx…"]),
    ],
)
def test_errors_of_the_import_itself(text: str, words: list[str]) -> None:
    write("loader_broken.py", text)
    for spec in ("loader_broken:f", "loader_broken.py:f"):
        message = refusal(spec)
        assert all(word in message for word in [*words, "mend that first"]), message
        assert "<frozen" not in message
        assert len(message) < 600 and "loader_broken" not in sys.modules


def test_a_mended_file_can_be_loaded_after_an_error() -> None:
    write("loader_mended.py", "raise ValueError")
    refusal("loader_mended.py:build")
    write("loader_mended.py")
    assert load_function("loader_mended.py:build")() == 42


def test_an_attribute_that_fails_when_looked_up() -> None:
    write("loader_lazy.py", "def __getattr__(name):\n    raise ImportError('needs more')")
    assert "ImportError: needs more" in refusal("loader_lazy:build")


@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=20))
def test_any_text_is_a_function_or_one_line(text: str) -> None:
    try:
        assert callable(load_function(f"loader_none_{text}"))
    except TersorError as error:
        assert "\n" not in str(error)


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, tersor.user.loader; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
