"""Which rows of each tensor the coders are trained on: a sample of a checkpoint too large to train on all of it.

Stratified: every tensor gives rows, in proportion to its size but no fewer than a floor; they come in blocks, evenly
spread, each at a place of its stratum that follows from the seed. Blocks, because contexts look at the rows above.
"""

from __future__ import annotations

from collections.abc import Sequence

from tersor import encode
from tersor.lattice.planes import Shape

_FLOOR = 1 << 14  # values that a tensor gives at least, if that many tensors leave room for it
_BLOCK = 1 << 15  # values in a block


_CODEBOOKS = 4


def size_of(total: int, codebooks: bool) -> int:
    """Values to train on, of so many: a quarter, but not below and not above what has been found to do.

    Codebooks have thousands of numbers to learn and take four times as many, of smaller networks everything.
    """
    if codebooks:
        return min(_CODEBOOKS * encode.TRAINED, total)
    return min(encode.TRAINED, max(encode.TRAINED // 4, total // 4))


def rows_of(shapes: Sequence[Shape], total: int, seed: int, limit: int) -> list[list[tuple[int, int]]]:
    """Blocks of rows [first, last) of each tensor, ascending.

    Args:
        shapes: of the tensors of one group.
        total: values of all groups together.
        seed: moves the blocks.
        limit: values wanted of all groups together.
    """
    floor = min(_FLOOR, limit // (2 * len(shapes)))
    return [_blocks(shape, max(floor, shape.size * limit // max(total, 1)), seed + t) for t, shape in enumerate(shapes)]


def _blocks(shape: Shape, wanted: int, seed: int) -> list[tuple[int, int]]:
    width = shape.cols * shape.dim
    height = max(1, min(_BLOCK, wanted) // width)
    count = max(1, round(wanted / (height * width)))
    if count * height >= shape.rows:
        return [(0, shape.rows)]
    out = []
    for i in range(count):
        first, last = i * shape.rows // count, (i + 1) * shape.rows // count
        shift = (i * 2654435761 + (seed + 1) * 2246822519) % (1 << 32) * (last - first - height + 1) >> 32
        out.append((first + shift, first + shift + height))
    return out
