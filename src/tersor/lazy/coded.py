"""One tensor as codes, decoded by plain torch operations each time it is called: what compile and export run, too.

The arithmetic is the file's, in its order: the same bits as `archive[name]`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tersor.archive import restore
from tersor.lattice.basis import SCALE
from tersor.packed.groups import PackedGroup, PackedScalars
from tersor.packed.tuples import ESCAPE, Tuples, starts


class CodedTensor(nn.Module):
    """A tensor that is decoded when it is asked for. Buffers hold codes, and codebooks that others share.

    Attributes:
        shape: of the tensor.
        dtype: what the network wants; moves with `.to(dtype)`, while codebooks stay float32.
    """

    def __init__(self, shape: tuple[int, ...], stored: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.shape, self.stored, self.dtype = shape, stored, dtype

    def forward(self) -> torch.Tensor:
        """The tensor, in its shape and type."""
        return restore(self.values(), self.stored).to(self.dtype).reshape(self.shape)

    def values(self) -> torch.Tensor:
        """All elements, float32, in storage order; the shape is free."""
        raise NotImplementedError

    def keep(self, **tensors: Any) -> None:
        """Buffers, from arrays or tensors; None where there is nothing."""
        for name, value in tensors.items():
            found = torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value
            self.register_buffer(name, found)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> CodedTensor:
        """Devices move everything; types only what is decoded."""
        if self.dtype.is_floating_point:
            self.dtype = fn(torch.zeros(0, dtype=self.dtype)).dtype
        device = fn(torch.zeros(0)).device
        for module in self.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = buffer.to(device)
        self.__dict__.pop("_tables", None)
        return self


class Tupled(nn.Module):
    """Rows of integers as tuples, of one tensor; decodes to the float32 values they stand for."""

    points: torch.Tensor

    def __init__(self, packed: Tuples, values: torch.Tensor, rows: list[int], books: dict[int, torch.Tensor]) -> None:
        super().__init__()
        self.register_buffer("points", values)
        self._plan: list[tuple[int, list[tuple[int, int, int]]]] = []
        self._count = len(rows)
        for kind in packed.classes:
            at = starts(kind, packed.shapes)
            mine = [(k, r) for k, r in enumerate(kind.rows) if r in rows]
            if not mine:
                continue
            codes = np.concatenate([kind.codes[at[k] : at[k + 1]] for k, _ in mine])
            plan = [(rows.index(r), *packed.shapes[r]) for _, r in mine]
            n = len(self._plan)
            self._plan.append((kind.size, plan))
            self.register_buffer(f"codes{n}", torch.from_numpy(codes))
            if kind.size == 0:
                continue
            self.register_buffer(f"book{n}", books[kind.size])
            places = kind.places
            ends = [np.searchsorted(places, at[k : k + 2]) for k, _ in mine]
            inside = np.concatenate([np.arange(*pair) for pair in ends])
            if inside.size:
                self.register_buffer(f"escaped{n}", torch.from_numpy(kind.escaped[inside].astype(np.int32)))
                here = np.flatnonzero(codes == ESCAPE).astype(np.int32)
                self.register_buffer(f"places{n}", torch.from_numpy(here))

    def forward(self) -> list[torch.Tensor]:
        """The rows, float32 [lines, length]."""
        out: list[torch.Tensor | None] = [None] * self._count
        for n, (size, plan) in enumerate(self._plan):
            codes = self.get_buffer(f"codes{n}").int()
            book = self.points
            if size:
                escaped = self._buffers.get(f"escaped{n}")
                if escaped is not None:
                    codes = codes.scatter(0, self.get_buffer(f"places{n}").long(), escaped)
                book = self._book(n)
            flat = F.embedding(codes, book.reshape(len(book), -1)).reshape(-1)
            at = 0
            for row, lines, length in plan:
                full = -(-length // max(size, 1)) * max(size, 1)
                part = flat[at : at + lines * full].reshape(lines, full)
                out[row] = part[:, :length] if full > length else part
                at += lines * full
        return [row for row in out if row is not None]

    def _book(self, n: int) -> torch.Tensor:
        """The codebook of a class, float32 [K, size]."""
        return self.points[self.get_buffer(f"book{n}").int()]

    def matrix(self) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None] | None:
        """A single row of several lines: codes uint8 [lines, J], codebook float32 [K, size] (K at most 256), and places
        int64 [e] and words float32 [e, size] of what escapes; None for anything else."""
        if len(self._plan) != 1 or self._count != 1:
            return None
        size, ((_, lines, _),) = self._plan[0]
        if size == 0:
            codes = self.get_buffer("codes0").reshape(lines, -1)
            return (codes, self.points[:, None], None) if codes.dtype == torch.uint8 else None
        codes, book = self.get_buffer("codes0").reshape(lines, -1), self._book(0)
        if "escaped0" not in self._buffers:
            return codes, book[:ESCAPE], None
        words = book[self.get_buffer("escaped0").long()]
        return codes, book[:ESCAPE], (self.get_buffer("places0").long(), words)


class CodedSum(CodedTensor):
    """A tensor of a group: `scale * (codewords + basis @ lattice point)`."""

    basis: torch.Tensor | None
    scales: torch.Tensor | None
    where: torch.Tensor | None

    def __init__(self, group: PackedGroup, t: int, shared: Shared, stored: str, dtype: torch.dtype) -> None:
        super().__init__(group.shapes[t], stored, dtype)
        self.vectors = tuple(group.vectors[t])
        n = group.vectors[t].rows * group.vectors[t].cols
        first = sum(s.rows * s.cols for s in group.vectors[:t])
        self.words: list[tuple[int, int, int]] = []
        for m, word in enumerate(group.codes if n else ()):
            mine = word.part(first, n)
            self.words.append((mine.size, mine.each, mine.count))
            self.keep(**{f"codes{m}": mine.data, f"codebook{m}": shared.codebooks[m]})
        self.levels: Tupled | None = None
        if group.levels is not None and n:
            dim = group.vectors[t].dim
            assert shared.values is not None
            self.levels = Tupled(group.levels, shared.values, list(range(t * dim, t * dim + dim)), shared.books)
        self.keep(basis=shared.basis)
        self.keep(scales=None if group.scales is None else group.scales[t].reshape(-1, 1))
        where = None if group.masks is None else np.flatnonzero(group.masks[t]).astype(np.int32)
        self.keep(where=where if where is not None and len(where) < int(np.prod(self.shape)) else None)

    def values(self) -> torch.Tensor:
        """All elements, float32."""
        rows, cols, dim = self.vectors
        count = int(np.prod(self.shape))
        if not rows:
            return torch.zeros(count)
        total: torch.Tensor | None = None
        for m, (size, each, n) in enumerate(self.words):
            codes = unpacked(getattr(self, f"codes{m}"), size, each, n)
            part = F.embedding(codes, getattr(self, f"codebook{m}"))
            total = part if total is None else total + part
        if self.levels is not None:
            found = self.levels()
            part = _synthesised(found, self.basis)
            total = part if total is None else total + part
        assert total is not None
        if self.scales is not None:
            total = total.reshape(rows, cols * dim) * self.scales
        flat = total.reshape(-1)
        if self.where is not None:
            zeros = torch.zeros(count, device=flat.device)
            return zeros.scatter(0, self.where.long(), flat[: self.where.shape[0]])
        return flat[:count]


class CodedScalars(CodedTensor):
    """A tensor of a scalar group: shared values, or `(integer - zero point) * scale`."""

    scales: torch.Tensor | None
    zeros: torch.Tensor | None

    def __init__(self, group: PackedScalars, t: int, shared: Shared, stored: str, dtype: torch.dtype) -> None:
        super().__init__(group.shapes[t], stored, dtype)
        assert shared.values is not None
        self.symbols = Tupled(group.symbols, shared.values, [t], shared.books)
        grid = None if group.grids is None else group.grids[t]
        self.keep(scales=None if grid is None else grid[0].reshape(-1, 1))
        self.keep(zeros=None if grid is None or not grid[1].any() else grid[1].reshape(-1, 1))

    def values(self) -> torch.Tensor:
        """All elements, float32."""
        found = self.symbols()[0]
        if self.scales is None:
            return found
        found = found.reshape(self.scales.shape[0], -1)
        return (found if self.zeros is None else found - self.zeros) * self.scales


class Shared:
    """What the tensors of a group have in common, as torch tensors; every module that needs one holds the same."""

    def __init__(self, group: PackedGroup | PackedScalars) -> None:
        packed = group.symbols if isinstance(group, PackedScalars) else group.levels
        self.values = None if group.values is None else torch.from_numpy(group.values)
        self.books: dict[int, torch.Tensor] = {}
        for kind in () if packed is None else packed.classes:
            if kind.book is not None:
                self.books[kind.size] = torch.from_numpy(kind.book)
        self.codebooks: list[torch.Tensor] = []
        self.basis: torch.Tensor | None = None
        if isinstance(group, PackedGroup):
            if group.entries is not None and group.units is not None:
                books = group.entries.astype(np.float32) * group.units[:, None, None]
                self.codebooks = list(torch.from_numpy(books))
            if group.basis is not None:
                self.basis = torch.from_numpy(group.basis.astype(np.float32) / np.float32(SCALE))


def unpacked(data: torch.Tensor, size: int, each: int, count: int) -> torch.Tensor:
    """Codes, int32 or int64 [count], from words (`packed.words`)."""
    if each == 1:
        return data.int()
    places = torch.tensor([size**i for i in range(each)], dtype=torch.int64, device=data.device)
    return (data[:, None] // places % size).reshape(-1)[:count]


def _synthesised(rows: list[torch.Tensor], basis: torch.Tensor | None) -> torch.Tensor:
    """Vectors [n, dim] of coefficients, one row each: products added in the order of the coefficients."""
    if basis is None:
        return rows[0] if len(rows) == 1 else torch.stack([row.reshape(-1) for row in rows], dim=1)
    total = rows[0].reshape(-1, 1) * basis[:, 0]
    for j in range(1, len(rows)):
        total = total + rows[j].reshape(-1, 1) * basis[:, j]
    return total
