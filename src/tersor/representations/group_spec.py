"""What a group is made of: its tensors and stages, and the sections it has in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tersor.lattice.planes import Planes
from tersor.representations import vectors
from tersor.representations.records import GroupRecord

if TYPE_CHECKING:
    from tersor.additive.alternate import EffortName

MEMORY = {"draft": 2, "default": 3, "best": 5}
"""Trellis memory by effort: 4 states are 0.1 dB behind 8, 32 states 0.1 dB ahead, at half and four times the time."""

SCALES = ("none", "tensor", "row")


@dataclass(frozen=True)
class GroupSpec:
    """What a group is made of: positions and shapes of its tensors, vector length, stages, settings of the recipe.

    A sparse group keeps the zeros of its tensors: they are masks and runs of what is left, the survivors. Codes are
    searched, and codebooks fitted, on `device`.
    """

    tensors: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    dim: int
    codebooks: tuple[int, int] | None
    lattice: bool
    scales: str
    effort: EffortName
    seed: int
    sparse: bool = False
    device: str = "cpu"

    def planes(self, survivors: Sequence[int] | None = None) -> Planes:
        """The scan order of the group; of a sparse one, given how many elements of each tensor are not zero."""
        return vectors.layout(self.shapes, self.dim, survivors)


def head_names(record: GroupRecord) -> list[str]:
    """Sections of a group before its chunks, in order."""
    names = ["scales"] if record.scales else []
    names += ["codebooks", "code tables"] if record.num_codebooks else []
    if record.lattice is not None:
        names += [*(["basis"] if record.lattice.basis else []), "energies", "lattice tables"]
    return names


def head_count(record: GroupRecord) -> int:
    """Number of sections of a group before its chunks."""
    return len(head_names(record))


def section_count(record: GroupRecord, chunks: int) -> int:
    """All sections of a group."""
    return head_count(record) + chunks * chunk_sections(record)


def chunk_sections(record: GroupRecord) -> int:
    """Sections of each chunk: codes, lattice symbols, masks, whichever the group has."""
    return (record.num_codebooks > 0) + (record.lattice is not None) + (record.survivors is not None)
