"""The section of sizes: where the checkpoint's bytes were, and where the file's are."""

from __future__ import annotations

from collections.abc import Sequence

from tersor.report import layers, scale, treemap, words
from tersor.report.facts import Facts
from tersor.report.html import Html, tag
from tersor.report.parts import section
from tersor.report.treemap import Cell

ROWS = 44
_SHOWN = 0.005  # of the file: smaller shared parts are one cell


def sizes(facts: Facts) -> Html:
    """The section."""
    head = "Size, before and after"
    owned = facts.owned
    if not owned:
        return section("size", head, "The file holds no tensors: there is no size to divide.")
    rows = layers.rows([facts.tensors[i].name for i in owned], [facts.tensors[i].before for i in owned], ROWS)
    members = [[owned[k] for k in row.members] for row in rows]
    if not any(facts.tensors[i].before for i in owned):
        return section("size", head, "All tensors are empty: there is no size to divide.")
    before = _map(facts, rows, members, False)
    after = _map(facts, rows, members, True)
    legend = scale.legend(
        ["1", "1.5", "2", "3", "4", "8", "16"], "Bits per weight",
        [("shared", "codebooks, tables, index"), *([("gone", "taken away by passes")] if facts.removed else [])],
    )  # fmt: skip
    return section("size", head, _told(facts), tag("div", before, after, class_="pair"), legend)


def _told(facts: Facts) -> str:
    coded = sum(t.after for t in facts.coded)
    kept = [t for t in facts.tensors if t.kind == "kept"]
    stored, shared = sum(t.after for t in kept), sum(b for _, b in facts.shared)
    parts = [f"{words.percent(coded / facts.size)} of the file is the coded weights"]
    if kept:
        came = sum(t.before for t in kept) / max(facts.given, 1)
        parts.append(f"{words.percent(stored / facts.size)} tensors kept as they are ({words.percent(came)} before)")
    parts.append(f"{words.percent(shared / facts.size)} what tensors share: codebooks, tables, the index")
    return f"{', '.join(parts[:-1])}, and {parts[-1]}. Each map is drawn to its own size."


def _map(facts: Facts, rows: Sequence[layers.Row], members: Sequence[Sequence[int]], after: bool) -> Html:
    """One treemap; rows of one prefix form a group."""
    cut = layers.stem([row.label for row in rows])
    total = facts.size if after else max(facts.given, 1)
    groups: dict[str, list[Cell]] = {}
    for row, inside in zip(rows, members, strict=True):
        weight = sum(facts.tensors[i].after if after else facts.tensors[i].before for i in inside)
        numel = sum(facts.tensors[i].numel for i in inside)
        bits = 8 * weight / max(numel, 1)
        label = row.label.removeprefix(cut)
        told = f"{row.label}: {words.size(weight)}, {words.percent(weight / total)}; {bits:.2f} bits per weight"
        cell = Cell(weight, f"s{scale.of(bits, scale.BITS)}", _labels(label), told, words.size(weight))
        groups.setdefault(label.split(".", 1)[0], []).append(cell)
    if after:
        groups["\0shared"] = _shared(facts)
    elif facts.removed:
        told = f"taken away by passes: {words.size(facts.removed)}"
        groups["\0gone"] = [Cell(facts.removed, "gone", ("taken away", "gone"), told, words.size(facts.removed))]
    what = f"after: {words.size(facts.size)}" if after else f"before: {words.size(facts.given)}"
    picture = treemap.draw(list(groups.values()), f"Treemap of bytes by layer, {what}")
    return tag("figure", tag("figcaption", tag("strong", what[0].upper() + what[1:])), picture)


def _shared(facts: Facts) -> list[Cell]:
    large = [(what, size) for what, size in facts.shared if size >= _SHOWN * facts.size]
    rest = sum(size for _, size in facts.shared) - sum(size for _, size in large)
    parts = [*large, ("small shared parts", rest)]
    return [
        Cell(
            b, "shared", (what, what.split(" ", 1)[0].rstrip(","), "shared"), f"{what}: {words.size(b)}", words.size(b)
        )
        for what, b in parts
    ]


def _labels(label: str) -> tuple[str, ...]:
    """From the whole label to its last part."""
    parts = label.split(".")
    return (label, *("…" + ".".join(parts[k:]) for k in range(1, len(parts))), parts[-1])
