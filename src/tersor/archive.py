"""An archive: opened lazily, every byte checked, tensors decoded when asked for."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tersor import index as indices
from tersor.checkpoint.header import ITEM_BYTES
from tersor.checkpoint.inventory import Entry
from tersor.codec import container
from tersor.errors import ArchiveError, TersorError
from tersor.files import atomic_output
from tersor.index import DTYPES, Index
from tersor.recipe import Recipe
from tersor.representations import kept
from tersor.representations.group import GroupReader
from tersor.representations.made import make
from tersor.representations.scalars import ScalarReader
from tersor.sections import Sections

if TYPE_CHECKING:
    import torch
    from torch import nn


class Archive:
    """One compressed checkpoint, in a file or in memory.

    Tensors are decoded on access and not cached. `archive["name"]`, `len(archive)`, `"name" in archive` and iteration
    over names work as for a state dict.
    """

    def __init__(self, source: str | os.PathLike[str] | bytes) -> None:
        """Read the index; `tersor.open(path)` is the usual way.

        Raises:
            ArchiveError: the file is missing, damaged, truncated or newer than this version reads.
        """
        self._source = source
        try:
            with self._open() as file:
                self.size = file.seek(0, os.SEEK_END)
                file.seek(0)
                start, index_length, data_length, self.version = container.read_header(file, self.size)
                self.index: Index = indices.unpack(file.read(index_length), data_length, self.version)
            self._data = start + index_length
            self._check_sections()
        except ArchiveError as error:
            raise ArchiveError(f"{self.name}: {error}") from error
        except OSError as error:
            raise ArchiveError(
                f"{self.name}: cannot be read ({error.strerror or error}); give a regular file"
            ) from error
        except MemoryError as error:
            raise ArchiveError(f"{self.name}: the file asks for more memory than there is") from error

    @property
    def name(self) -> str:
        """Where the archive is, for messages."""
        return "archive in memory" if isinstance(self._source, bytes) else str(self._source)

    def _open(self) -> BinaryIO:
        if isinstance(self._source, bytes):
            return io.BytesIO(self._source)
        try:
            return open(self._source, "rb")
        except OSError as error:
            raise ArchiveError(f"cannot be read ({error.strerror})") from error

    # ------------------------------------------------------------------ sections
    @cached_property
    def _offsets(self) -> NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(np.array(self.index.lengths, dtype=np.int64))]) + self._data

    def _check_sections(self) -> None:
        if len(self.index.lengths) != self.sections.expected:
            raise ArchiveError("the index is damaged (sections missing)")
        if not 0 <= min(self.index.checks) <= max(self.index.checks) <= 0xFFFFFFFF:  # there is always the padding's
            raise ArchiveError("the index is damaged (checksums out of range)")

    def section(self, i: int) -> bytes:
        """Bytes of the i-th section, checked.

        Raises:
            ArchiveError: the checksum does not match.
        """
        try:
            with self._open() as file:
                file.seek(int(self._offsets[i]))
                data = file.read(self.index.lengths[i])
        except OSError as error:
            raise ArchiveError(f"{self.name}: cannot be read ({error.strerror or error})") from error
        if container.checksum(data) != self.index.checks[i]:
            raise ArchiveError(f"{self.name}: section {i} ({self.sections.name(i)}) is damaged")
        return data

    @cached_property
    def sections(self) -> Sections:
        """Which section holds what."""
        return Sections(self.index)

    # ------------------------------------------------------------------ tensors
    @cached_property
    def _position(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.index.names)}

    def group(self, g: int) -> GroupReader:
        """Reader of the g-th group."""
        record, first = self.index.groups[g], self.sections.firsts[g]
        return GroupReader(record, [self.index.shapes[i] for i in record.tensors], lambda i: self.section(first + i))

    def scalar_group(self, g: int) -> ScalarReader:
        """Reader of the g-th scalar group."""
        record, first = self.index.scalars[g], self.sections.firsts[len(self.index.groups) + g]
        return ScalarReader(record, [self.index.shapes[i] for i in record.tensors], lambda i: self.section(first + i))

    def _arrays(self, wanted: set[int]) -> Iterator[tuple[int, torch.Tensor]]:
        """Decode tensors by position, in the order the file holds them."""
        with self._named():
            yield from self._coded(wanted)
            yield from self._scalars(wanted)
            yield from self._kept(wanted)

    def _coded(self, wanted: set[int]) -> Iterator[tuple[int, torch.Tensor]]:
        import torch

        for g, record in enumerate(self.index.groups):
            inside = [k for k, i in enumerate(record.tensors) if i in wanted]
            if inside:
                for k, values in self.group(g).decode(inside):
                    i = record.tensors[k]
                    yield i, restore(torch.from_numpy(values), DTYPES[self.index.dtypes[i]])
                    del values  # before the next one is decoded

    def _scalars(self, wanted: set[int]) -> Iterator[tuple[int, torch.Tensor]]:
        """Tensors of scalar groups, and those that are rules."""
        import torch

        for g, record in enumerate(self.index.scalars):
            reader = self.scalar_group(g)
            for k, i in enumerate(record.tensors):
                if i in wanted:
                    yield i, restore(torch.from_numpy(reader.read(k)), DTYPES[self.index.dtypes[i]])
        for i, made in self.index.made:
            if i in wanted:
                yield i, restore(torch.from_numpy(make(made, self.index.shapes[i])), DTYPES[self.index.dtypes[i]])

    def _kept(self, wanted: set[int]) -> Iterator[tuple[int, torch.Tensor]]:
        first = self.sections.kept_first
        for s, (stored, members) in enumerate(self.sections.kept_units):
            if wanted.isdisjoint(members):
                continue
            counts = [int(np.prod(self.index.shapes[i], dtype=np.int64)) for i in members]
            width = ITEM_BYTES[DTYPES[stored]]
            data = kept.unpack(self.section(first + s), width, sum(counts))
            at = 0
            for i, count in zip(members, counts, strict=True):
                if i in wanted:
                    raw = bytearray(data[at * width : (at + count) * width])
                    yield i, _tensor(raw, DTYPES[stored], self.index.shapes[i], DTYPES[self.index.dtypes[i]])
                    del raw
                at += count

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Name the file in whatever goes wrong while decoding."""
        try:
            yield
        except ArchiveError as error:
            raise error if str(error).startswith(self.name) else ArchiveError(f"{self.name}: {error}") from error

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """All tensors without their values, in the order and with the types they were given."""
        index = self.index
        owners = {i: index.names[owner] for i, owner in index.ties.items()}
        every = enumerate(zip(index.names, index.dtypes, index.shapes, strict=True))
        return tuple(Entry(name, DTYPES[d], shape, owners.get(i)) for i, (name, d, shape) in every)

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Decode all tensors that are tied to no other, one after the other as the file holds them, keeping none."""
        for i, tensor in self._arrays({i for i in range(len(self)) if i not in self.index.ties}):
            yield self.index.names[i], tensor
            del tensor  # before the next one is decoded

    def state_dict(self) -> dict[str, torch.Tensor]:
        """All tensors by name, in the order and with the dtypes they were given; tied names share one tensor."""
        found = dict(self.tensors())
        return {entry.name: found[entry.owner] for entry in self.entries}

    def __getitem__(self, name: str) -> torch.Tensor:
        """Decode one tensor, reading only the sections it needs."""
        if name not in self._position:
            raise KeyError(f"{self.name} has no tensor {name!r}")
        i = self._position[name]
        owner = self.index.ties.get(i, i)
        return dict(self._arrays({owner}))[owner]

    def __contains__(self, name: object) -> bool:
        return name in self._position

    def __iter__(self) -> Iterator[str]:
        return iter(self.index.names)

    def __len__(self) -> int:
        return len(self.index.names)

    def apply_(self, model: nn.Module) -> nn.Module:
        """Load all tensors into a module of the original class, in place; returns it.

        Where passes changed the network (channels that went, factors in place of a layer), the module is changed
        likewise (`tersor.structure`).

        Raises:
            TersorError: names or shapes differ; lists at most ten of each kind, and nothing is changed.
        """
        self.fit_(model)
        model.load_state_dict(self.state_dict(), strict=False)  # `fit_` has compared the names
        return model

    def fit_(self, model: nn.Module) -> nn.Module:
        """Give a module of the original class the structure of this network, without its values; returns it.

        Counters of batch norms (`num_batches_tracked`), which old checkpoints lack, may be missing, as in torch.

        Raises:
            TersorError: names or shapes differ; lists at most ten of each kind, and nothing is changed.
        """
        from tersor.structure.fit import fit_

        theirs = dict(zip(self.index.names, self.index.shapes, strict=True))
        fit_(model, theirs, {text.partition("(")[0] for text in self.passes})
        own = model.state_dict()
        missing = [name for name in sorted(own.keys() - theirs.keys()) if not name.endswith("num_batches_tracked")]
        problems = [
            ("missing in the archive", missing),
            ("not in the model", sorted(theirs.keys() - own.keys())),
            ("of another shape", [n for n in own if n in theirs and tuple(own[n].shape) != theirs[n]]),
        ]
        told = [f"{what}: {', '.join(names[:10])}{' …' * (len(names) > 10)}" for what, names in problems if names]
        if told:
            raise TersorError(f"{self.name} does not fit {type(model).__name__}: {'; '.join(told)}")
        return model

    # ------------------------------------------------------------------ the file
    @property
    def recipe(self) -> Recipe:
        """The recipe it was made with."""
        return Recipe.from_dict(self.index.recipe, self.name)

    @property
    def passes(self) -> tuple[str, ...]:
        """What was done to the network before it was coded, and after, as its recipe tells."""
        told = self.index.recipe.get("passes")
        return tuple(map(str, told)) if isinstance(told, list) else ()

    @property
    def given(self) -> tuple[int, int]:
        """Bytes of all tensors as they came, and their elements; tied ones once."""
        owned = [entry for entry in self.entries if entry.tied_to is None]
        return sum(entry.nbytes for entry in owned), sum(entry.numel for entry in owned)

    @property
    def coverage(self) -> str:
        """One line: how many bytes of the checkpoint are coded, and why the others are kept."""
        sizes = [
            math.prod(s) * ITEM_BYTES[DTYPES[d]] for s, d in zip(self.index.shapes, self.index.dtypes, strict=True)
        ]
        coded = sum(sizes[i] for members in self.index.coded for i in members)
        coded += sum(sizes[i] for i, _ in self.index.made)
        kept_sizes = [(indices.REASONS[reason], sizes[i]) for i, reason, _ in self.index.kept]
        return indices.coverage_line(coded, kept_sizes, len(self.index.ties))

    def to_bytes(self) -> bytes:
        """The whole file."""
        with self._open() as file:
            return file.read()

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> int:
        """Write the file atomically; returns its bytes.

        Raises:
            TersorError: the path exists and not `force`, or it cannot be written.
        """
        data = self.to_bytes()
        with atomic_output(path, force=force) as file:
            file.write(data)
        return len(data)

    def verify(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Check every section, and that every stream decodes to its end.

        Raises:
            ArchiveError: names the first damaged section.
        """
        index = self.index
        count = len(index.lengths)
        total = count + len(index.groups) + len(index.scalars)
        for i in range(count):
            data = self.section(i)
            if i == count - 1 and data.strip(b"\0"):
                raise ArchiveError(f"{self.name}: the padding is damaged")
            if progress is not None:
                progress(i + 1, total)
        with self._named():
            for g in range(len(index.groups) + len(index.scalars)):
                self._verify_group(g)
                if progress is not None:
                    progress(count + g + 1, total)
            for i, made in index.made:
                make(made, index.shapes[i])
            first = self.sections.kept_first
            for s, (stored, members) in enumerate(self.sections.kept_units):
                size = sum(int(np.prod(index.shapes[i], dtype=np.int64)) for i in members)
                kept.unpack(self.section(first + s), ITEM_BYTES[DTYPES[stored]], size)

    def _verify_group(self, g: int) -> None:
        if g < len(self.index.groups):
            for _ in self.group(g).check():
                pass
            return
        reader = self.scalar_group(g - len(self.index.groups))
        for t in range(len(reader.shapes)):
            reader.read(t)


def restore(values: torch.Tensor, dtype: str) -> torch.Tensor:
    """Float32 values in the type they came in; what rounds beyond float16 becomes its largest number."""
    import torch

    target = getattr(torch, dtype)
    if target == torch.float16:
        values = values.clamp(-65504, 65504)
    return values.to(target)


def _tensor(raw: bytearray, stored: str, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
    import torch

    kind = getattr(torch, stored)
    if stored == "bool" and raw.translate(None, b"\0\1"):
        raise ArchiveError("a truth value is neither 0 nor 1")
    tensor = torch.frombuffer(raw, dtype=kind) if raw else torch.empty(0, dtype=kind)
    return tensor.reshape(shape).to(getattr(torch, dtype)) if stored != dtype else tensor.reshape(shape)
