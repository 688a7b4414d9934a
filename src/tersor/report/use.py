"""Use of codebooks and levels, group by group, in as many rows as a figure has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tersor.archive import Archive
from tersor.report import layers, sharing, symbols
from tersor.report.facts import Facts
from tersor.report.sharing import Shares

ROWS = 24


@dataclass(frozen=True)
class Use:
    """One group's symbols.

    Attributes:
        text: the group in the field's shorthand.
        kind: what is counted: "codewords", "levels", "integers" or "shared values".
        first: what the first symbol of a row stands for (levels and integers are signed).
        rows: layers, or several together.
        counts: of each row, codebook and symbol, int64 [R, M, K].
        layers: tensors that have any symbols.
        shares, chance: of codewords in use, those used in several layers; and what chance would give.
        overlap: 1 - Jensen-Shannon divergence between rows [R, R], mean over codebooks.
        between, between_by_chance: its mean between different rows; and what chance would give.
    """

    text: str
    kind: str
    first: int
    rows: tuple[layers.Row, ...]
    counts: NDArray[np.int64]
    layers: int
    shares: Shares
    chance: Shares
    overlap: NDArray[np.float64]
    between: float
    between_by_chance: float


def use_of(archive: Archive, facts: Facts, g: int) -> Use:
    """Count the symbols of the g-th group; scalar groups come after the others.

    Raises:
        ArchiveError: a section is damaged.
    """
    members = archive.index.coded[g]
    names = [facts.tensors[i].name for i in members]
    rows = layers.rows(names, [facts.tensors[i].numel for i in members], ROWS)
    place = {members[k]: r for r, row in enumerate(rows) for k in row.members}
    counts: NDArray[np.int64] | None = None
    sizes = []
    for i, found in symbols.symbols_of(archive, g):
        if counts is None:
            counts = np.zeros((len(rows), *found.shape), dtype=np.int64)
            users = np.zeros(found.shape, dtype=np.int64)
        counts[place[i]] += found
        users += found > 0
        sizes.append(int(found[0].sum()))
    assert counts is not None  # a group has a tensor at least
    there = sum(n > 0 for n in sizes)
    overlap = 1 - sharing.divergence(counts)
    chance = 1 - sharing.divergence_by_chance(counts)
    kind, first = _kind(archive, g)
    return Use(
        archive_text(archive, g), kind, first, tuple(rows), counts, there, sharing.observed(users, there),
        sharing.expected(counts.sum(axis=0), sizes), overlap, sharing.mean_between(overlap),
        sharing.mean_between(chance),
    )  # fmt: skip


def archive_text(archive: Archive, g: int) -> str:
    """The g-th group in the field's shorthand."""
    from tersor.usage import representation

    index = archive.index
    return representation(index.groups[g]) if g < len(index.groups) else index.scalars[g - len(index.groups)].text


def _kind(archive: Archive, g: int) -> tuple[str, int]:
    """What the symbols of a group are, and what the first one stands for."""
    index = archive.index
    if g < len(index.groups):
        return ("codewords", 0) if index.groups[g].num_codebooks else ("levels", -symbols.SIDE)
    record = index.scalars[g - len(index.groups)]
    if not record.bits:
        return "shared values", 0
    from tersor.representations.affine import limits

    return "integers", limits(record.bits, record.zeros)[0]
