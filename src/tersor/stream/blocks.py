"""Blocks: a few chunks coded together, the unit that is kept on the disk, resumed, and divided among processes."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from tersor.codec.container import checksum
from tersor.representations.chunk_coder import ChunkCoder, PieceError
from tersor.stream.source import Source
from tersor.stream.team import Team

CHUNKS = 8
"""Chunks in a block."""


@dataclass(frozen=True)
class Block:
    """Chunks [first, last) of a group."""

    group: int
    first: int
    last: int


class Head(msgspec.Struct, array_like=True, frozen=True):
    """What is known of a coded block beside its streams: their lengths and checksums, errors, levels of row scales."""

    lengths: list[int]
    checks: list[int]
    errors: list[PieceError]
    levels: list[int]


def cut(chunks: Mapping[int, int]) -> list[Block]:
    """All blocks, given the number of chunks of each group that is cut."""
    return [
        Block(g, first, min(first + CHUNKS, count)) for g, count in chunks.items() for first in range(0, count, CHUNKS)
    ]


def encode(block: Block, coder: ChunkCoder, source: Source, team: Team, ahead: Executor) -> tuple[bytes, bytes]:
    """Head and streams of a block; the next chunk is read by `ahead` while one is coded."""

    def read(chunk: int) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32] | None] | None]:
        pieces = coder.planes.chunk(chunk)
        weights = None if source.importance is None else [source.weights(*piece) for piece in pieces]
        return [source.rows(*piece) for piece in pieces], weights

    head, streams = Head([], [], [], []), list[bytes]()
    coming = ahead.submit(read, block.first)
    for chunk in range(block.first, block.last):
        team.check()
        values, weights = coming.result()
        if chunk + 1 < block.last:
            coming = ahead.submit(read, chunk + 1)
        coded = coder.encode(chunk, values, weights)
        del values, weights
        streams += coded.streams
        head.errors.extend(coded.errors)
        head.levels.extend(coded.levels)
    head.lengths.extend(map(len, streams))
    head.checks.extend(map(checksum, streams))
    return msgspec.msgpack.encode(head), b"".join(streams)
