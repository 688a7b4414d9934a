"""Ready recipes: they decode, their passes are in order, and what is pasted on top is what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.recipes import FOLDER, MARK, paste, told

from benchmarks import store
from tersor.passes.registry import steps_of
from tersor.recipe import Recipe

RECIPES = sorted(FOLDER.glob("*.toml"))


def test_there_are_ten_and_all_are_listed() -> None:
    assert len(RECIPES) >= 10
    page = (FOLDER / "README.md").read_text()
    assert all(f"({path.name})" in page for path in RECIPES)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_whole_and_tells_what_was_measured(path: Path) -> None:
    recipe = Recipe.load(path)
    assert steps_of(recipe)
    assert Recipe.from_dict(recipe.as_dict()) == recipe
    rows = store.read("recipes")[path.stem]
    lines = [line for line in path.read_text().splitlines() if line.startswith(MARK)]
    assert lines[:-1] == [f"{MARK}{told(name, row)}" for name, row in sorted(rows.items())] and len(rows) >= 2


def test_pasting_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("# What it is.\nratio = 4\n")
    row = {"bytes": 9, "ratio": 4.0, "before": 99.0, "score": 98.0, "items": 10, "lost": 1.0, "lost_low": 0.5,
           "lost_high": 1.5}  # fmt: skip
    for _ in range(2):
        paste(path, {"net": row})
        assert path.read_text().splitlines()[0] == "# What it is." and path.read_text().count(MARK) == 2
    assert Recipe.load(path).ratio == 4
