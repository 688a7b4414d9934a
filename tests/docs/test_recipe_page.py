"""`docs/recipes.md` against the struct: every field, its default, its values, its option on the command line."""

from __future__ import annotations

import json
import re
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
from docs_pages import DOCS, headings

from tersor.cli import parser
from tersor.recipe import Recipe

PAGE = DOCS / "recipes.md"
DEFAULTS = dict(zip(Recipe.__struct_fields__, Recipe.__struct_defaults__, strict=True))


def section(name: str) -> str:
    """What stands below a field's heading."""
    return re.split(r"^#{2,3} ", PAGE.read_text().partition(f"\n### {name}\n")[2], flags=re.MULTILINE)[0]


def test_every_field_has_its_section() -> None:
    assert sorted(text for level, text in headings(PAGE) if level == 3) == sorted(Recipe.__struct_fields__)


@pytest.mark.parametrize("name", Recipe.__struct_fields__)
def test_default(name: str) -> None:
    said = re.search(r"Default: (?:none|`([^`]*)`)\.\*", section(name))
    assert said, f"{name}: no default is given"
    value = None if said[1] is None else json.loads(said[1])
    assert (tuple(value) if isinstance(value, list) else value) == DEFAULTS[name]


@pytest.mark.parametrize("name", Recipe.__struct_fields__)
def test_values(name: str) -> None:
    kind = get_type_hints(Recipe)[name]
    if get_origin(kind) is Literal:
        said = re.search(r"^\*(.*?)\. Default:", section(name).strip())
        assert said
        assert re.findall(r'`"(\w+)"`', said[1]) == list(get_args(kind))


@pytest.mark.parametrize("name", [n for n in Recipe.__struct_fields__ if not n.startswith("given_")])
def test_option_and_example(name: str) -> None:
    compress = parser()._subparsers._group_actions[0].choices["compress"]  # type: ignore[union-attr,index]
    option = "--pass" if name == "passes" else f"--{name.replace('_', '-')}"
    assert option in compress.format_help().replace(",", " ").split()
    if name != "scheme":
        assert re.search(rf"```toml\n[^`]*^{name} = ", section(name), re.MULTILINE), f"{name}: no example"


@pytest.mark.parametrize(
    "scheme", re.findall(r"`([^`]+)`", "".join(re.findall(r"^\| (`.*?) \|", PAGE.read_text(), re.M)))
)
def test_scheme_of_the_table(scheme: str) -> None:
    full = f"shared32{scheme}" if scheme.startswith("/") else scheme
    assert Recipe(scheme=full, bpp=2).scheme == full
