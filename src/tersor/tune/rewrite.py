"""A frozen network as an archive: new heads and kept tensors, the very same streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from msgspec.structs import replace

from tersor.archive import Archive
from tersor.assemble import assemble
from tersor.checkpoint.memory import settle
from tersor.errors import TersorError
from tersor.index import DTYPES
from tersor.representations import kept
from tersor.representations.group import head_names, section_count
from tersor.representations.records import GroupRecord

NO_ERROR = 255
"""Tuned weights have left the originals on purpose: their distance says nothing, and is not stored."""


def rewritten(
    archive: Archive, groups: Sequence[tuple[GroupRecord, Mapping[str, bytes]]], values: Mapping[int, torch.Tensor]
) -> Archive:
    """The archive with other records and head sections (by name, where they change) and other kept tensors.

    Args:
        archive: where streams and everything else come from.
        groups: per group its record and its changed head sections.
        values: kept tensors by position.

    Raises:
        TersorError: a value is NaN or infinite.
    """
    sections, first = [], 0
    for g, (record, heads) in enumerate(groups):
        names = head_names(record)
        count = section_count(record, archive.group(g).chunks)
        for k in range(count):
            name = names[k] if k < len(names) else ""
            sections.append(heads[name] if name in heads else archive.section(first + k))
        first += count
    sections += kept_sections(archive, values)
    index = replace(
        archive.index,
        groups=tuple(record for record, _ in groups),
        errors=tuple(NO_ERROR for _ in archive.index.errors),
    )
    return Archive(assemble(index, sections))


def kept_sections(archive: Archive, values: Mapping[int, torch.Tensor]) -> list[bytes]:
    """Sections of the kept tensors, stored in the types that the archive stores them in.

    Raises:
        TersorError: a value is NaN or infinite (where it was neither in the archive).
    """
    index = archive.index
    tensors = []
    for i, _, stored in index.kept:
        tensor = settle(values[i]).to(getattr(torch, DTYPES[index.dtypes[i]])).to(getattr(torch, DTYPES[stored]))
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise TersorError(f"{index.names[i]} has become NaN or infinite in tuning; lower the learning rate")
        tensors.append((kept.raw(tensor), stored, DTYPES[stored]))
    return kept.sections(tensors)
