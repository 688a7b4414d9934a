"""HTML and SVG as text that is safe by construction: whatever is not `Html` is escaped where it goes in."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

LONGEST = 4000
"""Characters of any one text; what is beyond is cut, and the cut is shown."""


class Html(str):
    """Markup that was made here, and is not escaped again."""

    __slots__ = ()


def text(value: object) -> Html:
    """Anything as text of the page: escaped, cut at `LONGEST`, and without characters that nobody sees.

    Control characters, and those that turn the direction of writing, are shown as their code.
    """
    if isinstance(value, Html):
        return value
    plain = str(value)
    if len(plain) > LONGEST:
        plain = plain[: LONGEST - 1] + "…"
    if not plain.isprintable():
        plain = "".join(c if c.isprintable() or c in _PLAIN else f"\\u{ord(c):04x}" for c in plain)
    return Html(escape(plain, quote=True))


def tag(name: str, *children: object, **attributes: object) -> Html:
    """An element. Attributes lose an underline at the end and get dashes for others; None and False leave one out.

    SVG's own spellings (`viewBox`, `preserveAspectRatio`) pass as they are.
    """
    given = "".join(
        _attribute(key, value) for key, value in attributes.items() if value is not None and value is not False
    )
    if name in _VOID or (not children and name in _EMPTY):
        return Html(f"<{name}{given}>" if name in _VOID else f"<{name}{given}/>")
    return Html(f"<{name}{given}>{join(children)}</{name}>")


def join(parts: Iterable[object], between: str = "") -> Html:
    """Parts one after the other, each escaped unless it is markup."""
    return Html(between.join(text(part) for part in parts))


def code(value: object) -> Html:
    """A name, or a word of a program; lines may break after its dots."""
    return tag("code", Html(text(value).replace(".", ".<wbr>").replace("_", "_<wbr>")))


_PLAIN = "\n\u00a0"
_VOID = frozenset({"meta", "br", "wbr", "col", "link"})
_EMPTY = frozenset({"rect", "line", "circle", "path", "polyline"})


def _attribute(key: str, value: object) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{text(value)}"'
