"""Finished pieces become the archive: an index of them all, then their bytes one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from tersor.assemble import begin, index_of
from tersor.codec import integers
from tersor.codec.container import checksum
from tersor.errors import TersorError
from tersor.files import atomic_output, disk_reason
from tersor.keep import Kept
from tersor.plan import Plan
from tersor.recipe import Recipe
from tersor.representations import measures
from tersor.representations.chunk_coder import Heads
from tersor.representations.records import GroupRecord
from tersor.stream import blocks
from tersor.stream.calibrate import Calibrated, Whole
from tersor.stream.crew import Crew
from tersor.stream.work import Work


def kept_name(kept: Kept, unit: int) -> str:
    """The piece of the work folder that holds a section of kept tensors."""
    return f"kept-{len(kept.records)}-{unit}"


def block_names(tag: str, i: int) -> tuple[str, str]:
    """The pieces that hold the head and the streams of the i-th block of a pass; `tag` names the pass and its heads."""
    return f"head-{tag}-{i}", f"block-{tag}-{i}"


@dataclass(frozen=True)
class Made:
    """What has been made: kept tensors, and unless everything is kept a finished pass with its blocks."""

    kept: Kept
    tag: str = ""
    calibrated: Calibrated | None = None
    blocks: Sequence[blocks.Block] = ()


class File:
    """An archive still in pieces.

    Args:
        plan, recipe: what is told of it.
        work: where the pieces are.
        made: which they are.
    """

    def __init__(self, plan: Plan, recipe: Recipe, work: Work, made: Made) -> None:
        self._work, self._made = work, made
        lengths: list[int] = []
        checks: list[int] = []
        groups: list[tuple[GroupRecord, Sequence[int]]] = []
        self._heads: list[list[bytes]] = []
        self._sizes: dict[int, int] = {}
        found = made.calibrated.groups if made.calibrated is not None else ()
        for g, group in enumerate(found):
            if isinstance(group, Whole):
                own, errors = list(group.sections), list(group.errors)
                self._heads.append(own)
                lengths += map(len, own)
                checks += map(checksum, own)
            else:
                own, errors = self._add_streams(g, group, lengths, checks)
                self._heads.append(own)
            groups.append((group.record, errors))
        for unit in range(len(made.kept.units)):
            section = work.need(kept_name(made.kept, unit))
            lengths.append(len(section))
            checks.append(checksum(section))
        index = index_of(plan.entries, recipe, made.kept.records, groups)
        self._start, self._padding = begin(index, lengths, checks)
        self.size = len(self._start) + sum(lengths) + len(self._padding)
        """Bytes of the file."""

    def _add_streams(
        self, g: int, group: Heads, lengths: list[int], checks: list[int]
    ) -> tuple[list[bytes], list[int]]:
        """Head sections of a group, and the errors of its tensors; adds to lengths and checksums."""
        count = len(group.record.tensors)
        error, energy, levels = np.zeros(count), np.zeros(count), list(group.levels)
        streams: list[tuple[int, int]] = []
        for i in self._blocks_of(g):
            head = msgspec.msgpack.decode(self._work.need(block_names(self._made.tag, i)[0]), type=blocks.Head)
            self._sizes[i] = sum(head.lengths)
            streams += zip(head.lengths, head.checks, strict=True)
            levels += head.levels
            for piece in head.errors:  # in the order of the file: sums of floats are the same whoever coded what
                error[piece.tensor] += piece.error
                energy[piece.tensor] += piece.energy
        own = [integers.pack(np.array(levels, dtype=np.int64))] if group.record.scales else []
        own += group.sections
        lengths += [*map(len, own), *(length for length, _ in streams)]
        checks += [*map(checksum, own), *(check for _, check in streams)]
        return own, [measures.half_decibels(e, s) for e, s in zip(error, energy, strict=True)]

    def _blocks_of(self, g: int) -> Iterator[int]:
        return (i for i, block in enumerate(self._made.blocks) if block.group == g)

    def write_frame(self, file: BinaryIO) -> dict[int, int]:
        """Write everything but the blocks; returns where each block goes."""
        places: dict[int, int] = {}
        file.write(self._start)
        for g, own in enumerate(self._heads):
            file.writelines(own)
            for i in self._blocks_of(g):
                places[i] = file.tell()
                file.seek(self._sizes[i], os.SEEK_CUR)
        for unit in range(len(self._made.kept.units)):
            file.write(self._work.need(kept_name(self._made.kept, unit)))
        file.write(self._padding)
        return places


def write(file: File | None, out: str | os.PathLike[str], tag: str, work: Work, crew: Crew, *, force: bool) -> None:
    """Write a file, whole or not at all; the processes on the first one's machine copy blocks to their places.

    Not those on others: file systems of networks may lose what two machines write into one page.

    Args:
        file: what is written; of the first process, which has it.
        out: the path, in a folder that all processes see.
        tag: of the pass that its blocks are of.
        work, crew: where they are, and who copies them.
        force: replace what is there.

    Raises:
        TersorError: it cannot be written.
    """

    def copy(frame: tuple[str, dict[int, int]]) -> None:
        path, places = frame

        def one(i: int) -> None:
            data = work.need(block_names(tag, i)[1])
            try:
                with open(path, "r+b") as to:
                    to.seek(places[i])
                    to.write(data)
            except OSError as error:
                raise TersorError(f"cannot write {out}: {disk_reason(error, Path(path))}") from error

        if (mine := crew.team.beside_first()) is not None:
            crew.run(one, [*places][mine[0] :: mine[1]])
        crew.team.gather("copied", None)

    if file is None:
        copy(crew.team.share("frame", lambda: ("", {})))
    else:
        with atomic_output(out, force=force, within=work.folder) as target:
            places = file.write_frame(target)
            target.flush()
            copy(crew.team.share("frame", lambda: (target.name, places)))
    crew.team.gather("written", None)  # until then it has not its name
