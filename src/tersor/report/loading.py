"""The sections of the recipe and its passes, and of how to load the file."""

from __future__ import annotations

import json
import shlex

from tersor.report import words
from tersor.report.facts import Facts
from tersor.report.html import Html, code, tag
from tersor.report.parts import listing, section

_OF_THE_NETWORK = ("given_bytes", "given_parameters")  # set by `compress`, nobody's wish


def recipe(facts: Facts) -> Html:
    """The section of the recipe."""
    wanted = {k: v for k, v in facts.recipe.items() if k not in _OF_THE_NETWORK and k != "passes"}
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in wanted.items()]
    if facts.passes:
        lines.append(f"passes = {json.dumps(list(facts.passes), ensure_ascii=False)}")
    told = f"Made by tersor {facts.tool}; what the recipe does not name is at its default."
    body = listing(lines or ["# all at their defaults"], "The recipe, in TOML")
    if not facts.passes:
        passes = tag("p", "No passes: the network was coded as it came.")
    else:
        after = f" They took {words.size(facts.removed)} away before coding." if facts.removed else ""
        count = "One pass" if len(facts.passes) == 1 else f"{len(facts.passes)} passes, in this order"
        passes = tag(
            "div", tag("p", f"{count}.{after}"), tag("ol", *(tag("li", code(one)) for one in facts.passes))
        )  # fmt: skip
    return section("recipe", "Recipe and passes", told, body, passes)


def loading(facts: Facts) -> Html:
    """The section of how to load it."""
    file, python = shlex.quote(facts.file), json.dumps(facts.file, ensure_ascii=False)
    name = next((t.name for t in facts.tensors if t.kind == "coded"), facts.tensors[0].name if facts.tensors else None)
    one = [] if name is None else [f"archive[{json.dumps(name, ensure_ascii=False)}]  # one tensor alone"]
    opened = f"archive = tersor.open({python})"
    in_python = ["import tersor", opened, "archive.apply_(model)  # of its original class", *one]
    in_shell = [f"tersor verify {file}", f"tersor inspect {file}"]
    plain = [f"tersor decompress {file} plain.safetensors"]
    onnx = [f"tersor export {file} model.onnx \\", "    --model nets:network --input 1x3x32x32"]
    changed = " Passes changed its shape: apply_ changes the module likewise." if facts.removed else ""
    told = "It needs no network and no pickle: names, shapes and types are in the file." + changed
    ways = [
        ("Python", in_python), ("Command line", in_shell), ("Plain safetensors, for any other tool", plain),
        ("ONNX, with your model and the shape of its input", onnx),
    ]  # fmt: skip
    boxes = [tag("div", tag("h3", head), listing(lines, head)) for head, lines in ways]
    return section("load", "How to load it", told, tag("div", *boxes, class_="ways"))
