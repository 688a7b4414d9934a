"""An index and sections become the bytes of a file."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec.structs import replace

import tersor
from tersor import index as indices
from tersor.checkpoint import Entry
from tersor.codec import container
from tersor.index import DTYPES, ELEMENTS_PER_BYTE, GRACE, Index
from tersor.recipe import Recipe
from tersor.representations.made import Made
from tersor.representations.records import GroupRecord
from tersor.representations.scalars import ScalarRecord


def assemble(index: Index, sections: list[bytes]) -> bytes:
    """The file: header, index, sections; padded where shapes would otherwise look implausible to a reader.

    Args:
        index: complete but for `tool`, `lengths` and `checks`, which are set here.
        sections: without the padding, which is added here.
    """
    start, padding = begin(index, [len(s) for s in sections], [container.checksum(s) for s in sections])
    return b"".join([start, *sections, padding])


def begin(index: Index, lengths: Sequence[int], checks: Sequence[int]) -> tuple[bytes, bytes]:
    """What stands before sections of these lengths and checksums, and the padding that stands behind them."""
    elements = sum(math.prod(shape) for i, shape in enumerate(index.shapes) if i not in index.ties)
    padding = bytes(max(0, elements // ELEMENTS_PER_BYTE - GRACE - sum(lengths)))
    packed = indices.pack(
        replace(
            index,
            tool=tersor.__version__,
            lengths=(*lengths, len(padding)),
            checks=(*checks, container.checksum(padding)),
        )
    )
    data_length = sum(lengths) + len(padding)
    return container.header(len(packed), data_length, indices.version_of(index)) + packed, padding


def index_of(
    entries: Sequence[Entry],
    recipe: Recipe,
    kept: Sequence[tuple[int, int, int]],
    groups: Sequence[tuple[GroupRecord, Sequence[int]]],
    scalars: Sequence[tuple[ScalarRecord, Sequence[int]]] = (),
    made: Sequence[tuple[int, Made]] = (),
) -> Index:
    """The index of a checkpoint's tensors, still without sections.

    Args:
        entries: of the checkpoint.
        recipe: to be told.
        kept: records of kept tensors.
        groups: the record of each group, and the error of each of its tensors.
        scalars: the same of scalar groups.
        made: tensors that are rules.
    """
    position = {e.name: i for i, e in enumerate(entries)}
    return Index(
        tool="",
        recipe=recipe.as_dict(),
        names=tuple(e.name for e in entries),
        dtypes=tuple(DTYPES.index(e.dtype) for e in entries),
        shapes=tuple(e.shape for e in entries),
        ties={position[e.name]: position[e.tied_to] for e in entries if e.tied_to is not None},
        kept=tuple(kept),
        groups=tuple(record for record, _ in groups),
        errors=tuple(e for _, errors in (*groups, *scalars) for e in errors),
        lengths=(),
        checks=(),
        scalars=tuple(record for record, _ in scalars),
        made=tuple(made),
    )
