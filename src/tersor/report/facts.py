"""What a report tells, as plain data: every byte of the file has its place, every tensor its bits and its error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tersor.archive import Archive
from tersor.checkpoint.header import ITEM_BYTES
from tersor.index import DTYPES
from tersor.report.layers import LONGEST, short
from tersor.usage import describe


@dataclass(frozen=True)
class Tensor:
    """One tensor.

    Attributes:
        name, shape, dtype: as it came.
        kind: "coded", "kept", "rule" or "tied".
        representation: in the field's shorthand.
        before: bytes as it came; 0 where it is tied to another.
        after: bytes in the file, its part of shared codebooks and tables left out.
        bits: per weight, of a coded tensor.
        error_db: squared error over the tensor's energy, from the index; None where the index tells none.
        reason: why it was kept.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    kind: str
    representation: str
    before: int
    after: float
    bits: float | None = None
    error_db: float | None = None
    reason: str = ""

    @property
    def shown(self) -> str:
        """Its name, or the end of it where it is very long: for the eye."""
        return short(self.name, LONGEST)

    @property
    def numel(self) -> int:
        """Elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Facts:
    """An archive as a report sees it.

    Attributes:
        file: its name without the folder.
        size: bytes of the file.
        given, parameters: bytes and elements of the checkpoint as it came, before any passes; tied tensors once.
        tool, recipe, passes: as the file tells.
        tensors: all, in the file's order.
        shared: bytes that belong to no one tensor, by what they are: codebooks and tables of each group, the index.
        removed: bytes of the checkpoint that passes took away.
    """

    file: str
    size: int
    given: int
    parameters: int
    tool: str
    recipe: dict[str, Any]
    passes: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    shared: tuple[tuple[str, float], ...]
    removed: int

    @property
    def ratio(self) -> float:
        """How many times smaller."""
        return self.given / self.size

    @property
    def bits_per_parameter(self) -> float:
        """Bits of the whole file for each parameter."""
        return 8 * self.size / max(self.parameters, 1)

    @property
    def coded(self) -> list[Tensor]:
        """Tensors with codes, symbols or masks."""
        return [t for t in self.tensors if t.kind == "coded"]

    @property
    def owned(self) -> list[int]:
        """Positions of tensors that are tied to no other."""
        return [i for i, t in enumerate(self.tensors) if t.kind != "tied"]


def gather(archive: Archive) -> Facts:
    """Read an archive; symbols are decoded and counted.

    Raises:
        ArchiveError: a section is damaged.
    """
    found = describe(archive)
    index = archive.index
    kept = _kept_bytes(archive)
    reasons = {i for i, _, _ in index.kept}
    tensors = []
    for i, told in enumerate(found["tensors"]):
        kind = "tied" if i in index.ties else "kept" if i in reasons else "coded" if "bytes" in told else "rule"
        size = math.prod(told["shape"]) * ITEM_BYTES[told["dtype"]]
        tensors.append(
            Tensor(
                told["name"],
                tuple(told["shape"]),
                told["dtype"],
                kind,
                told["representation"],
                before=0 if kind == "tied" else size,
                after=kept.get(i, told.get("bytes", 0)),
                bits=told.get("bits_per_weight"),
                error_db=told["error_db"],
                reason=told.get("reason", ""),
            )
        )
    return Facts(
        file=archive.name.replace("\\", "/").rsplit("/", 1)[-1],
        size=archive.size,
        given=found["bytes"],
        parameters=found["parameters"],
        tool=found["tool"],
        recipe=found["recipe"],
        passes=archive.passes,
        tensors=tuple(tensors),
        shared=_shared(archive, found["groups"], tensors),
        removed=max(found["bytes"] - archive.given[0], 0),
    )


def _kept_bytes(archive: Archive) -> dict[int, float]:
    """Bytes in the file of each kept tensor: its part of the compressed section that it stands in."""
    index = archive.index
    out: dict[int, float] = {}
    for s, (stored, members) in enumerate(archive.sections.kept_units):
        sizes = [math.prod(index.shapes[i]) * ITEM_BYTES[DTYPES[stored]] for i in members]
        length, total = index.lengths[archive.sections.kept_first + s], max(sum(sizes), 1)
        out |= {i: length * size / total for i, size in zip(members, sizes, strict=True)}
    return out


def _shared(archive: Archive, groups: list[dict[str, Any]], tensors: list[Tensor]) -> tuple[tuple[str, float], ...]:
    """What is left of each group's bytes beside its tensors', and of the file's beside all groups."""
    index, parts = archive.index, []
    for g, members in enumerate(index.coded):
        own = sum(tensors[i].after for i in members)
        what = "codebooks and tables" if groups[g]["codebooks"] else "tables"
        what = "scales or shared values" if g >= len(index.groups) else what
        parts.append((f"{what} of {groups[g]['representation']}", max(archive.sections.bytes_of(g) - own, 0.0)))
    sections = sum(index.lengths[:-1])
    return (*parts, ("index, checksums, header", float(archive.size - sections)))
