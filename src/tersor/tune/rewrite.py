"""A frozen network as an archive: new heads and kept tensors, the very same streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from msgspec.structs import replace

from tersor.archive import Archive
from tersor.assemble import assemble
from tersor.checkpoint.memory import settle
from tersor.errors import TersorError
from tersor.index import DTYPES, REASONS, Index
from tersor.representations import affine, kept
from tersor.representations.group import head_names, section_count
from tersor.representations.records import GroupRecord
from tersor.representations.scalars import ScalarRecord, encode_integers

NO_ERROR = 255
"""Tuned weights have left the originals on purpose: their distance says nothing, and is not stored."""


def rewritten(
    archive: Archive,
    groups: Sequence[tuple[GroupRecord, Mapping[str, bytes]]],
    values: Mapping[int, torch.Tensor],
    scalars: Sequence[tuple[ScalarRecord, bytes]] = (),
) -> Archive:
    """The archive with other records and head sections (by name, where they change) and other kept tensors.

    Args:
        archive: where streams and everything else come from.
        groups: per group its record and its changed head sections.
        values: kept tensors by position.
        scalars: per scalar group its record and its first section.

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
    for scalar, head in scalars:
        sections += [head, *(archive.section(first + 1 + t) for t in range(len(scalar.tensors)))]
        first += 1 + len(scalar.tensors)
    sections += kept_sections(archive.index, values)
    index = replace(
        archive.index,
        groups=tuple(record for record, _ in groups),
        scalars=tuple(record for record, _ in scalars),
        errors=tuple(NO_ERROR for _ in archive.index.errors),
    )
    return Archive(assemble(index, sections))


def with_kept(archive: Archive, values: Mapping[int, torch.Tensor], few: Sequence[int], bits: int) -> Archive:
    """The archive with other kept tensors, some of them (`few`) as integers of so many bits with zero points.

    Args:
        archive: where codes come from.
        values: all kept tensors by position.
        few: positions of those that become integers.
        bits: of these.
    """
    index = archive.index
    first = archive.sections.kept_first
    sections = [archive.section(i) for i in range(first)]
    scalars, errors = index.scalars, index.errors
    if few:
        arrays = [settle(values[i]).float().numpy() for i in few]
        grids = [None] * len(few)
        record, parts, _ = encode_integers(tuple(few), arrays, bits, affine.PER_TENSOR, True, grids)
        sections += parts
        scalars, errors = (*scalars, record), (*errors, *(NO_ERROR for _ in few))
    kept_records = tuple(record for record in index.kept if record[0] not in set(few))
    changed = replace(index, kept=kept_records, scalars=scalars, errors=errors)
    sections += kept_sections(changed, values)
    return Archive(assemble(changed, sections))


def kept_sections(index: Index, values: Mapping[int, torch.Tensor]) -> list[bytes]:
    """Sections of the kept tensors, stored in the types that the archive stores them in.

    Raises:
        TersorError: a value is NaN or infinite (where it was neither in the archive).
    """
    tensors = []
    for i, reason, stored in index.kept:
        tensor = settle(values[i]).to(getattr(torch, DTYPES[index.dtypes[i]])).to(getattr(torch, DTYPES[stored]))
        excluded = REASONS[reason] == "excluded"  # kept bit for bit, whatever it holds
        if not excluded and tensor.is_floating_point() and not tensor.isfinite().all():
            raise TersorError(f"{index.names[i]} has become NaN or infinite in tuning; lower the learning rate")
        tensors.append((kept.raw(tensor), stored, DTYPES[stored]))
    return kept.sections(tensors)
