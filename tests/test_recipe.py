from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import tersor
from tersor.errors import TersorError
from tersor.recipe import Recipe, load_fields, parse_size


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "exactly one"),
        ({"ratio": 2, "bpp": 3}, "ratio and bpp"),
        ({"ratio": 2, "size": 100, "bpp": 3}, "ratio and size and bpp"),
        ({"ratio": 0}, "above 0"), ({"ratio": -1}, "above 0"), ({"bpp": float("nan")}, "above 0"),
        ({"bpp": float("inf")}, "above 0"), ({"size": 0}, "above 0"), ({"size": -5}, "above 0"),
        ({"size": "many"}, "not a number of bytes"), ({"size": "1.5XB"}, "not a number"),
        ({"size": ""}, "not a number"),
        ({"size": "1e3"}, "not a number"), ({"size": "-5kB"}, "not a number"),
        ({"ratio": 2, "scheme": "magic"}, "scheme"), ({"ratio": 2, "scheme": "4x128"}, "scheme"),
        ({"ratio": 2, "scheme": "lattice+4x128d9"}, "scheme"), ({"ratio": 2, "scheme": "4x128d9 "}, "scheme"),
        ({"ratio": 2, "effort": "huge"}, "effort"), ({"ratio": 2, "keep": "fp8"}, "keep"),
        ({"ratio": 2, "scales": "column"}, "scales"), ({"ratio": 2, "groups": "two"}, "groups"),
        ({"ratio": 2, "sparsity": "some"}, "sparsity"),
    ],
)  # fmt: skip
def test_a_recipe_that_means_nothing_is_refused_in_one_line(fields: dict[str, Any], message: str) -> None:
    for make in (lambda: Recipe(**fields), lambda: Recipe.from_dict(fields)):
        with pytest.raises(TersorError, match=re.escape(message)) as caught:
            make()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"ratio": 2, "speed": 9}, {"ratio": "2"}, {"ratio": 2, "exclude": "all"}, {"ratio": 2, "seed": 1.5},
        {"ratio": 2, "exclude": [1]}, {"ratio": True}, {"ratio": 2, "min_size": "3"}, {"ratio": [2]},
    ],
)  # fmt: skip
def test_unknown_fields_and_wrong_types_name_the_place(fields: dict[str, Any]) -> None:
    with pytest.raises(TersorError, match=r"^my recipe: ") as caught:
        Recipe.from_dict(fields, "my recipe")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("300", 300), ("300B", 300), ("300kB", 300_000), ("1.5MB", 1_500_000), ("2MiB", 2 << 20), ("1 GB", 10**9),
        (" .5KiB ", 512), ("1gib", 1 << 30), (77, 77),
    ],
)  # fmt: skip
def test_sizes_have_units(text: int | str, size: int) -> None:
    assert parse_size(text) == size
    assert Recipe(size=text).budget(1, 1) == size


def test_budgets_follow_from_the_target() -> None:
    assert Recipe(ratio=16).budget(1600, 5) == 100
    assert Recipe(ratio=3).budget(100, 5) == 33
    assert Recipe(bpp=2).budget(1600, 401) == 100


FIELDS: dict[str, Any] = {"size": "1.5MB", "scheme": "4x128d9+lattice", "exclude": ["fc.*", "a b"], "seed": 3}


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(FIELDS))
    (tmp_path / "r.toml").write_text("\n".join(f"{k} = {json.dumps(v)}" for k, v in FIELDS.items()))
    expected = Recipe(size="1.5MB", scheme="4x128d9+lattice", exclude=("fc.*", "a b"), seed=3)
    assert Recipe.load(tmp_path / "r.json") == Recipe.load(tmp_path / "r.toml") == expected
    assert load_fields(tmp_path / "r.toml") == FIELDS
    assert Recipe.from_dict(expected.as_dict()) == expected
    assert expected.as_dict() == {**FIELDS, "exclude": tuple(FIELDS["exclude"])} or expected.as_dict() == FIELDS


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("r.toml", "ratio = "), ("r.toml", "ratio = 2\nratio = 3"), ("r.json", "{"), ("r.json", "[1]"), ("r.json", "7"),
        ("r.yaml", "ratio: 2"), ("r.toml", 'speed = "all"'), ("r.json", "{}"), ("r.json", b"\xff\xfe"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_recipe_is_named(tmp_path: Path, name: str, text: str | bytes) -> None:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TersorError) as caught:
        Recipe.load(path)
    assert "recipe" in str(caught.value) or name in str(caught.value)
    assert str(caught.value).count("\n") == 0


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TersorError, match=r"nowhere\.toml: cannot read"):
        Recipe.load(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(ratio=4), Recipe(size=3000, effort="draft"), Recipe(bpp=6.5, scales="row", groups="one", seed=9),
        Recipe(ratio=3, keep="bf16", exclude=("b*",), min_size=10),
    ],
)  # fmt: skip
def test_the_recipe_is_in_the_archive(recipe: Recipe) -> None:
    state = {"a": torch.linspace(-1, 1, 2500).reshape(50, 50).sin(), "b": torch.zeros(3)}
    assert tersor.Archive(tersor.compress(state, recipe).to_bytes()).recipe == recipe
