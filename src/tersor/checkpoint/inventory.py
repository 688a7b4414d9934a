"""What is in a checkpoint: its tensors by name, which of them are one and the same, and how to read each."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tersor.checkpoint.header import ITEM_BYTES
from tersor.errors import TersorError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Entry:
    """One named tensor, without its values."""

    name: str
    dtype: str
    """torch's own name without `torch.`: `float32`, `bfloat16`, `int64`."""
    shape: tuple[int, ...]
    tied_to: str | None = None
    """The earlier tensor that this one shares its values with; None for a tensor of its own."""

    @property
    def owner(self) -> str:
        """The name of the tensor whose values these are: its own, or what it is tied to (which may be "")."""
        return self.name if self.tied_to is None else self.tied_to

    @property
    def numel(self) -> int:
        """Number of elements; 1 for a 0-d tensor."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements alone."""
        return self.numel * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class Checkpoint:
    """Named tensors in the order of their source, read one at a time."""

    source: str
    """Where the tensors come from, for messages: a path or the name of a class."""
    entries: tuple[Entry, ...]
    load: Callable[[str], torch.Tensor] = field(repr=False)
    """Reads the tensor of one name that is tied to no other, as `read` gives it; callers use `read`."""
    skipped: tuple[str, ...] = ()
    """Names of values that are left out: whatever is no tensor, and what lies beside a wrapped state dict."""
    load_part: Callable[[str, int, int], torch.Tensor] | None = field(default=None, repr=False)
    """Reads elements [start, stop) of such a tensor, where the source can do that without reading all of it."""
    identity: Callable[[], dict[str, Any]] | None = field(default=None, repr=False)
    """What tells whether the source is still the same, without reading all of it; None where only values tell."""

    @cached_property
    def _by_name(self) -> dict[str, Entry]:
        return {entry.name: entry for entry in self.entries}

    @property
    def nbytes(self) -> int:
        """Bytes of all distinct tensors as given; tied ones count once."""
        return sum(entry.nbytes for entry in self.entries if entry.tied_to is None)

    @property
    def parameters(self) -> int:
        """Elements of all distinct tensors; tied ones count once."""
        return sum(entry.numel for entry in self.entries if entry.tied_to is None)

    def read(self, name: str) -> torch.Tensor:
        """The tensor `name` on the CPU, contiguous, in its own dtype; not to be written to, it may be the source's.

        Raises:
            TersorError: no such name, or the source cannot be read any more.
        """
        entry = self._by_name.get(name)
        if entry is None:
            raise TersorError(f"{self.source} has no tensor {name!r}; see the names in its entries")
        return self.load(entry.owner)

    def read_part(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Elements [start, stop) of the tensor `name`, flat in storage order; from a file, nothing else is read.

        Raises:
            TersorError: no such name, or the source cannot be read any more.
        """
        if self.load_part is None or name not in self._by_name:
            return self.read(name).reshape(-1)[start:stop]
        return self.load_part(self._by_name[name].owner, start, stop)


def tie(entries: Iterable[tuple[Entry, Hashable]]) -> tuple[Entry, ...]:
    """Tie the entries whose keys are equal to the first of them; a key of None, or no elements, ties to nothing."""
    owners: dict[Hashable, str] = {}
    tied = []
    for entry, key in entries:
        owner = entry.name if key is None or entry.numel == 0 else owners.setdefault(key, entry.name)
        tied.append(Entry(entry.name, entry.dtype, entry.shape, None if owner == entry.name else owner))
    return tuple(tied)
