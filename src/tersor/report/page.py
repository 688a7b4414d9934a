"""The page: sections in order, in one file that needs no other."""

from __future__ import annotations

from tersor.archive import Archive
from tersor.report import codebooks, contents, headline, loading, losses, rates, sizes, trials
from tersor.report.against import Measured
from tersor.report.errors import errors_of
from tersor.report.facts import Facts
from tersor.report.html import Html, join, tag
from tersor.report.style import STYLE

SECTIONS = {
    "size": "Size", "bits": "Bits", "error": "Error", "codebooks": "Codebooks", "curve": "Accuracy", "kept": "Kept",
    "recipe": "Recipe", "load": "Loading", "tensors": "Tensors",
}  # fmt: skip
"""Sections by their name in the page, in order, and what the list at its head calls them."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(archive: Archive, facts: Facts, measured: Measured | None, record: trials.Record | None, title: str) -> str:
    """The whole page as text.

    Raises:
        ArchiveError: a section is damaged.
    """
    found = errors_of(facts, measured)
    links = tag("nav", *(tag("a", text, href=f"#{name}") for name, text in SECTIONS.items()), aria_label="Sections")
    rates_ = tag("div", rates.bits(facts), losses.errors(facts, found, measured), class_="two")
    body = join(
        [
            headline.headline(facts, found, record, title),
            links,
            tag(
                "main", sizes.sizes(facts), rates_, codebooks.codebooks(archive, facts),
                trials.trials(record, facts.file), contents.kept(facts), loading.recipe(facts), loading.loading(facts),
                contents.tensors(facts),
            ),
            tag("footer", f"{facts.file}, {facts.size:,} bytes; made by tersor {facts.tool}."),
        ],
        "\n",
    )  # fmt: skip
    head = tag(
        "head", tag("meta", charset="utf-8"),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("meta", http_equiv="Content-Security-Policy", content=Html(_POLICY)),
        tag("title", f"{title}: tersor report"), tag("style", Html(STYLE)),
    )  # fmt: skip
    return f"<!doctype html>\n{tag('html', head, tag('body', body), lang='en')}\n"
