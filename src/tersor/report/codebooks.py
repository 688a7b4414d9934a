"""The section of codebooks: who uses which codewords or levels, and how alike layers are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tersor.archive import Archive
from tersor.report import heat, scale, symbols, use, words
from tersor.report.facts import Facts
from tersor.report.html import Html, tag
from tersor.report.parts import section
from tersor.report.use import Use

GROUPS = 3
_BINS = 96  # columns of a map, all codebooks together


def codebooks(archive: Archive, facts: Facts) -> Html:
    """The section; the groups of most weights are shown, and of the others it is told how many there are."""
    head = "Codebooks: use, and sharing between layers"
    members = archive.index.coded
    if not members:
        return section("codebooks", head, "No tensor is coded, so there are no codebooks and no levels to share.")
    weights = [sum(facts.tensors[i].numel for i in group) for group in members]
    ranked = sorted(range(len(members)), key=lambda g: (-weights[g], g))
    shown = [use.use_of(archive, facts, g) for g in ranked[:GROUPS]]
    told = _told(shown[0])
    rest = sum(weights[g] for g in ranked[GROUPS:])
    if rest:
        share = words.percent(rest / sum(weights))
        told += f" {words.count(len(ranked) - GROUPS, 'smaller group')}, {share} of the coded weights, not shown."
    return section("codebooks", head, told, *(_group(one) for one in shown))


def _told(one: Use) -> str:
    if one.layers < 2:
        return "A set of codebooks, or of tables, serves one layer only here: nothing is shared between layers."
    what = one.kind
    told = (
        f"Of the {what} in use, {words.percent(one.shares.two)} are used in two layers or more and "
        f"{words.percent(one.shares.half)} in half of them or more"
    )
    chance = (
        f"({words.percent(one.chance.two)} and {words.percent(one.chance.half)} if all drew from one common histogram)"
    )
    return f"{told} {chance}."


def _group(one: Use) -> Html:
    """Maps of one group."""
    labels = [row.label for row in one.rows]
    name = tag("h3", tag("code", one.text), f": {words.count(one.layers, 'layer')}, {_books(one)}")
    columns, marks, edges, legend = _columns(one)
    sums = columns.sum(axis=2, keepdims=True)
    share = columns / np.maximum(sums, 1)
    cells, told = [], []
    for r in range(len(labels)):
        line: list[int | None] = []
        for m in range(columns.shape[1]):
            line += [None] * (m > 0)
            line += [scale.of(v, edges) for v in share[r, m] * (columns.shape[2] if edges is scale.EVEN else 1)]
        cells.append(line)
        told.append(_row_told(one, r))
    figure = tag("figure", heat.draw(labels, cells, told, marks, "How often each layer uses them"), legend)
    if len(labels) < 2:
        alone = tag("p", "One layer only: there is no other to compare it with.", class_="told")
        return tag("div", name, alone, tag("div", figure, class_="pair"), class_="group")
    return tag("div", name, tag("div", figure, _overlap(one, labels), class_="pair"), class_="group")


def _books(one: Use) -> str:
    m, k = one.counts.shape[1:]
    used = int((one.counts.sum(axis=0) > 0).sum())
    if one.kind == "codewords":
        return f"{words.count(m, 'codebook')} of {k}, {used:,} of {m * k:,} codewords in use"
    if one.kind == "levels":
        present = np.flatnonzero(one.counts.sum(axis=(0, 1)))
        largest = symbols.magnitude_of(int(np.abs(present - symbols.SIDE).max(initial=0)))
        return f"levels up to ±{largest:,}" if largest < symbols.EDGE else f"levels beyond ±{largest - 1:,}"
    return f"{used} different {one.kind}"


def _row_told(one: Use, r: int) -> str:
    counts = one.counts[r]
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    entropy = float(-(share * np.log2(np.where(share > 0, share, 1))).sum())
    vectors = int(counts[0].sum())
    what = "vectors" if one.kind == "codewords" else "symbols"
    used = f"{int((counts > 0).sum()):,} {one.kind} used"
    return f"{one.rows[r].label}: {vectors:,} {what}, {used}, entropy {entropy:.2f} bits"


def _columns(one: Use) -> tuple[NDArray[np.int64], list[tuple[float, str]], Sequence[float], Html]:
    """Counts [R, M, columns] as they are shown, texts above the columns, classes and their legend."""
    m, k = one.counts.shape[1:]
    if one.kind == "levels":
        return _octaves(one)
    bins = min(k, max(_BINS // m, 4))
    edges = np.linspace(0, k, bins + 1).astype(int)[:-1]
    shown = np.add.reduceat(one.counts, edges, axis=2)
    if one.kind == "codewords":
        marks = [(b * (bins + 1) + bins / 2, f"codebook {b + 1}" if m <= 4 else f"{b + 1}") for b in range(m)]
        ends = [f"1/{round(1 / v)}" if v < 1 else f"{v:g}" for v in scale.EVEN]
        legend = scale.legend(ends, "Use, beside even use (codewords in order of use)")
        return shown, marks, scale.EVEN, legend
    marks = [(0, f"{one.first}".replace("-", "−")), (bins, f"{one.first + k - 1}")]
    return shown, marks, scale.SHARE, _share_legend("Share of symbols")


def _octaves(one: Use) -> tuple[NDArray[np.int64], list[tuple[float, str]], Sequence[float], Html]:
    """Levels in octaves of their magnitude: zero, 1, 2 and 3, 4 to 7, and so on as far as there are any."""
    middle = symbols.SIDE
    present = np.flatnonzero(one.counts.sum(axis=(0, 1)))
    largest = max(int(np.abs(present - middle).max(initial=0)), 8)
    octaves = [int(symbols.column_of(np.array([1 << j]))[0]) for j in range(31)]
    octaves = [column for column in octaves if column <= largest]
    count, zero = len(octaves), len(octaves) + 0.5
    ends = [middle - column + 1 for column in reversed(octaves[1:])]
    shown = np.add.reduceat(one.counts, [0, *ends, middle, *(middle + column for column in octaves)], axis=2)
    every = 1 + count // 3
    marks = [(zero + sign * (j + 1), f"{'−' * (sign < 0)}{1 << j}")
             for j in range(every - 1, count, every) for sign in (-1, 1)]  # fmt: skip
    legend = _share_legend("Share of symbols; a column is an octave of levels")
    return shown, [*marks, (zero, "0")], scale.SHARE, legend


def _share_legend(title: str) -> Html:
    return scale.legend([f"{100 * v:g}%" for v in scale.SHARE], title)


def _overlap(one: Use, labels: Sequence[str]) -> Html:
    """The map of layers by layers."""
    count = len(labels)
    cells = [[scale.of(v, scale.OVERLAP) for v in row] for row in one.overlap]
    told = [[f"{labels[a]} and {labels[b]}: {100 * one.overlap[a, b]:.0f} % alike" for b in range(count)]
            for a in range(count)]  # fmt: skip
    every = 1 if count <= 12 else 2 if count <= 24 else 4
    marks = [(b + 0.5, str(b + 1)) for b in range(0, count, every)]
    picture = heat.draw(labels, cells, told, marks, "How alike layers are", numbered=True)
    legend = scale.legend(
        [f"{100 * v:g}%" for v in scale.OVERLAP], "Alike: 1 − Jensen-Shannon divergence of the histograms"
    )
    mean = (
        f"Two different layers are {100 * one.between:.0f} % alike on average; they would be "
        f"{100 * one.between_by_chance:.0f} % if all drew from one common histogram."
    )
    return tag("figure", picture, legend, tag("figcaption", mean))
