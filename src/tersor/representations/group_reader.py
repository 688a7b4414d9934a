"""Decoding a group: chunk by chunk, tensors as they become whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from tersor.codec import integers
from tersor.kernels.threads import limited, thread_count
from tersor.lattice.planes import Piece
from tersor.representations import scales, vectors
from tersor.representations.codes_stage import CodesReader
from tersor.representations.group_spec import chunk_sections, head_count
from tersor.representations.lattice_stage import LatticeReader
from tersor.representations.records import GroupRecord
from tersor.representations.sparse import MaskReader

_AHEAD = 2  # pairs of chunks per thread that are decoded before they are asked for


class GroupReader:
    """Decodes tensors of a group.

    Args:
        record: from the index.
        shapes: of the group's tensors.
        sections: their number and a function that reads the i-th of the group.

    Raises:
        ArchiveError: a section is not what its place promises.
    """

    def __init__(self, record: GroupRecord, shapes: Sequence[tuple[int, ...]], section: Callable[[int], bytes]) -> None:
        self.record, self.shapes, self.section = record, shapes, section
        self.planes = vectors.layout(shapes, record.dim, record.survivors)
        heads = [section(i) for i in range(head_count(record))]
        self.scales: list[NDArray[np.float32]] | None = None
        if record.scales:
            self.scales = self._read_scales(heads.pop(0))
        self.codes = CodesReader(record, self.planes, [heads.pop(0), heads.pop(0)]) if record.num_codebooks else None
        self.lattice = LatticeReader(record.lattice, self.planes, heads) if record.lattice else None
        self.sparse: MaskReader | None = None
        if record.survivors is not None:
            self.sparse = MaskReader(shapes, record.survivors, self.planes, self._masks_section)

    def _read_scales(self, data: bytes) -> list[NDArray[np.float32]]:
        counts = [1 if self.record.scales == 1 else s.rows for s in self.planes.shapes]
        levels = scales.scale_of(integers.unpack(data, sum(counts)))
        return np.split(levels, np.cumsum(counts)[:-1])

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return len(self.planes.chunk_starts) - 1

    @property
    def masks(self) -> list[NDArray[np.bool_]] | None:
        """In a sparse group where each tensor is not zero, in its shape, else None; all of them are decoded."""
        return None if self.sparse is None else [self.sparse.mask(t) for t in range(len(self.shapes))]

    def chunk_streams(self, chunk: int) -> list[bytes]:
        """The streams of one chunk: codes, lattice symbols, whichever the group has."""
        first = head_count(self.record) + chunk_sections(self.record) * chunk
        return [self.section(first + i) for i in range((self.codes is not None) + (self.lattice is not None))]

    def _masks_section(self, chunk: int) -> bytes:
        return self.section(head_count(self.record) + chunk_sections(self.record) * (chunk + 1) - 1)

    def chunks_of(self, tensors: Sequence[int]) -> list[int]:
        """Chunks that hold pieces of these tensors (positions within the group)."""
        wanted, bounds = set(tensors), self.planes.chunk_pieces
        return [
            c
            for c in range(self.chunks)
            if any(p.tensor in wanted for p in self.planes.pieces[bounds[c] : bounds[c + 1]])
        ]

    def decode(self, tensors: Sequence[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield (position within the group, values in the tensor's shape); chunks are decoded by all threads."""
        wanted = set(tensors)
        gone = [t for t in sorted(wanted) if not self.planes.shapes[t].rows]
        yield from ((t, np.zeros(self.shapes[t], dtype=np.float32)) for t in gone)
        chunks = self.chunks_of(tensors)
        if len(chunks) < 2:
            open_tensors: dict[int, NDArray[np.float32]] = {}
            for c in chunks:
                self._open(c, wanted, open_tensors)
                self._fill([c], open_tensors)
                yield from self._whole(c, open_tensors)
            return
        yield from self._decode_many(chunks, wanted)

    def _decode_many(self, chunks: Sequence[int], wanted: set[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The same by many threads, a few chunks ahead of what was yielded last."""
        open_tensors: dict[int, NDArray[np.float32]] = {}
        threads = thread_count()
        ahead: deque[tuple[Sequence[int], Future[None]]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            for pair in (chunks[i : i + 2] for i in range(0, len(chunks), 2)):
                for c in pair:
                    self._open(c, wanted, open_tensors)
                ahead.append((pair, pool.submit(self._fill_alone, pair, dict(open_tensors))))
                if len(ahead) > _AHEAD * threads:
                    yield from self._finished(ahead, open_tensors)
            while ahead:
                yield from self._finished(ahead, open_tensors)

    def _finished(
        self, ahead: deque[tuple[Sequence[int], Future[None]]], open_tensors: dict[int, NDArray[np.float32]]
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        pair, done = ahead.popleft()
        done.result()
        for c in pair:
            yield from self._whole(c, open_tensors)

    def _open(self, chunk: int, wanted: set[int], open_tensors: dict[int, NDArray[np.float32]]) -> None:
        """Room for the tensors that begin in a chunk."""
        for piece in self.planes.chunk(chunk):
            if piece.first == 0 and piece.tensor in wanted:
                open_tensors[piece.tensor] = np.empty(self.planes.shapes[piece.tensor], dtype=np.float32)

    def _whole(
        self, chunk: int, open_tensors: dict[int, NDArray[np.float32]]
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The tensors that end in a chunk."""
        for piece in self.planes.chunk(chunk):
            if piece.last == self.planes.shapes[piece.tensor].rows and piece.tensor in open_tensors:
                yield piece.tensor, self._join(piece.tensor, open_tensors.pop(piece.tensor))

    def _fill_alone(self, chunks: Sequence[int], open_tensors: dict[int, NDArray[np.float32]]) -> None:
        with limited(1):
            self._fill(chunks, open_tensors)

    def _fill(self, chunks: Sequence[int], open_tensors: dict[int, NDArray[np.float32]]) -> None:
        """Decode chunks into the tensors that there is room for."""
        for piece, values in self._pieces(chunks):
            if piece.tensor not in open_tensors:
                continue
            to = open_tensors[piece.tensor][piece.first : piece.last]
            if self.scales is None:
                to[:] = values
            else:
                s = self.scales[piece.tensor]
                np.multiply(values, scales.broadcast(s if s.size == 1 else s[piece.first : piece.last]), out=to)

    def _join(self, t: int, cut: NDArray[np.float32]) -> NDArray[np.float32]:
        """Tensor t from its vectors."""
        return vectors.join(cut, self.shapes[t]) if self.sparse is None else self.sparse.join(t, cut)

    def check(self, batch: int = 16) -> Iterator[None]:
        """Decode every stream to its end, symbols only."""
        for at in range(0, self.chunks, batch):
            chunks = list(range(at, min(at + batch, self.chunks)))
            streams = [self.chunk_streams(c) for c in chunks]
            if self.lattice is not None:
                self.lattice.levels(chunks, [s[-1] for s in streams])
            if self.codes is not None:
                for c, s in zip(chunks, streams, strict=True):
                    self.codes.codes(c, s[0])
            if self.sparse is not None:
                for c in chunks:
                    self.sparse.read(c)
            yield

    def _pieces(self, chunks: Sequence[int]) -> Iterator[tuple[Piece, NDArray[np.float32]]]:
        """Pieces with their values [rows, cols, dim], unscaled: codewords first, then the lattice's part."""
        streams = [self.chunk_streams(c) for c in chunks]
        levels = self.lattice.levels([*chunks], [s[-1] for s in streams]) if self.lattice else None
        for i, c in enumerate(chunks):
            summed = self.codes.vectors(c, streams[i][0]) if self.codes else None
            for k, piece in enumerate(self.planes.chunk(c)):
                total = summed[k] if summed is not None else None
                if self.lattice is not None and levels is not None:
                    part = self.lattice.values(self.planes.part(levels[i], c, k))
                    total = part if total is None else total + part
                assert total is not None
                yield piece, total
