"""Which section of a file holds what: groups, scalar groups, kept tensors, padding, in this order."""

from __future__ import annotations

import math
from functools import cached_property
from itertools import accumulate

from tersor.checkpoint.header import ITEM_BYTES
from tersor.index import DTYPES, Index
from tersor.representations import kept, scalars
from tersor.representations.group import section_count
from tersor.representations.vectors import chunks


class Sections:
    """Positions of sections, from the index alone."""

    def __init__(self, index: Index) -> None:
        self.index = index

    @cached_property
    def counts(self) -> list[int]:
        """Sections of each group, then of each scalar group."""
        found = []
        for record in self.index.groups:
            shapes = [self.index.shapes[i] for i in record.tensors]
            found.append(section_count(record, chunks(shapes, record.dim, record.survivors)))
        return found + [scalars.section_count(record) for record in self.index.scalars]

    @cached_property
    def firsts(self) -> list[int]:
        """The first section of each group, then of each scalar group, then of the kept tensors."""
        return list(accumulate(self.counts, initial=0))

    @property
    def kept_first(self) -> int:
        """The first section of the kept tensors."""
        return self.firsts[-1]

    @cached_property
    def kept_units(self) -> list[tuple[int, list[int]]]:
        """(stored type, positions) of the tensors in each section of kept tensors."""
        records = self.index.kept
        units = kept.units([(stored, self._stored_bytes(i, stored)) for i, _, stored in records])
        return [(records[members[0]][2], [records[k][0] for k in members]) for members in units]

    def _stored_bytes(self, i: int, stored: int) -> int:
        return math.prod(self.index.shapes[i]) * ITEM_BYTES[DTYPES[stored]]

    @property
    def expected(self) -> int:
        """How many sections there are, with the padding."""
        return self.kept_first + len(self.kept_units) + 1

    def name(self, i: int) -> str:
        """What a section holds, for messages."""
        for g, (first, count) in enumerate(zip(self.firsts, self.counts, strict=False)):
            if first <= i < first + count:
                return f"group {g}"
        return "kept tensors" if i < len(self.index.lengths) - 1 else "padding"

    def bytes_of(self, g: int) -> int:
        """Bytes of all sections of the g-th group."""
        return sum(self.index.lengths[self.firsts[g] : self.firsts[g] + self.counts[g]])
