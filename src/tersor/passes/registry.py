"""Passes by name; a recipe's texts become steps, in an order that makes sense, or an error before any work."""

from __future__ import annotations

import ast
import difflib
import importlib
import keyword
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from tersor.errors import TersorError
from tersor.passes.step import Stage, Step
from tersor.recipe import Recipe

PASSES = {
    "fold": "fold:Fold",
    "merge": "merge:Merge",
    "ssl": "ssl:GroupLasso",
    "channels": "channels:Channels",
    "lowrank": "lowrank:LowRank",
    "factorize": "factorize:Factorize",
    "prune": "prune:Prune",
    "train": "train:Train",
    "quantize": "quantize:Quantize",
    "tune": "tune:Tune",
    "still": "still:Still",
}
"""Where each pass is: file and class in `tersor.passes`."""

_KEYWORDS = re.compile(rf"'[^']*'|\"[^\"]*\"|(=\s*)({'|'.join(w for w in keyword.kwlist if w.islower())})\b")
"""Words that Python's grammar keeps for itself, where a value stands: scope=global."""

_WHY = {
    Stage.SHRINK: "changes the layers' shapes",
    Stage.FACTOR: "replaces weights by factors",
    Stage.SPARSIFY: "sets weights to zero",
    Stage.QUANTIZE: "puts weights on a grid",
    Stage.TUNE: "works on what was coded",
}


def kind_of(name: str) -> type[Step]:
    """The class of a pass.

    Raises:
        TersorError: there is none of this name; suggests the nearest.
    """
    if name not in PASSES:
        near = difflib.get_close_matches(name, PASSES, 1, 0.4)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(PASSES)}"
        raise TersorError(f"recipe: there is no pass {name!r}; {hint}")
    module, _, kind = PASSES[name].partition(":")
    found: type[Step] = getattr(importlib.import_module(f"tersor.passes.{module}"), kind)
    return found


def parse(text: str) -> Step:
    """A step from its text, like `prune(sparsity=0.8, criterion=obd)`; words need no quotes.

    Raises:
        TersorError: it is no such text, or names a pass or a setting that there is not, or a value that does not fit.
    """
    try:
        call = ast.parse(_KEYWORDS.sub(_quoted, text.strip()), mode="eval").body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise TersorError(f"recipe: {text!r} is no pass; write it like prune(sparsity=0.8)") from error
    if isinstance(call, ast.Name):
        call = ast.Call(call, [], [])
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
        raise TersorError(f"recipe: {text!r} is no pass; write it like prune(sparsity=0.8)")
    kind = kind_of(call.func.id)
    fields = {}
    for item in call.keywords:
        known = kind.__struct_fields__
        if item.arg not in known:
            near = difflib.get_close_matches(item.arg or "", known, 1, 0.4)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
            raise TersorError(f"recipe: {kind.name} has no setting {item.arg!r}; {hint}")
        if item.arg in fields:
            raise TersorError(f"recipe: {text!r} says {item.arg} twice")
        fields[item.arg] = _value(item.value, text)
    try:
        step = msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise TersorError(f"recipe: {text!r}: {error}") from error
    step.check()
    return step


def _quoted(found: re.Match[str]) -> str:
    """A keyword in quotes; what is in quotes already as it is."""
    return f"{found[1]}'{found[2]}'" if found[2] else found[0]


def _value(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Name):
        return {"true": True, "false": False, "none": None}.get(node.id.lower(), node.id)
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(item, text) for item in node.elts]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and isinstance(node.left, ast.Name):
        return f"{node.left.id}-{_value(node.right, text)}"
    if isinstance(node, ast.Attribute):
        return f"{_value(node.value, text)}.{node.attr}"
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError) as error:
        raise TersorError(f"recipe: {text!r}: values are numbers, words and lists of them") from error


def steps_of(recipe: Recipe) -> list[Step]:
    """The passes of a recipe in order, checked against each other and the coding step.

    Raises:
        TersorError: a step is not known or set wrongly, or two are in an order that would undo the first.
    """
    steps = [parse(text) for text in recipe.passes]
    _check_order(steps)
    names = [step.name for step in steps]
    if "still" in names and names[-1] != "still":
        after = steps[names.index("still") + 1]
        raise TersorError(
            f"recipe: {after} cannot come after still: statistics that training needs are gone; swap them"
        )
    if "tune" in names and recipe.scheme in ("fp16", "bf16"):
        raise TersorError(f"recipe: {recipe.scheme} leaves nothing to tune; train before coding: train(steps=...)")
    for step in steps:
        scheme = getattr(step, "scheme", recipe.scheme)
        if scheme != recipe.scheme:
            raise TersorError(
                f"recipe: {step} puts weights on a grid of integers, which scheme {recipe.scheme!r} would leave; "
                f"code it with scheme={scheme!r}, or leave the pass out"
            )
    return steps


def _check_order(steps: Sequence[Step]) -> None:
    """Raises TersorError where a pass would undo one before it; names both."""
    for i, later in enumerate(steps):
        for earlier in steps[:i]:
            if earlier.free or (later.free and earlier.stage < Stage.QUANTIZE):
                continue
            if earlier.stage > later.stage:
                raise TersorError(
                    f"recipe: {later} cannot come after {earlier}: it {_WHY[later.stage]}, "
                    f"and what {earlier.name} did ({_WHY[earlier.stage]}) would be lost; put it first"
                )
