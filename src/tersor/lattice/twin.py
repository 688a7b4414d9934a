"""Python twins of the lattice kernels: the definition in plain words, and the fallback without the extension.

The entropy coder here is `constriction` itself, one symbol at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import constriction
import numpy as np
from numpy.typing import NDArray

from tersor.codec import ans
from tersor.lattice import tokens
from tersor.lattice.contexts import CONTEXTS
from tersor.lattice.trellis import Trellis

if TYPE_CHECKING:
    from tersor.lattice.kernels import Scan

FRACTION = 12
MAX_LEVEL = 1 << 14
MIN_BLOCK = 64


def context_of(energy: int) -> int:
    """Half octaves of an energy in sixteenths of 12-bit fixed point."""
    e = energy >> 4
    if e < 4:
        return 0
    top = e.bit_length() - 1
    return min(2 * (top - 2) + (e >> (top - 1) & 1) + 1, CONTEXTS - 1)


def level_of(magnitude: int, quantizer: int) -> int:
    """Multiple of the step that a magnitude stands for."""
    return 2 * magnitude - quantizer if magnitude else 0


def clipped(level: int) -> int:
    """A level as the energies see it."""
    return min(level, MAX_LEVEL) << FRACTION


class Columns:
    """Mean energy of each column over the blocks of rows above."""

    def __init__(self, cols: int, mean: int) -> None:
        self.mean = [mean] * cols
        self.sum = [0] * cols
        self.blocks = 0

    def close(self, rows: int) -> None:
        """End a block of rows."""
        shift = min(4, 1 + self.blocks)
        for c, total in enumerate(self.sum):
            self.mean[c] += (total // rows - self.mean[c]) >> shift
            self.sum[c] = 0
        self.blocks += 1


def blocks(plane: NDArray[np.int64]) -> Iterator[int]:
    """Rows of each block of a plane: one, or as many as make 64 symbols."""
    rows, cols = int(plane[0]), int(plane[1])
    step = 1 if cols >= MIN_BLOCK else -(-MIN_BLOCK // cols)
    for row in range(0, rows, step):
        yield min(step, rows - row)


def scan(planes: NDArray[np.int64], trellis: Trellis, visit: Callable[[int, int, int], int]) -> None:
    """Visit a chunk's symbols: visit(index, context, quantizer) returns the signed magnitude."""
    following = trellis.transitions().tolist()
    state = index = 0
    for plane in planes:
        cols, mean, wf, ws, wc, wm = (int(v) for v in plane[1:])
        columns, fast, slow = Columns(cols, mean), mean, mean
        for rows in blocks(plane):
            for n in range(rows * cols):
                energy = wf * fast + ws * slow + wc * columns.mean[n % cols] + wm * mean
                quantizer = state & 1
                magnitude = abs(visit(index, context_of(energy), quantizer))
                m = clipped(level_of(magnitude, quantizer))
                fast += (m - fast) >> 3
                slow += (m - slow) >> 5
                columns.sum[n % cols] += m
                state = following[state][magnitude & 1]
                index += 1
            columns.close(rows)


def centred(levels: NDArray[np.int32], parts: int, shifts: tuple[int, int, int]) -> NDArray[np.float32]:
    """See `kernels.centred`, without the scale."""
    shift = np.array([0, *shifts], dtype=np.int32)[np.minimum(np.abs(levels), 3)]
    fine = levels * np.int32(parts) - np.sign(levels) * shift  # levels stay below 2**24
    return fine.astype(np.float32)


def search(
    x: NDArray[np.float32],
    weight: NDArray[np.float32] | None,
    scan: Scan,
    cost: NDArray[np.float32],
    lam: float,
    trellis: Trellis,
    out: NDArray[np.int32],
) -> None:
    """Viterbi over every chunk, one symbol at a time, all states at once; see `kernels.search`."""
    for c in range(len(scan.chunk_starts) - 1):
        planes = scan.planes[scan.chunk_planes[c] : scan.chunk_planes[c + 1]]
        part = slice(int(scan.chunk_starts[c]), int(scan.chunk_starts[c + 1]))
        _search_chunk(x[part], None if weight is None else weight[part], planes, cost, lam, trellis, out[part])


def _search_chunk(
    x: NDArray[np.float32],
    weight: NDArray[np.float32] | None,
    planes: NDArray[np.int64],
    cost: NDArray[np.float32],
    lam: float,
    trellis: Trellis,
    out: NDArray[np.int32],
) -> None:
    following = trellis.transitions()
    states = np.arange(trellis.states)
    quantizer = states & 1
    state, base = 0, 0
    for plane in planes:
        cols, mean, wf, ws, wc, wm = (int(v) for v in plane[1:])
        columns = Columns(cols, mean)
        start = (mean, mean)
        for rows in blocks(plane):
            length = rows * cols
            total = np.full(trellis.states, np.inf)
            total[state] = 0.0
            fast = np.full(trellis.states, start[0])
            slow = np.full(trellis.states, start[1])
            came = np.zeros((length, trellis.states), dtype=np.int64)
            chosen = np.zeros((length, trellis.states), dtype=np.int64)
            for n in range(length):
                energy = wf * fast + ws * slow + wc * columns.mean[n % cols] + wm * mean
                context = np.array([context_of(int(e)) for e in energy])
                a = abs(x[base + n])
                w = 1.0 if weight is None else float(weight[base + n])
                half = (a + quantizer.astype(np.float32)) * np.float32(0.5)
                floor = np.minimum(half, np.float32(tokens.MAX_MAGNITUDE)).astype(np.int64)
                # Candidates in the order of the native kernel: zero, then floor - 1, floor, floor + 1 where positive.
                magnitude = np.stack([np.zeros_like(floor), floor - 1, floor, floor + 1], axis=1)
                allowed = magnitude >= np.array([0, 1, 1, 1])
                magnitude = np.maximum(magnitude, 0)
                token = tokens.token_of(magnitude)
                allowed &= token < cost.shape[1]
                level = np.where(magnitude > 0, 2 * magnitude - quantizer[:, None], 0)
                error = float(a) - level
                bits = cost[2 * context + quantizer][states[:, None], np.minimum(token, cost.shape[1] - 1)]
                price = total[:, None] + w * (error * error) + lam * bits.astype(np.float64)
                price = np.where(allowed, price, np.inf)
                target = following[states[:, None], magnitude & 1]
                new_total = np.full(trellis.states, np.inf)
                new_fast, new_slow = np.zeros_like(fast), np.zeros_like(slow)
                for to in range(trellis.states):
                    masked = np.where(target == to, price, np.inf).ravel()
                    best = int(masked.argmin())
                    if masked[best] == np.inf:
                        continue
                    s, k = divmod(best, 4)
                    m = clipped(int(level[s, k]))
                    new_total[to] = masked[best]
                    new_fast[to] = fast[s] + ((m - fast[s]) >> 3)
                    new_slow[to] = slow[s] + ((m - slow[s]) >> 5)
                    came[n, to] = s
                    chosen[n, to] = -magnitude[s, k] if x[base + n] < 0 else magnitude[s, k]
                total, fast, slow = new_total, new_fast, new_slow
            state = best = int(total.argmin())
            start = (int(fast[best]), int(slow[best]))
            for n in range(length - 1, -1, -1):
                out[base + n] = chosen[n, best]
                best = int(came[n, best])
            for n in range(length):
                magnitude_n = abs(int(out[base + n]))
                columns.sum[n % cols] += clipped(level_of(magnitude_n, best & 1))
                best = int(following[best, magnitude_n & 1])
            columns.close(rows)
            base += length


def measure(
    symbols: NDArray[np.int32],
    scan_: Scan,
    cost: NDArray[np.float32] | None,
    trellis: Trellis,
    counts: NDArray[np.int64],
    bits: NDArray[np.float64],
    levels: NDArray[np.int64],
) -> None:
    """See `kernels.measure`; fills `counts` [chunks, ...], `bits` and `levels`."""
    for c in range(len(scan_.chunk_starts) - 1):
        first, last = int(scan_.chunk_planes[c]), int(scan_.chunk_planes[c + 1])
        planes = scan_.planes[first:last]
        part = symbols[scan_.chunk_starts[c] : scan_.chunk_starts[c + 1]]
        token = tokens.token_of(np.abs(part.astype(np.int64)))
        owner = np.repeat(np.arange(first, last), planes[:, 0] * planes[:, 1])

        def visit(i: int, context: int, quantizer: int) -> int:
            row = 2 * context + quantizer
            counts[c, row, token[i]] += 1  # noqa: B023
            if cost is not None:
                bits[owner[i]] += cost[row, token[i]]  # noqa: B023
            levels[owner[i]] += min(level_of(abs(int(part[i])), quantizer), MAX_LEVEL)  # noqa: B023
            return int(part[i])  # noqa: B023

        scan(planes, trellis, visit)


def levels_of(
    symbols: NDArray[np.int32], chunk_starts: NDArray[np.int64], trellis: Trellis, levels: NDArray[np.int32]
) -> None:
    """See `kernels.levels_of`; fills `levels`."""
    following = trellis.transitions().tolist()
    for c in range(len(chunk_starts) - 1):
        state = 0
        for i in range(int(chunk_starts[c]), int(chunk_starts[c + 1])):
            magnitude = abs(int(symbols[i]))
            level = level_of(magnitude, state & 1)
            levels[i] = -level if symbols[i] < 0 else level
            state = following[state][magnitude & 1]


def encode(
    symbols: NDArray[np.int32], planes: NDArray[np.int64], table: NDArray[np.uint32], precision: int, trellis: Trellis
) -> bytes:
    """See `kernels.encode`."""
    rows: list[int] = []

    def visit(i: int, context: int, quantizer: int) -> int:
        rows.append(2 * context + quantizer)
        return int(symbols[i])

    scan(planes, trellis, visit)
    magnitude = np.abs(symbols.astype(np.int64))
    token = tokens.token_of(magnitude)
    raw = tokens.raw_bits_of(token)
    tail = (magnitude - tokens.smallest_of(token)) << 1 | (symbols < 0)
    models = {row: ans.model(table[row], precision) for row in set(rows)} if table.shape[1] > 1 else {}
    coder = ans.new_coder()
    for i in range(len(symbols) - 1, -1, -1):
        if raw[i]:
            _push_raw(coder, int(tail[i]), int(raw[i]))
        if models:
            coder.encode_reverse(int(token[i]), models[rows[i]])
    return bytes(coder.get_compressed().astype("<u4").tobytes())


def decode(
    words: NDArray[np.uint32],
    starts: NDArray[np.int64],
    scan_: Scan,
    table: NDArray[np.uint32],
    precision: int,
    trellis: Trellis,
    levels: NDArray[np.int32],
) -> int:
    """See `kernels.decode`; returns the first bad chunk or -1."""
    models = [ans.model(row, precision) for row in table] if table.shape[1] > 1 else []
    for c in range(len(scan_.chunk_starts) - 1):
        coder = constriction.stream.stack.AnsCoder(words[starts[c] : starts[c + 1]].copy())
        out = levels[scan_.chunk_starts[c] : scan_.chunk_starts[c + 1]]

        def visit(i: int, context: int, quantizer: int) -> int:
            token = int(coder.decode(models[2 * context + quantizer])) if models else 0  # noqa: B023
            raw = int(tokens.raw_bits_of(np.int64(token)))
            if not raw:
                return 0
            tail = _pop_raw(coder, raw)  # noqa: B023
            magnitude = int(tokens.smallest_of(np.int64(token))) + (tail >> 1)
            level = level_of(magnitude, quantizer)
            out[i] = -level if tail & 1 else level  # noqa: B023
            return magnitude

        scan(scan_.planes[scan_.chunk_planes[c] : scan_.chunk_planes[c + 1]], trellis, visit)
        if not ans.at_end(coder):
            return c
    return -1


def _push_raw(coder: constriction.stream.stack.AnsCoder, value: int, bits: int) -> None:
    coder.encode_reverse(value, constriction.stream.model.Uniform(1 << bits))


def _pop_raw(coder: constriction.stream.stack.AnsCoder, bits: int) -> int:
    return int(coder.decode(constriction.stream.model.Uniform(1 << bits)))
