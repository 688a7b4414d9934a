"""Recipes' texts as steps: strict, in an order that makes sense."""

from __future__ import annotations

import pytest

from tersor.errors import TersorError
from tersor.passes.prune import Prune
from tersor.passes.registry import PASSES, kind_of, parse, steps_of
from tersor.recipe import Recipe


@pytest.mark.parametrize("name", PASSES)
def test_every_pass_is_there_and_tells_of_itself(name: str) -> None:
    kind = kind_of(name)
    assert kind.name == name and kind.about and kind.__doc__


def test_texts_become_settings_and_texts_again() -> None:
    step = parse("prune(sparsity=0.8, criterion=obd, rounds=3)")
    assert step == Prune(sparsity=0.8, criterion="obd", rounds=3)
    assert parse(str(step)) == step
    assert parse("prune(pattern='2:4')") == Prune(pattern="2:4")
    assert parse("prune(sparsity=0.5, scope=global, rounds=2)") == Prune(sparsity=0.5, rounds=2)
    assert parse("prune(sparsity=0.5, curvature=gauss-newton)") == Prune(sparsity=0.5, curvature="gauss-newton")
    assert parse("merge(plot='a=is.svg')").plot == "a=is.svg"  # type: ignore[attr-defined]
    assert parse(" fold ").name == parse("fold()").name == "fold"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("prun(sparsity=0.8)", "did you mean prune"),
        ("prune(sparsty=0.8)", "did you mean sparsity"),
        ("prune(0.8)", "write it like"),
        ("prune(sparsity=0.8", "write it like"),
        ("prune(sparsity=0.8, sparsity=0.7)", "twice|write it like"),
        ("prune(sparsity='much')", "Expected"),
        ("prune(sparsity=0.8, criterion=best)", "Invalid enum"),
        ("prune(sparsity=open('x'))", "numbers, words"),
        ("prune(**x)", "no setting None"),
        ("import os", "write it like"),
        ("qqqqqq()", "there are fold"),
        ("(" * 500, "write it like"),
    ],
)
def test_what_is_no_step(text: str, what: str) -> None:
    with pytest.raises(TersorError, match=what):
        parse(text)


@pytest.mark.parametrize(
    ("passes", "first", "second"),
    [
        (("prune(sparsity=0.5)", "merge(share=0.3)"), "prune", "merge"),
        (("prune(sparsity=0.5)", "lowrank(share=0.5)"), "prune", "lowrank"),
        (("quantize()", "prune(sparsity=0.5)"), "quantize", "prune"),
        (("quantize()", "train(steps=1)"), "quantize", "train"),
        (("tune(steps=1)", "prune(sparsity=0.5)"), "tune", "prune"),
        (("lowrank(share=0.5)", "channels(share=0.5)"), "lowrank", "channels"),
    ],
)
def test_orders_that_undo_are_refused_and_both_are_named(passes: tuple[str, ...], first: str, second: str) -> None:
    with pytest.raises(TersorError, match=rf"{second}\(.*\) cannot come after {first}\("):
        steps_of(Recipe(passes=passes, scheme="int8"))


def test_orders_that_make_sense() -> None:
    chain = ("channels(share=0.5)", "train(steps=2)", "lowrank(share=0.5)", "prune(sparsity=0.5)", "tune(steps=1)")
    assert [s.name for s in steps_of(Recipe(ratio=16, passes=chain))] == [c.partition("(")[0] for c in chain]


def test_a_grid_of_integers_is_coded_as_integers() -> None:
    with pytest.raises(TersorError, match="grid of integers"):
        steps_of(Recipe(ratio=16, passes=("quantize(bits=8)",)))
    with pytest.raises(TersorError, match="int4"):
        steps_of(Recipe(scheme="int8", passes=("quantize(bits=4)",)))
    assert steps_of(Recipe(scheme="int4/64", passes=("quantize(bits=4, block=64)",)))


def test_a_recipe_with_passes_goes_through_toml(tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "r.toml"
    path.write_text('ratio = 16\npasses = ["prune(sparsity=0.8)", "tune(steps=9)"]\n')
    recipe = Recipe.load(path)
    assert recipe.passes == ("prune(sparsity=0.8)", "tune(steps=9)")
    assert Recipe.from_dict(recipe.as_dict()) == recipe
    with pytest.raises(TersorError, match="passes is a list"):
        Recipe(ratio=2, passes="prune(sparsity=0.8)")  # type: ignore[arg-type]
