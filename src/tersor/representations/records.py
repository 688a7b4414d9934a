"""What the index says of a group: plain data; field order is the wire format (`docs/format.md`, "Index")."""

from __future__ import annotations

import msgspec

STREAM = 12
"""Bytes of a chunk's stream beside its bits: state of the coder, length and checksum in the index."""


class LatticeRecord(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The lattice stage of a group: step, trellis memory, whether there is a basis, centre shifts in 1/128 step."""

    step: float
    memory: int
    basis: bool
    shifts: tuple[int, int, int]


class DenseRecord(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A group as format version 1 has it: tensors that share codebooks and tables.

    `steps` holds the unit of each codebook's integers; `scales` is 0 none, 1 per tensor, 2 per row.
    """

    tensors: tuple[int, ...]
    dim: int
    num_codebooks: int
    codebook_size: int
    steps: tuple[float, ...]
    scales: int
    lattice: LatticeRecord | None


class GroupRecord(DenseRecord, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A group; `survivors` is None, or in a sparse group the number of elements of each tensor that are not zero."""

    survivors: tuple[int, ...] | None

    def dense(self) -> DenseRecord:
        """The same in the words of version 1; not for sparse groups."""
        return DenseRecord(*msgspec.structs.astuple(self)[:-1])
