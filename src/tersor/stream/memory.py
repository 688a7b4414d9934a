"""How much memory a streamed run takes: so much whatever is done, and so much for every chunk that is coded at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tersor.checkpoint import Checkpoint
from tersor.checkpoint.header import ITEM_BYTES
from tersor.errors import TersorError
from tersor.index import DTYPES
from tersor.keep import Kept
from tersor.plan import Plan
from tersor.representations import vectors
from tersor.representations.group import MEMORY

# Measured (`python -m benchmarks scale`), and rounded up. Bytes:
_PROGRAM = 340 << 20  # interpreter, torch, numpy, the extension
_SURVEYED = 72 << 20  # per thread that surveys
_TRAINED = 40  # per value trained on
_WHOLE = 24  # per value of a group that is coded as a whole
_CODED = 64  # per value of a chunk being coded, the next one read ahead included
_KEPT = 5  # per byte of a section of kept tensors
_CHUNK = 400  # per chunk: where it is, its lengths and checksums


def workers(
    plan: Plan, kept: Kept, checkpoint: Checkpoint, trained: int, effort: str, memory: int | None, threads: int
) -> int:
    """How many chunks may be coded at once: one per thread, fewer where memory is less.

    Raises:
        TersorError: not even one; says how much it takes.
    """
    if memory is None:
        return threads
    fixed, each = needs(plan, kept, checkpoint, trained, effort)
    if memory < fixed + each:
        raise _too_little(memory, plan.source, fixed + each)
    return min(threads, int((memory - fixed) // each))


def readers(memory: int | None, threads: int) -> int:
    """How many threads may survey a checkpoint at once.

    Raises:
        TersorError: not even one.
    """
    if memory is None:
        return threads
    if memory < _PROGRAM + _SURVEYED:
        raise _too_little(memory, "any checkpoint", _PROGRAM + _SURVEYED)
    return min(threads, (memory - _PROGRAM) // _SURVEYED)


def packers(checkpoint: Checkpoint, kept: Kept, memory: int | None, threads: int) -> int:
    """How many threads may pack sections of kept tensors at once.

    Raises:
        TersorError: not even one.
    """
    largest = _KEPT * max((sum(_bytes(checkpoint, kept.records[k]) for k in unit) for unit in kept.units), default=0)
    if memory is None or not largest:
        return threads
    if memory < _PROGRAM + largest:
        raise _too_little(memory, checkpoint.source, _PROGRAM + largest)
    return min(threads, (memory - _PROGRAM) // largest)


def check_whole(checkpoint: Checkpoint, memory: int | None) -> None:
    """Raises TersorError where the memory does not do for a checkpoint that is coded at once; says how much does."""
    least = _PROGRAM + 2 * checkpoint.nbytes + checkpoint.parameters * _WHOLE
    if memory is not None and memory < least:
        raise _too_little(memory, checkpoint.source, least)


def _too_little(memory: int, source: str, least: int) -> TersorError:
    return TersorError(f"{memory:,} B of memory are too few for {source}: give {math.ceil(least / 1e6):,}MB at least")


def needs(plan: Plan, kept: Kept, checkpoint: Checkpoint, trained: int, effort: str) -> tuple[int, int]:
    """Bytes in any case, and bytes for each chunk coded at once; estimates, on the safe side."""
    chunks = largest = 0
    whole = sum(plan.entries[i].numel for g in plan.groups if g.survivors is not None for i in g.tensors)
    for group in plan.groups:
        if group.survivors is None:
            planes = vectors.layout([plan.entries[i].shape for i in group.tensors], group.dim)
            chunks += len(planes.chunk_starts) - 1
            largest = max(largest, int((planes.chunk_starts[1:] - planes.chunk_starts[:-1]).max()))
    cols = max((_run_length(plan, group.tensors, group.dim) for group in plan.groups), default=0)
    branches = cols * (1 + 4 * max(8, 1 << MEMORY[effort]))
    sections = [sum(_bytes(checkpoint, kept.records[k]) for k in unit) for unit in kept.units]
    held = checkpoint.nbytes if checkpoint.load_part is None else 0
    once = max(trained * _TRAINED + whole * _WHOLE, _KEPT * max(sections, default=0))
    return _PROGRAM + held + once + chunks * _CHUNK, largest * _CODED + branches


def _run_length(plan: Plan, tensors: Sequence[int], dim: int) -> int:
    """Values between two ends of the trellis, at most."""
    return max(max(64, vectors.arrange(plan.entries[i].shape, dim).cols) for i in tensors)


def _bytes(checkpoint: Checkpoint, record: tuple[int, int, int]) -> int:
    return checkpoint.entries[record[0]].numel * ITEM_BYTES[DTYPES[record[2]]]
