"""The codes of one group, encoded and read: codebooks, code tables, one stream per chunk."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tersor.codec import ans, integers, tables
from tersor.errors import ArchiveError
from tersor.lattice.planes import Piece, Planes
from tersor.representations.records import STREAM, GroupRecord

if TYPE_CHECKING:
    import torch

    from tersor.additive.alternate import EffortName

PRECISION = 20
LIMIT = 127  # codebook entries are integers in -127..127 times the codebook's unit
MAX_CLASSES = 8
_REFIT = 0.8  # octaves of lambda


class CodesStage:
    """Encoder of one group's codes; `at` may be called with any lambda, and the last call stands.

    Args:
        planes: for the cut into chunks.
        vectors: per tensor, float32 [rows, cols, dim].
        weights: per tensor, importance shaped like `vectors`, or None.
        codebooks: number of codebooks and codewords in each.
        effort, seed: of the search.
        device: where codebooks are trained and codes searched; everything is kept on the CPU.
    """

    def __init__(
        self,
        planes: Planes,
        vectors: list[NDArray[np.float32]],
        weights: list[NDArray[np.float32]] | None,
        codebooks: tuple[int, int],
        effort: EffortName,
        seed: int,
        device: str = "cpu",
    ) -> None:
        import torch

        from tersor.additive.scheme import Scheme

        dim = vectors[0].shape[-1]
        self.planes, self.effort, self.seed, self.device = planes, effort, seed, device
        self.scheme = Scheme(*codebooks, dim)
        flat = np.concatenate([v.reshape(-1, dim) for v in vectors])
        # Squares of very small or large weights would leave float32; a power of two changes nothing else.
        rms = math.sqrt(float(np.einsum("nd,nd->", flat, flat, dtype=np.float64)) / flat.size)
        self.exponent = round(math.log2(rms)) if rms > 0 else 0
        self.vectors = torch.from_numpy(np.ldexp(flat, -self.exponent))
        self.weights = None
        if weights is not None:
            self.weights = torch.from_numpy(np.concatenate([w.reshape(-1, dim) for w in weights]))
        self._importance = self.weights
        self.classes = _classes(vectors, codebooks[1])
        counts = [v.shape[0] * v.shape[1] for v in vectors]
        self.table = torch.from_numpy(np.repeat(self.classes, counts).astype(np.int32))
        self.lam: float | None = None
        self.codes: torch.Tensor | None = None
        self.renewed = False  # then codebooks follow the values, and are never trained from nothing again

    def reset(self) -> None:
        """Forget the codebooks of earlier lambdas."""
        self.codes, self.lam = None, None

    def at(self, lam: float) -> float:
        """Bytes at a lambda (squared error per bit); codebooks are trained again where it has moved much."""
        from tersor.additive import alternate

        start, lam = self.codes, math.ldexp(lam, -2 * self.exponent)
        if self.lam is None or (not self.renewed and abs(math.log2(lam / self.lam)) > _REFIT):
            found = alternate.fit(
                self.vectors.to(self.device), self.scheme, table=self.table.to(self.device),
                weights=None if self.weights is None else self.weights.to(self.device), lam=lam, effort=self.effort,
                seed=self.seed,
            )  # fmt: skip
            self.lam = lam
            start = self._order_and_round(found.codebooks.cpu().numpy(), found.codes.cpu().numpy())
            self._retable(start)
        self.codes = alternate.reencode_on(
            self.device, self.vectors, self.codebooks, table=self.table, bits=self.bits, lam=lam, weights=self.weights,
            effort="draft", codes=start, seed=self.seed,
        )  # fmt: skip
        self._retable(self.codes)
        streams = self.coded_bits / 8 + STREAM * (len(self.planes.chunk_starts) - 1)
        return streams + sum(len(head) for head in self.heads())

    def _order_and_round(self, books: NDArray[np.float32], codes: NDArray[np.int32]) -> torch.Tensor:
        """Sort codebooks by falling use (cheap tables), round entries to 8 bits; returns the new codes."""
        import torch

        units, self.entries, ranked = [], np.zeros(books.shape, dtype=np.int64), np.empty_like(codes)
        for m, book in enumerate(books):
            order = np.argsort(-np.bincount(codes[:, m], minlength=len(book)), kind="stable")
            ranked[:, m] = np.argsort(order)[codes[:, m]]
            unit = np.float32(np.abs(book).max() / LIMIT)
            units.append(float(unit))
            self.entries[m] = np.rint(book[order] / unit) if unit > 0 else 0
        self.units = tuple(units)
        self.codebooks = torch.from_numpy(codebooks_of(self.entries, self.units))
        return torch.from_numpy(ranked)

    def _retable(self, chosen: torch.Tensor) -> None:
        """Count codes, and set the tables as they will be stored."""
        import torch

        m, k = self.scheme.num_codebooks, self.scheme.codebook_size
        codes = chosen.numpy().astype(np.int64)
        classes = int(self.classes.max()) + 1
        cell = (self.table.numpy().astype(np.int64)[:, None] * m + np.arange(m)) * k + codes
        counts = np.bincount(cell.ravel(), minlength=classes * m * k).reshape(classes, m, k)
        pooled = counts.sum(axis=0) + 0.5
        pooled = pooled / pooled.sum(axis=-1, keepdims=True)
        self.levels = tables.levels_of(counts + 16 * pooled)
        frequencies = tables.frequencies(self.levels, PRECISION)
        bits = tables.bits(frequencies, PRECISION) if k > 1 else np.zeros(counts.shape, dtype=np.float32)
        self.coded_bits = float((counts * bits.astype(np.float64)).sum())
        self.bits = torch.from_numpy(bits)

    def costs(self) -> tuple[float, NDArray[np.float64]]:
        """Of the last call of `at`: bytes of the head sections, and bits of each tensor's codes."""
        assert self.codes is not None
        stages = np.arange(self.scheme.num_codebooks)
        each = self.bits.numpy()[self.table.numpy()[:, None], stages, self.codes.numpy()].sum(axis=1, dtype=np.float64)
        starts = np.cumsum([0, *(s.rows * s.cols for s in self.planes.shapes)])[:-1]
        return float(sum(map(len, self.heads()))), np.add.reduceat(each, starts)

    def heads(self) -> list[bytes]:
        """The head sections: codebooks, code tables."""
        classes = integers.pack(self.classes)
        table = len(classes).to_bytes(4, "little") + classes + integers.pack(np.diff(self.levels, axis=-1, prepend=0))
        return [integers.pack(self.entries), table]

    def renew(self, vectors: list[NDArray[np.float32]], hold: list[NDArray[np.float32]] | None) -> None:
        """Take other values for the same tensors, and fit the codebooks to them under the codes there are.

        `hold` [rows, cols, 1] multiplies the importance of each vector, until the next call.
        """
        import torch

        from tersor.additive.refit import refit

        flat = np.concatenate([v.reshape(-1, self.scheme.vector_dim) for v in vectors])
        self.vectors = torch.from_numpy(np.ldexp(flat, -self.exponent))
        self.weights = self._importance
        if hold is not None:
            factor = torch.from_numpy(np.concatenate([h.reshape(-1) for h in hold]))
            self.weights = factor if self._importance is None else factor[:, None] * self._importance
        self.renewed = self.codes is not None
        if self.codes is not None:
            books = refit(self.vectors, self.codebooks, self.codes, self.weights)
            self.codes = self._order_and_round(books.numpy(), self.codes.numpy())
            self._retable(self.codes)

    def decoded(self) -> list[NDArray[np.float32]]:
        """What a reader will decode from the last codes, per tensor [rows, cols, dim]."""
        from tersor.kernels.gather import decode

        assert self.codes is not None
        return self._split(np.ldexp(decode(self.codes, self.codebooks).numpy(), self.exponent))

    def residual(self) -> list[NDArray[np.float32]]:
        """What the codes leave of the vectors, per tensor [rows, cols, dim]."""
        from tersor.kernels.gather import decode

        assert self.codes is not None
        return self._split(np.ldexp((self.vectors - decode(self.codes, self.codebooks)).numpy(), self.exponent))

    def _split(self, flat: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Vectors [N, dim] as [rows, cols, dim] per tensor."""
        parts = np.split(flat, np.cumsum([s.rows * s.cols for s in self.planes.shapes])[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, self.planes.shapes, strict=True)]

    def finish(self) -> tuple[tuple[float, ...], list[bytes], list[bytes]]:
        """Units of the codebooks, head sections (codebooks, tables) and one stream per chunk."""
        frequencies = tables.frequencies(self.levels, PRECISION)
        starts = np.concatenate([[0], np.cumsum([s.rows * s.cols for s in self.planes.shapes])])
        assert self.codes is not None
        codes = self.codes.numpy()
        streams = []
        for c in range(len(self.planes.chunk_starts) - 1):
            parts = []
            for piece in self.planes.chunk(c):
                cols = self.planes.shapes[piece.tensor].cols
                rows = codes[starts[piece.tensor] + piece.first * cols : starts[piece.tensor] + piece.last * cols]
                table = frequencies[self.classes[piece.tensor]]
                parts += [(rows[:, m], table[m]) for m in range(rows.shape[1])]
            streams.append(ans.encode(parts, PRECISION))
        return self.units_of_file(), self.heads(), streams

    def units_of_file(self) -> tuple[float, ...]:
        """The unit of each codebook's integers."""
        return tuple(math.ldexp(unit, self.exponent) for unit in self.units)

    def largest_sum(self) -> float:
        """The largest magnitude that a sum of codewords may have."""
        return math.ldexp(float(np.abs(self.codebooks.numpy()).max(axis=(1, 2)).sum()), self.exponent)


class CodesReader:
    """Decoder of one group's codes.

    Args:
        record: from the index.
        planes: for the cut into chunks.
        heads: the head sections (codebooks, tables).
    """

    def __init__(self, record: GroupRecord, planes: Planes, heads: list[bytes]) -> None:
        m, k, d = record.num_codebooks, record.codebook_size, record.dim
        self.planes, self.num_codebooks = planes, m
        entries = integers.unpack(heads[0], m * k * d)
        if np.abs(entries).max() > LIMIT:
            raise ArchiveError("a codebook has entries out of range")
        self.entries = entries.reshape(m, k, d)
        self.codebooks = codebooks_of(self.entries, record.steps)
        split = 4 + int.from_bytes(heads[1][:4], "little")
        if split > len(heads[1]):
            raise ArchiveError("code tables are cut short")
        self.classes = integers.unpack(heads[1][4:split], len(planes.shapes))
        if self.classes.min() < 0 or self.classes.max() >= MAX_CLASSES:
            raise ArchiveError("code tables are out of range")
        count = int(self.classes.max()) + 1
        levels = np.cumsum(integers.unpack(heads[1][split:], count * m * k).reshape(count, m, k), axis=-1)
        self.frequencies = tables.frequencies(levels, PRECISION)

    def codes(self, chunk: int, stream: bytes) -> list[tuple[Piece, NDArray[np.int32]]]:
        """Codes [vectors, M] of each piece of a chunk."""
        pieces, parts = self.planes.chunk(chunk), []
        for piece in pieces:
            count = (piece.last - piece.first) * self.planes.shapes[piece.tensor].cols
            table = self.frequencies[self.classes[piece.tensor]]
            parts += [(count, table[m]) for m in range(self.num_codebooks)]
        decoded = ans.decode(stream, parts, PRECISION)
        m = self.num_codebooks
        return [(p, np.stack(decoded[i * m : i * m + m], axis=1)) for i, p in enumerate(pieces)]

    def vectors(self, chunk: int, stream: bytes) -> list[NDArray[np.float32]]:
        """Sums of codewords [rows, cols, dim] of each piece of a chunk, added in the order of the codebooks."""
        import torch

        from tersor.kernels.gather import decode

        out = []
        for piece, codes in self.codes(chunk, stream):
            _, cols, dim = self.planes.shapes[piece.tensor]
            summed = decode(torch.from_numpy(codes), torch.from_numpy(self.codebooks))
            out.append(summed.numpy().reshape(piece.last - piece.first, cols, dim))
        return out


def codebooks_of(entries: NDArray[np.int64], units: tuple[float, ...]) -> NDArray[np.float32]:
    """Codebooks float32 [M, K, d] from their integers and units."""
    return entries.astype(np.float32) * np.array(units, dtype=np.float32)[:, None, None]


def _classes(vectors: list[NDArray[np.float32]], size: int) -> NDArray[np.int64]:
    """Table class of each tensor: tensors by root mean square, in as many classes as vectors can pay for."""
    count = sum(v.shape[0] * v.shape[1] for v in vectors)
    classes = max(1, min(MAX_CLASSES, len(vectors), count // (64 * size)))
    rms = np.array([math.sqrt(np.square(v.astype(np.float64)).sum() / max(v.size, 1)) for v in vectors])
    rank = np.empty(len(vectors), dtype=np.int64)
    rank[np.argsort(rms, kind="stable")] = np.arange(len(vectors))
    return rank * classes // len(vectors)
