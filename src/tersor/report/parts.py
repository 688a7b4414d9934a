"""What sections are made of: a heading with a sentence, tables that scroll by themselves, figures, lines of code."""

from __future__ import annotations

from collections.abc import Sequence

from tersor.report.html import Html, tag


def section(name: str, head: str, told: object, *body: object) -> Html:
    """A section: its heading, one sentence that says what is to be seen (or why nothing is), and what shows it."""
    return tag("section", tag("h2", head, id=f"{name}-head"), tag("p", told, class_="told"), *body, id=name,
               aria_labelledby=f"{name}-head")  # fmt: skip


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[object]],
    caption: str,
    *,
    wide: Sequence[int] = (),
    numbers: Sequence[int] = (),
) -> Html:
    """A table in a box of its own that scrolls where the screen is narrow; the first column names the row.

    Columns that are `wide` hold sentences, whose lines break; those of `numbers` end at the right.
    """
    kinds = ["wide" if c in wide else "number" if c in numbers else None for c in range(len(heads))]
    top = tag("tr", *(tag("th", head, scope="col", class_=kind) for head, kind in zip(heads, kinds, strict=True)))
    body = [
        tag("tr", tag("th", row[0], scope="row"),
            *(tag("td", cell, class_=kind) for cell, kind in zip(row[1:], kinds[1:], strict=True)))
        for row in rows
    ]  # fmt: skip
    inner = tag("table", tag("caption", caption), tag("thead", top), tag("tbody", *body), class_="plain")
    return scrolling(inner, caption)


def scrolling(inner: Html, label: str) -> Html:
    """A box that scrolls sideways, by touch, wheel or keys."""
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=label)


def listing(lines: Sequence[str], label: str) -> Html:
    """Lines of a program or of a shell."""
    return scrolling(tag("pre", tag("code", *(_line(line) for line in lines))), label)


def _line(line: str) -> Html:
    return tag("span", line + "\n")
