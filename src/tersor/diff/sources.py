"""One way to read archives and plain checkpoints: names first, then a tensor at a time."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tersor.archive import Archive
from tersor.checkpoint import Checkpoint, open_checkpoint

if TYPE_CHECKING:
    import torch
    from torch import nn

    Comparable = nn.Module | Mapping[str, Any] | str | os.PathLike[str] | Checkpoint | Archive

ROOM = 1 << 26
"""Bytes of tensors that wait, decoded before they are asked for."""

_MARK = b'{"__metadata__":{"tersor":'  # an archive's first bytes, behind the length of its header


@dataclass(frozen=True)
class Source:
    """Something with named tensors.

    Attributes:
        checkpoint: its tensors; of an archive as they are decoded.
        archive: the archive, if it is one.
        size: bytes of its file or files, None for what is in memory.
    """

    checkpoint: Checkpoint
    archive: Archive | None
    size: int | None

    def each(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All tensors that are tied to no other, in the order that is read fastest, keeping none."""
        if self.archive is not None:
            yield from self.archive.tensors()
            return
        for entry in self.checkpoint.entries:
            if entry.tied_to is None:
                yield entry.name, self.checkpoint.read(entry.name)

    def about(self) -> dict[str, Any]:
        """The source itself as plain data; `bytes` and `parameters` count tied tensors once."""
        return {
            "source": self.checkpoint.source,
            "size": self.size,
            "tensors": len(self.checkpoint.entries),
            "bytes": self.checkpoint.nbytes,
            "parameters": self.checkpoint.parameters,
        }


def open_source(given: Comparable) -> Source:
    """Open an archive, or whatever `open_checkpoint` takes; a file is an archive by its suffix or its first bytes.

    Raises:
        TersorError: it is missing, damaged, or of a kind unknown here.
    """
    if isinstance(given, (str, os.PathLike)) and _is_archive(given):
        given = Archive(os.fspath(given))
    if isinstance(given, Archive):
        return Source(as_checkpoint(given), given, given.size)
    checkpoint = given if isinstance(given, Checkpoint) else open_checkpoint(given)
    return Source(checkpoint, None, _size(checkpoint))


def as_checkpoint(archive: Archive, wanted: Collection[str] | None = None) -> Checkpoint:
    """The archive's tensors as a checkpoint's: what is read in about the order of the file is decoded in one go.

    Args:
        archive: any.
        wanted: names that will be read, all by default; others do not wait in memory.
    """
    return Checkpoint(archive.name, archive.entries, _Passing(archive, wanted).read)


class _Passing:
    """Tensors by name from one pass over an archive; those that pass before they are asked for wait, within `ROOM`.

    Alone, a tensor costs the chunk or the pool that it shares with others; so that is left to those that did not wait.
    """

    def __init__(self, archive: Archive, wanted: Collection[str] | None) -> None:
        self._archive, self._stream = archive, archive.tensors()
        self._wanted = set(archive if wanted is None else wanted)
        self._waiting: dict[str, torch.Tensor] = {}
        self._bytes = 0

    def read(self, name: str) -> torch.Tensor:
        """The tensor of a name that is tied to no other."""
        while name in self._wanted and name not in self._waiting and self._bytes <= ROOM:
            passing = next(self._stream, None)
            if passing is None:
                break
            if passing[0] in self._wanted:
                self._waiting[passing[0]] = passing[1]
                self._bytes += passing[1].nbytes
        self._wanted.discard(name)
        tensor = self._waiting.pop(name, None)
        if tensor is None:
            return self._archive[name]
        self._bytes -= tensor.nbytes
        return tensor


def _is_archive(path: str | os.PathLike[str]) -> bool:
    if os.fspath(path).lower().endswith(".tersor"):
        return True
    try:
        with open(path, "rb") as file:
            return file.read(8 + len(_MARK))[8:] == _MARK
    except OSError:
        return False  # a folder, or what `open_checkpoint` tells of


def _size(checkpoint: Checkpoint) -> int | None:
    """Bytes of the checkpoint's files: of all shards and their index, where it has them."""
    path = checkpoint.source
    if not os.path.isfile(path):
        return None
    if checkpoint.identity is None:
        return os.path.getsize(path)
    files = {os.path.join(os.path.dirname(path), name) for name in checkpoint.identity()} | {path}
    return sum(os.path.getsize(file) for file in files)
