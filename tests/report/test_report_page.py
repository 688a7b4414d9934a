"""Whole pages: every section, for every kind of archive; hostile names; colours that can be read."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from archives import KINDS, SECTIONS, gpt, state
from dom import Dom

import tersor
from tersor.recipe import Recipe
from tersor.report import style, write
from tersor.report.html import tag

Page = Callable[..., str]


def made(tmp_path: object, dense: dict[str, torch.Tensor], recipe: Recipe, **keywords: object) -> str:
    """The page about a state dict."""
    path, out = f"{tmp_path}/net.tersor", f"{tmp_path}/net.html"
    tersor.compress(dense, recipe).save(path, force=True)
    write(path, out, force=True, **keywords)  # type: ignore[arg-type]
    with open(out, encoding="utf-8") as file:
        return file.read()


@pytest.mark.parametrize("searched", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_section_tells_something(page: Page, kind: str, searched: bool) -> None:
    text = page(kind, searched=searched)
    dom = Dom(text)
    for name in ("headline", *SECTIONS):
        told = dom.text[name].strip()
        assert len(told) > 40 and told.count(" ") > 5, (name, told)
    sections = [attrs["id"] for name, attrs in dom.tags if name == "section"]
    assert sections == list(SECTIONS)
    assert "bits per parameter" in dom.text["headline"] and "×" in dom.text["headline"]
    assert ("tersor search" in dom.text["curve"]) is not searched
    if searched:
        assert "89.7" in dom.text["headline"] and "best" in dom.text["curve"] and 'class="ring"' in text
    if kind != "kept":
        assert text.count('class="treemap"') == 2 and 'class="bars"' in text and 'class="heat"' in text
    if kind == "sparse":
        assert "sparse lattice" in dom.text["codebooks"]
    assert "Alike" in dom.text["codebooks"] or "one layer only" in dom.text["codebooks"] or kind == "kept"


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_whole_by_itself(page: Page, kind: str, tmp_path: object) -> None:
    text = page(kind, searched=True)
    assert text == page(kind, searched=True), "the same file, the same page"
    assert str(tmp_path) not in text, "no paths of this machine"
    assert not re.search(r"https?:|<script|<link|<img|javascript:|@import|url\((?!#)|file:|20\d\d-\d\d", text)
    dom = Dom(text)
    ids = [attrs["id"] for _, attrs in dom.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for name, attrs in dom.tags:
        if name == "a":
            assert attrs["href"] in {f"#{i}" for i in ids}
        if name == "svg":
            assert attrs.get("role") == "img" or attrs.get("aria-hidden") == "true" or "<title>" in text
    assert sum(name == "h1" for name, _ in dom.tags) == 1
    assert text.count("<title>") >= 1 + text.count('role="img"')
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in dom.tags
    assert len(text) < 400_000


def test_hostile_names_do_not_get_out(tmp_path: object) -> None:
    evil = "\"><script>alert(1)</script><b x='&amp;"
    g = torch.Generator().manual_seed(0)
    dense = {f"{evil}{k}.weight": torch.randn(32, 32, generator=g) for k in range(3)}
    dense |= {"\u202eevil\x00.bias": torch.randn(32, generator=g), "x" * 3000: torch.randn(16, 16, generator=g)}
    dense |= {"</svg></title></style>.weight": torch.randn(32, 32, generator=g), "`$(rm)`": torch.zeros(3)}
    text = made(tmp_path, dense, Recipe(ratio=6, effort="draft"), against=dense, title=evil)
    dom = Dom(text)
    names = {name for name, _ in dom.tags}
    assert not names & {"script", "b", "img", "a\x00"} and sum(n == "style" for n, _ in dom.tags) == 1
    assert "<script" not in text and "&lt;script&gt;" in text and "\u202e" not in text and "\x00" not in text
    assert all(len(v or "") < 5000 and not k.startswith("on") for _, attrs in dom.tags for k, v in attrs.items())
    assert set(SECTIONS) <= set(dom.text)


def test_hundreds_of_tensors_stay_readable(tmp_path: object) -> None:
    dense = gpt(90)
    text = made(tmp_path, dense, Recipe(ratio=8, effort="draft"), against=dense)
    dom = Dom(text)
    assert len(dense) > 500 and "h.0–" in text and "361 coded tensors in" in text
    rows = re.findall(r"<tr>", text)
    assert len(rows) < 650, "the table of all tensors is capped"
    assert "The first 400 of 542" in dom.text["tensors"]
    assert "1 tensor tied to another" in dom.text["kept"]
    assert len(text) < 500_000


STRANGE = {
    "empty": {"empty": torch.zeros(0, 5)},
    "a number": {"n": torch.tensor(3)},
    "zeros": {"zero.weight": torch.zeros(64, 64)},
    "a constant": {"one.weight": torch.ones(40, 40)},
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_checkpoints(tmp_path: object, name: str) -> None:
    dense = STRANGE[name]
    dom = Dom(made(tmp_path, dense, Recipe(size=20_000, effort="draft"), against=dense))
    assert all(len(dom.text[section].strip()) > 20 for section in SECTIONS)


def test_a_tuned_file_tells_no_errors_unless_they_are_measured(tmp_path: object) -> None:
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    net = tersor.tunable(model, tersor.compress(model, Recipe(ratio=6, effort="draft")), moving=False)
    path, out = f"{tmp_path}/net.tersor", f"{tmp_path}/net.html"
    net.freeze().save(path)
    write(path, out)
    with open(out) as file:
        assert "tells no errors" in Dom(file.read()).text["error"]
    write(path, out, against=model, force=True)
    with open(out) as file:
        text = Dom(file.read()).text
    assert "measured against Sequential" in text["error"] and "over all" in text["headline"]


def test_what_passes_took_away_is_shown(tmp_path: object) -> None:
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64), nn.LayerNorm(64))
    recipe = Recipe(ratio=12, effort="draft", passes=("lowrank(rank=8)",))
    archive = tersor.compress(model, recipe, data=[torch.randn(16, 64)])
    archive.save(f"{tmp_path}/net.tersor")
    write(f"{tmp_path}/net.tersor", f"{tmp_path}/net.html", against=model)
    with open(f"{tmp_path}/net.html", encoding="utf-8") as file:
        text = file.read()
    dom = Dom(text)
    assert "taken away" in dom.text["size"] and "lowrank(rank=8)" in dom.text["recipe"]
    assert "given_bytes" not in text and "One pass" in dom.text["recipe"]
    assert f"{sum(p.numel() for p in model.parameters()):,} parameters" in dom.text["headline"], "as it came"
    assert "No coded tensor could be compared" in dom.text["error"]
    assert "4 tensors not in this file: 0.weight" in dom.text["error"] and "the same bit by bit" in dom.text["error"]


def test_the_record_of_another_file_is_told(stored: Callable[..., object], tmp_path: object) -> None:
    path = stored("lattice", searched=True)
    tersor.compress(state("lattice"), Recipe(ratio=5, effort="draft")).save(str(path), force=True)
    write(str(path), f"{tmp_path}/page.html")
    with open(f"{tmp_path}/page.html") as file:
        text = Dom(file.read()).text
    assert "is not the best" in text["curve"] and "its score is" not in text["headline"]


def luminance(colour: str) -> float:
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("colours", "on"), [(style.LIGHT, style.ON_LIGHT), (style.DARK, style.ON_DARK)])
def test_text_can_be_read(colours: dict[str, str], on: dict[str, str]) -> None:
    for ink in ("ink", "faint", "mark", "loud"):
        assert contrast(colours[ink], colours["paper"]) >= 4.5, ink
    for ink in ("ink", "faint"):
        assert contrast(colours[ink], colours["panel"]) >= 4.5, ink
    for name, ink in on.items():
        assert contrast(ink, colours[name]) >= 4.5, name
    steps = [luminance(colours[f"s{k}"]) for k in range(8)]
    assert steps == sorted(steps) or steps == sorted(steps, reverse=True), "more is always further from the paper"
    assert contrast(colours["mark"], colours["paper"]) >= 3 and contrast(colours["loud"], colours["paper"]) >= 3


def test_style_is_well_formed() -> None:
    assert style.STYLE.count("{") == style.STYLE.count("}") and "<" not in style.STYLE
    used = set(re.findall(r"var\(--([\w-]+)\)", style.STYLE))
    assert used <= set(re.findall(r"--([\w-]+):", style.STYLE)), "every colour is defined"
    assert str(tag("p", "x")) == "<p>x</p>"


@pytest.mark.parametrize("given", [0, -5, 1 << 62, True])
def test_a_recipe_that_lies_makes_no_crash(tmp_path: object, given: int) -> None:
    from msgspec.structs import replace

    archive = tersor.compress(state("lattice"), Recipe(ratio=6, effort="draft"))
    recipe = {**archive.index.recipe, "given_bytes": given, "given_parameters": given, "passes": ["<b>", "x" * 9000]}
    archive.index = replace(archive.index, recipe=recipe)
    write(archive, f"{tmp_path}/page.html")
    with open(f"{tmp_path}/page.html", encoding="utf-8") as file:
        dom = Dom(file.read())
    assert all(dom.text[name].strip() for name in SECTIONS) and "<b>" in dom.text["recipe"]
