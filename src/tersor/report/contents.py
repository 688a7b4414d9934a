"""The sections of what was kept and why, and of all tensors in a table."""

from __future__ import annotations

from tersor.report import layers, words
from tersor.report.facts import Facts, Tensor
from tersor.report.html import Html, code, tag
from tersor.report.parts import section, table

MOST = 400
"""Rows of the table of all tensors."""

_WHY = {
    "integers": "counters and indices are no weights",
    "booleans": "masks are no weights",
    "complex": "complex numbers are not coded",
    "8-bit floats": "they are compressed already",
    "one-dimensional": "biases and norms are few, and the network is sensitive to them",
    "small": "fewer elements than min_size: tables would cost more than they save",
    "excluded": "the recipe says so",
    "empty": "nothing to code",
    "exact": "the network needs them exactly",
    "precision": "the scheme is a type of floats, and nothing else",
}


def kept(facts: Facts) -> Html:
    """The section of tensors that are not coded."""
    head = "What was kept, and why"
    rows = []
    by_reason: dict[tuple[str, str], list[Tensor]] = {}
    for t in facts.tensors:
        if t.kind == "kept":
            by_reason.setdefault((t.reason, t.representation), []).append(t)
        elif t.kind == "rule":
            by_reason.setdefault(("follows from a rule", t.representation), []).append(t)
    if not by_reason:
        return section("kept", head, "Nothing was kept: all tensors are coded.", *_ties(facts))
    for (reason, how), members in sorted(by_reason.items(), key=lambda item: -sum(t.after for t in item[1])):
        before, after = sum(t.before for t in members), sum(t.after for t in members)
        why = _WHY.get(reason, "a few numbers say all of it")
        names = words.few([t.shown for t in members], 2)
        rows.append([reason, why, how, f"{len(members):,}", words.size(before), words.size(after), code(names)])
    total = [t for t in facts.tensors if t.kind in ("kept", "rule")]
    came = words.percent(sum(t.before for t in total) / max(facts.given, 1))
    now = words.percent(sum(t.after for t in total) / facts.size)
    told = (
        f"{words.count(len(total), 'tensor')} of {len(facts.tensors):,} are not coded: {came} of the checkpoint's "
        f"bytes, {now} of the file's."
    )
    heads = ("Reason", "Why", "Stored", "Tensors", "Before", "In the file", "For example")
    return section(
        "kept",
        head,
        told,
        table(heads, rows, "Tensors without codes, by reason", wide=(1, 6), numbers=(3, 4, 5)),
        *_ties(facts),
    )


def _ties(facts: Facts) -> tuple[Html, ...]:
    tied = [t for t in facts.tensors if t.kind == "tied"]
    if not tied:
        return ()
    told = f"{words.count(len(tied), 'tensor')} tied to another, stored once: {words.few([t.shown for t in tied])}."
    return (tag("p", told),)


def tensors(facts: Facts) -> Html:
    """The section with every tensor, folded."""
    head = "All tensors"
    if not facts.tensors:
        return section("tensors", head, "The file holds no tensors.")
    places = layers.order([t.name for t in facts.tensors])
    rows = [_row(facts.tensors[i]) for i in places[:MOST]]
    heads = ("Name", "Shape", "Type", "Stored as", "Before", "In the file", "Bits", "Error")
    told = "Bytes in the file are a tensor's own; codebooks and tables come beside them."
    if len(places) > MOST:
        told += f" The first {MOST} of {len(places):,}: tersor inspect lists them all."
    inner = table(heads, rows, "Tensors in the order of the network", numbers=(4, 5, 6, 7))
    shown = f"Show {words.count(len(rows), 'tensor')}"
    return section("tensors", head, told, tag("details", tag("summary", shown), inner))


def _row(t: Tensor) -> list[object]:
    error = "" if t.error_db is None else words.decibels(t.error_db)
    bits = "" if t.bits is None else f"{t.bits:.2f}"
    before, after = ("", "") if t.kind == "tied" else (words.size(t.before), words.size(t.after))
    return [code(t.shown), words.shape(t.shape), t.dtype, t.representation, before, after, bits, error]
