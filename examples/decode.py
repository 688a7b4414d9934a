"""Reads .tersor files without tersor: a second decoder, written from docs/format.md alone, for NumPy arrays.

    python examples/decode.py model.tersor             # lists the tensors
    python examples/decode.py model.tersor out.npz     # writes them; bfloat16 widened to float32, which is exact

It is one file, in the order of docs/format.md and with its nouns, so that both can be read side by side and the file
can be taken along; it needs numpy, zstandard and constriction. It is written to be read, not to be fast: the symbols of
lattices and masks, each of which has a table of its own, take a microsecond or two each.

NumPy lacks some types. Their elements come as bits in unsigned integers of the same width: bfloat16 as uint16,
complex32 as uint32, float8_* and float4_e2m1fn_x2 as uint8.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import struct
import sys
import zipfile
import zlib
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zstandard
from constriction import stream as constriction

VERSION = 3
TYPES = [
    "float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool", "uint16", "uint32",
    "uint64", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz",
    "float8_e8m0fnu", "complex32", "float4_e2m1fn_x2",
]  # fmt: skip
AS_BITS = {"bfloat16": "u2", "complex32": "u4", "float4_e2m1fn_x2": "u1"}
FLOATS = TYPES[:4]
REASONS = 10  # how many there are; 9 is precision


# what breaks where the bytes are not what the format says; `decode` tells it in one line
FAULTS = (ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError, struct.error)
FAULTS += (zstandard.ZstdError,)


class Refused(ValueError):
    """The file is damaged, or not one that format.md allows; one line."""


class Tensor(NamedTuple):
    """One decoded tensor; `array` has its `shape`, and its type or, where NumPy has none, its bits (see above)."""

    dtype: str
    shape: tuple[int, ...]
    array: np.ndarray


def need(condition: object, what: str) -> None:
    """Refuse the file, for this reason, unless the condition holds."""
    if not condition:
        raise Refused(what)


def stored(dtype: str) -> np.dtype:
    """The little-endian NumPy type whose bits are those of an element."""
    return np.dtype(AS_BITS.get(dtype, "u1" if dtype.startswith("float8") else dtype)).newbyteorder("<")


# Container ----------------------------------------------------------------------------------------------------------


class Bytes:
    """Bytes that are taken from the front, and must be used up."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        need(0 <= count <= len(self.data) - self.at, "a length points past the end of its section")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, count: int = 4) -> int:
        """The next bytes as an integer."""
        return int.from_bytes(self.take(count), "little")

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self.data) - self.at)

    def end(self) -> None:
        """Refuse anything that is left."""
        need(self.at == len(self.data), "a section goes on after its end")


def container(data: bytes) -> tuple[int, bytes, bytes]:
    """The version, the index and the sections of a file."""
    file, length = Bytes(data), int.from_bytes(data[:8], "little")
    need(8 <= 8 + length <= len(data), "no header of a .tersor file; name a file that tersor wrote, and all of it")
    header = file.take(8 + length)[8:]
    try:
        fields = json.loads(header)
        version, (i,), (d,) = fields["__metadata__"]["tersor"], fields["index"]["shape"], fields["data"]["shape"]
    except (ValueError, LookupError, TypeError):
        raise Refused("no header of a .tersor file; name a file that tersor wrote, and all of it") from None
    need(str(version).isdecimal() and int(version) > 0, f"no format has the version {version!r}")
    need(int(version) <= VERSION, f"format version {version} is newer than {VERSION}, the last this decoder knows")
    text = (
        f'{{"__metadata__":{{"tersor":"{int(version)}"}},"index":{{"dtype":"U8","shape":[{i}],"data_offsets":[0,{i}]}},'
        f'"data":{{"dtype":"U8","shape":[{d}],"data_offsets":[{i},{i + d}]}}}}'
    )
    need(header == (text + " " * (-len(text) % 8)).encode(), "the header is damaged, or not that of a .tersor file")
    need(len(data) == 8 + len(header) + i + d, f"{len(data)} bytes instead of {8 + len(header) + i + d}; cut off?")
    return int(version), file.take(i), file.take(d)


def unzstd(frame: bytes) -> bytes:
    """The content of one zstd frame."""
    return zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)


# Index --------------------------------------------------------------------------------------------------------------


class Lattice(NamedTuple):
    """The lattice of a group, as the index has it."""

    step: float
    memory: int
    basis: bool
    shift: list[int]


class Group(NamedTuple):
    """A group, as the index has it; `survivors` if it is sparse."""

    tensors: list[int]
    dim: int  # D
    codebooks: int  # M
    codewords: int  # K
    units: list[float]
    scales: int
    lattice: Lattice | None
    survivors: list[int] | None = None


class ScalarGroup(NamedTuple):
    """A scalar group, as the index has it."""

    tensors: list[int]
    bits: int
    block: int
    zeros: bool
    size: int
    methods: list[int]


class Index(NamedTuple):
    """The elements of the index in their order; tensors are positions in `names`."""

    tool: str
    recipe: dict
    names: list[str]
    dtypes: list[int]
    shapes: list[list[int]]
    ties: dict[int, int]
    kept: list[tuple[int, int, int]]
    groups: list[Group]
    errors: list[int]
    lengths: list[int]
    checks: list[int]
    scalars: list[ScalarGroup]
    made: list[tuple[int, tuple[int, list[int]]]]

    def dtype(self, tensor: int) -> str:
        """The type of a tensor."""
        return TYPES[self.dtypes[tensor]]

    def elements(self, tensor: int) -> int:
        """How many elements a tensor has."""
        return math.prod(self.shapes[tensor])


def msgpack(source: Bytes) -> Any:
    """The next msgpack object; of the kinds that an index has."""
    tag = source.number(1)
    if tag < 0x80 or tag >= 0xE0:
        return tag if tag < 0x80 else tag - 256
    if tag in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[tag]
    if tag in (0xCA, 0xCB):
        return struct.unpack(">f", source.take(4))[0] if tag == 0xCA else struct.unpack(">d", source.take(8))[0]
    if 0xCC <= tag <= 0xD3:
        return int.from_bytes(source.take(1 << (tag - 0xCC) % 4), "big", signed=tag >= 0xD0)
    if tag < 0xC0:
        kind, count = ("map", tag & 15) if tag < 0x90 else ("list", tag & 15) if tag < 0xA0 else ("text", tag & 31)
    else:
        lengths = {0xD9: ("text", 1), 0xDA: ("text", 2), 0xDB: ("text", 4)}
        lengths |= {0xDC: ("list", 2), 0xDD: ("list", 4), 0xDE: ("map", 2), 0xDF: ("map", 4)}
        need(tag in lengths, "the index has an object of a kind that it cannot have")
        kind, width = lengths[tag]
        count = int.from_bytes(source.take(width), "big")
    if kind == "text":
        return source.take(count).decode()
    if kind == "list":
        return [msgpack(source) for _ in range(count)]
    return {msgpack(source): msgpack(source) for _ in range(count)}


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a kind: a type, [kind] for a list, (kinds...) for an array, {kind: kind}, or a test."""
    if isinstance(kind, list):
        return type(value) is list and all(fits(v, kind[0]) for v in value)
    if isinstance(kind, tuple):
        return type(value) is list and len(value) == len(kind) and all(map(fits, value, kind))
    if isinstance(kind, dict):
        [(key, item)] = kind.items()
        return type(value) is dict and all(fits(k, key) and fits(v, item) for k, v in value.items())
    return type(value) is kind if isinstance(kind, type) else kind(value)


def read_index(entry: bytes, version: int) -> Index:
    """The index, its types, positions and bounds checked."""
    source = Bytes(entry)
    check, frame = source.number(), source.rest()
    need(check == zlib.crc32(frame), "the index does not match its checksum; the file is damaged, fetch it again")
    need(0 <= zstandard.frame_content_size(frame) <= min(2**28, 1024 * len(entry)), "an index of implausible size")
    source = Bytes(unzstd(frame))
    fields = msgpack(source)
    source.end()

    def lattice(value: Any) -> bool:
        return value is None or fits(value, (float, int, bool, [int]))

    group = ([int], int, int, int, [float], int, lattice)
    group += (lambda value: value is None or fits(value, [int]),) if version >= 2 else ()
    kinds = (str, dict, [str], [int], [[int]], {int: int}, [(int, int, int)], [group], [int], [int], [int])
    kinds += ([([int], int, int, bool, int, [int])], [(int, (int, [int]))]) if version >= 3 else ()
    need(fits(fields, kinds), "the index has elements of other types than the format's")
    if version < 3:
        fields += [[], []]
    fields[7] = [Group(*g[:6], Lattice(*g[6]) if g[6] else None, *g[7:]) for g in fields[7]]
    fields[11] = [ScalarGroup(*g) for g in fields[11]]
    index = Index(*fields)
    check_index(index)
    return index


def check_index(index: Index) -> None:
    """Refuse an index that contradicts itself or goes beyond the format's bounds."""
    count, coded = len(index.names), [*index.groups, *index.scalars]
    need(len(set(index.names)) == count == len(index.dtypes) == len(index.shapes), "names, types and shapes differ")
    need(all(0 <= d < len(TYPES) for d in index.dtypes), "a type that the format does not have")
    for shape in index.shapes:
        fine = len(shape) <= 64 and all(0 <= n < 2**48 for n in shape) and math.prod(n or 1 for n in shape) < 2**58
        need(fine, "a shape out of range")
    places = [*index.ties, *(t for t, _, _ in index.kept), *(t for t, _ in index.made)]
    places += [t for g in coded for t in g.tensors]
    need(sorted(places) == list(range(count)), "a tensor is stored twice, or not at all")
    for tensor, other in index.ties.items():
        same = 0 <= other < tensor and other not in index.ties
        same = same and (index.dtypes[other], index.shapes[other]) == (index.dtypes[tensor], index.shapes[tensor])
        need(same, f"{index.names[tensor]!r} is tied to what it cannot be tied to")
    for tensor, reason, kind in index.kept:
        narrow = (2, 1) if reason == 9 else (2,)
        fine = kind == index.dtypes[tensor] or (kind in narrow and index.dtype(tensor) in FLOATS)
        need(fine and 0 <= reason < REASONS, f"{index.names[tensor]!r} is kept in a way that it cannot be")
    need(all(g.tensors for g in coded), "a group of no tensors")
    for t in [*(t for g in coded for t in g.tensors), *(t for t, _ in index.made)]:
        fine = index.dtype(t) in FLOATS and index.shapes[t] and index.elements(t)
        need(fine, f"{index.names[t]!r} cannot be coded: {index.dtype(t)} {index.shapes[t]}")
    for g in index.groups:
        need(1 <= g.dim <= 256 and 0 <= g.codebooks <= 16 and 0 <= g.scales <= 2, "numbers of a group out of range")
        need(g.codebooks or g.lattice, "a group without codebooks and lattice")
        need(0 <= g.codewords <= 65536 and (g.codewords > 0) == (g.codebooks > 0), "codewords out of range")
        need(g.codebooks * g.codewords <= 1 << 18 and g.codebooks * g.codewords * g.dim <= 1 << 22, "large codebooks")
        need(len(g.units) == g.codebooks and all(0 <= u < 1e36 for u in g.units), "units out of range")
        if g.lattice:
            step, memory, _, shift = g.lattice
            need(0 < step < 1e38 and step == np.float32(step) and 2 <= memory <= 6, "a lattice out of range")
            need(len(shift) == 3 and all(-64 <= s <= 64 for s in shift), "shifts out of range")
        if g.survivors is not None:
            need(len(g.survivors) == len(g.tensors) and g.scales < 2, "a sparse group that cannot be")
            fine = all(0 <= s <= index.elements(t) for s, t in zip(g.survivors, g.tensors, strict=True))
            need(fine, "survivors out of range")
    for s in index.scalars:
        need(s.bits in (0, *range(2, 9)) and s.block >= -1 and len(s.methods) == len(s.tensors), "a scalar group")
        fine = 1 <= s.size <= 65536 and s.block == 0 and not s.zeros if s.bits == 0 else s.size == 1 << s.bits
        need(fine and all(0 <= m <= 4 for m in s.methods), "numbers of a scalar group out of range")
    need(len(index.errors) == sum(len(g.tensors) for g in coded), "errors of other tensors than the coded")
    need(len(index.lengths) == len(index.checks) and all(n >= 0 for n in index.lengths), "lengths and checks differ")


# Integers -----------------------------------------------------------------------------------------------------------


def bits_of(data: bytes) -> str:
    """Bits as text, the most significant of each byte first."""
    return (np.unpackbits(np.frombuffer(data, np.uint8)) + np.uint8(48)).tobytes().decode()


def padded(bits: str, at: int) -> None:
    """Refuse bits from a place on that are not the zeros that fill a byte."""
    need(len(bits) - at < 8 and "1" not in bits[at:], "bits go on after their end")


def rice_codes(data: bytes, count: int) -> list[int]:
    """`count` signed integers."""
    if not count:
        need(not data, "bytes for no integers")
        return []
    k, bits, at, out = Bytes(data).number(1), bits_of(data[1:]), 0, []
    need(k <= 30, "a Rice parameter above 30")
    for _ in range(count):
        zero = bits.find("0", at)
        need(0 <= zero < len(bits) - k, "Rice codes end too early")
        value = (zero - at) << k | int(bits[zero + 1 : zero + 1 + k] or "0", 2)
        out.append(-(value + 1 >> 1) if value & 1 else value >> 1)
        at = zero + 1 + k
    padded(bits, at)
    return out


def array(data: bytes, count: int) -> np.ndarray:
    """*An array of integers*, int64."""
    if not count or data[:1] == b"\0":
        return np.array(rice_codes(data[bool(count) :], count), np.int64)
    source = Bytes(data)
    need(source.number(1) == 1, "an array of integers of no known kind")
    minimum, alphabet, size = (rice_codes(source.take(source.number(1)), 1)[0] for _ in range(3))
    need(1 <= alphabet <= 65536, "an alphabet out of range")
    levels = np.cumsum(rice_codes(source.take(size), alphabet))
    coder = ArrayStream(source.rest())
    values = coder.symbols(frequencies(levels, 20), count)
    coder.end()
    return values + minimum


# Frequency tables and streams -----------------------------------------------------------------------------------------


def frequencies(levels: np.ndarray, precision: int) -> np.ndarray:
    """The frequency of each symbol from its level, int64; they sum to 2^precision."""
    levels = np.asarray(levels, np.int64)
    need(levels.min() >= 0 and levels.max() <= 60, "a table level out of range")
    w = np.array([32768, 27554, 23170, 19484])[levels % 4] >> levels // 4
    f = 1 + w * (2**precision - len(w)) // w.sum()
    f[f.argmax()] += 2**precision - f.sum()
    return f


def cumulative(f: np.ndarray, precision: int) -> list[int]:
    """c of each symbol as of 24 bits, and 2^24."""
    return [0, *(np.cumsum(f) << 24 - precision).tolist()]


def words(data: bytes) -> np.ndarray:
    """The 32-bit words of a stream."""
    need(data and len(data) % 4 == 0 and any(data[-4:]), "a stream that is no words, or ends in an empty one")
    return np.frombuffer(data, "<u4")


class Stream:
    """The asymmetric numeral system, symbol by symbol: for streams in which each symbol has a table of its own."""

    def __init__(self, data: bytes) -> None:
        self.words, self.state = words(data).tolist(), 0
        self.refill()
        self.refill()

    def refill(self) -> None:
        """Take the last word, if the state is low and a word is left."""
        if self.state < 1 << 32 and self.words:
            self.state = self.state << 32 | self.words.pop()

    def symbol(self, c: list[int]) -> int:
        """The next symbol, of a table as `cumulative` gives it."""
        q = self.state & 0xFFFFFF
        symbol = bisect_right(c, q) - 1
        self.state = (self.state >> 24) * (c[symbol + 1] - c[symbol]) + q - c[symbol]
        self.refill()
        return symbol

    def number(self, precision: int) -> int:
        """The next of 2^precision numbers that are equally likely."""
        q = self.state & 0xFFFFFF
        self.state = (self.state >> 24 << 24 - precision) + (q & (1 << 24 - precision) - 1)
        self.refill()
        return q >> 24 - precision

    def end(self) -> None:
        """Refuse a stream that does not end here, with its end mark."""
        fine = self.number(16) == 42300 and self.state == 0 and not self.words
        need(fine, "a stream does not end with its end mark")


class ArrayStream:
    """The same by constriction: for streams in which many symbols in a row have one table, of precision 20."""

    def __init__(self, data: bytes) -> None:
        self.coder = constriction.stack.AnsCoder(words(data).astype(np.uint32))

    def symbols(self, f: np.ndarray, count: int) -> np.ndarray:
        """The next `count` symbols, int64, of one table."""
        if len(f) == 1:
            return np.zeros(count, np.int64)
        # constriction gives every symbol 1 of 2^24 and shares out the rest in proportion, here exactly
        table = constriction.model.Categorical((f * 16 - 1).astype(np.float64), perfect=False)
        return self.coder.decode(table, count).astype(np.int64)

    def end(self) -> None:
        """Refuse a stream that does not end here, with its end mark."""
        fine = self.coder.decode(constriction.model.Uniform(65536)) == 42300 and self.coder.is_empty()
        need(fine, "a stream does not end with its end mark")


# Vectors ------------------------------------------------------------------------------------------------------------


def kernel_size(shape: list[int]) -> int:
    """*Kernel size* of a shape."""
    size = math.prod(shape[2:])
    return size if len(shape) >= 3 and 2 <= size <= 32 else 1


def rows_of(shape: list[int]) -> int:
    """*Rows* of a shape."""
    plain = len(shape) < 3 or math.prod(shape[2:]) == 1 or kernel_size(shape) > 1
    return shape[0] if plain else math.prod(shape[:-1])


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def vectors(shape: list[int], dim: int, survivors: int | None) -> tuple[int, int]:
    """Rows and columns of a tensor as [rows, cols, D]."""
    elements = math.prod(shape)
    if survivors not in (None, elements):
        n = ceil_div(survivors, dim)
        rows = ceil_div(n, 65536)
        return rows, ceil_div(n, rows) if rows else 0
    rows = rows_of(shape)
    length = elements // rows
    if len(shape) >= 2 and length % dim == 0 and length // dim <= 65536:
        return rows, length // dim
    n = ceil_div(elements, dim)
    cols = min(n, 1024)
    return ceil_div(n, cols), cols


class Piece(NamedTuple):
    """Some rows of a tensor of a group, [rows, cols, D]."""

    member: int  # position in the group's tensors
    rows: range
    cols: int
    last: bool  # of its tensor


def chunks_of(sizes: list[tuple[int, int]], dim: int) -> list[list[Piece]]:
    """The pieces of all chunks of a group."""
    chunks, values = [[]], 0
    for member, (rows, cols) in enumerate(sizes):
        step = max(1, 2**19 // (cols * dim)) if rows else 1
        for first in range(0, rows, step):
            piece = Piece(member, range(first, min(rows, first + step)), cols, first + step >= rows)
            chunks[-1].append(piece)
            values += len(piece.rows) * cols * dim
            if values >= 2**17:
                chunks.append([])
                values = 0
    return [chunk for chunk in chunks if chunk]


def convert(values: np.ndarray, dtype: str, limited: bool = True) -> np.ndarray:
    """float32 to a type: nearest, ties to even; bfloat16 as its bits."""
    if dtype == "float16" and limited:
        return np.clip(values, np.float32(-65504), np.float32(65504)).astype(np.float16)
    if dtype == "bfloat16":
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        return np.where(np.isnan(values), bits >> 16 | 64, bits + 0x7FFF + (bits >> 16 & 1) >> 16).astype(np.uint16)
    return values.astype(dtype)


def widened(array: np.ndarray) -> np.ndarray:
    """bfloat16 bits to float32, exactly."""
    return (array.astype(np.uint32) << 16).view(np.float32)


# Groups -------------------------------------------------------------------------------------------------------------


def two_arrays(section: bytes, first: int, second: int) -> tuple[np.ndarray, np.ndarray]:
    """Four bytes, the length of the first array; both arrays."""
    source = Bytes(section)
    return array(source.take(source.number()), first), array(source.rest(), second)


def decode_group(index: Index, group: Group, sections: deque[bytes]) -> Iterator[tuple[int, np.ndarray]]:
    """Positions and arrays of a group's tensors."""
    shapes, count, dim = [index.shapes[t] for t in group.tensors], len(group.tensors), group.dim
    survivors = group.survivors or [None] * count
    sizes = [vectors(shape, dim, left) for shape, left in zip(shapes, survivors, strict=True)]
    scales = read_scales(group, sizes, sections) if group.scales else None
    codes = Codes(group, sections) if group.codebooks else None
    lattice = LatticeSymbols(group, sections) if group.lattice else None
    values = [np.empty((rows, cols, dim), np.float32) for rows, cols in sizes]
    masks = {}
    for chunk in chunks_of(sizes, dim):
        parts = codes.chunk(sections.popleft(), chunk) if codes else [None] * len(chunk)
        if lattice:
            points = lattice.chunk(sections.popleft(), chunk)
            parts = [b if a is None else a + b for a, b in zip(parts, points, strict=True)]
        for piece, part in zip(chunk, parts, strict=True):
            rows = slice(piece.rows.start, piece.rows.stop)
            values[piece.member][rows] = part if scales is None else scales[piece.member][rows, None, None] * part
        if group.survivors is not None:
            ending = [p.member for p in chunk if p.last]
            found = read_masks(sections.popleft(), [shapes[m] for m in ending], [survivors[m] for m in ending])
            masks |= dict(zip(ending, found, strict=True))
    for member, tensor in enumerate(group.tensors):
        run, elements = values[member].reshape(-1), math.prod(shapes[member])
        if survivors[member] in (None, elements):
            full = run[:elements]
        else:
            full = np.zeros(elements, np.float32)
            if survivors[member]:
                full[masks[member]] = run[: survivors[member]]
        yield tensor, convert(full, index.dtype(tensor)).reshape(shapes[member])


def read_scales(group: Group, sizes: list[tuple[int, int]], sections: deque[bytes]) -> list[np.ndarray]:
    """The scale of every row of every tensor, float32."""
    counts = [rows if group.scales == 2 else 1 for rows, _ in sizes]
    s = array(sections.popleft(), sum(counts))
    need((abs(s) <= 1920).all(), "a scale out of range")
    scales = np.ldexp((2.0 ** (s % 16 / 16)).astype(np.float32), s // 16)
    parts = np.split(scales, np.cumsum(counts)[:-1])
    return [np.broadcast_to(part, rows) if rows else part for part, (rows, _) in zip(parts, sizes, strict=True)]


class Codes:
    """Codebooks and code tables of a group."""

    def __init__(self, group: Group, sections: deque[bytes]) -> None:
        m, k, dim = group.codebooks, group.codewords, group.dim
        entries = array(sections.popleft(), m * k * dim).reshape(m, k, dim)
        need((abs(entries) <= 127).all(), "a codebook entry out of range")
        self.codebooks = entries.astype(np.float32) * np.array(group.units, np.float32)[:, None, None]
        source = Bytes(sections.popleft())
        self.classes = array(source.take(source.number()), len(group.tensors)).tolist()
        need(all(0 <= c <= 7 for c in self.classes), "a class out of range")
        classes = max(self.classes) + 1
        levels = array(source.rest(), classes * m * k).reshape(classes, m, k).cumsum(axis=2)
        self.tables = [[frequencies(table, 20) for table in of_class] for of_class in levels]

    def chunk(self, section: bytes, chunk: list[Piece]) -> list[np.ndarray]:
        """The sum of the codewords of each piece, [rows, cols, D]."""
        stream, out = ArrayStream(section), []
        for piece in chunk:
            tables, total = self.tables[self.classes[piece.member]], None
            for codebook, table in zip(self.codebooks, tables, strict=True):
                part = codebook[stream.symbols(table, len(piece.rows) * piece.cols)]
                total = part if total is None else total + part
            out.append(total.reshape(len(piece.rows), piece.cols, -1))
        stream.end()
        return out


# Lattice symbols ------------------------------------------------------------------------------------------------------

H0 = {2: 0o5, 3: 0o13, 4: 0o23, 5: 0o45, 6: 0o103}
H1 = {2: 0o2, 3: 0o4, 4: 0o4, 5: 0o10, 6: 0o24}
R = (32768, 38968, 46341, 55109)
MIXES = [
    (6, 6, 4, 0), (2, 2, 8, 4), (0, 2, 4, 10), (10, 4, 0, 2), (3, 3, 4, 6), (0, 8, 4, 4), (4, 4, 0, 8), (0, 0, 0, 16)
]  # fmt: skip


def next_states(memory: int) -> list[tuple[int, int]]:
    """The next state, [state][parity]."""

    def bit(number: int, place: int) -> int:
        return number >> place & 1

    def step(s: int, parity: int) -> int:
        h0, h1, v = H0[memory], H1[memory], memory
        bits = ((bit(s, i) if i < v else 0) ^ (bit(h0, i) & bit(s, 0)) ^ (bit(h1, i) & parity) for i in range(1, v + 1))
        return sum(b << i for i, b in enumerate(bits))

    return [(step(s, 0), step(s, 1)) for s in range(1 << memory)]


def uncoded(token: int) -> tuple[int, int]:
    """The smallest magnitude of a token above 0, and the number r of its uncoded bits."""
    if token < 16:
        return token, 1
    e = 4 + (token - 16) // 2
    return (1 << e) + ((token & 1) << e - 1), e


class LatticeSymbols:
    """Basis, energies and tables of a group's lattice."""

    def __init__(self, group: Group, sections: deque[bytes]) -> None:
        self.lattice, self.dim, count = group.lattice, group.dim, len(group.tensors)
        self.basis = None
        if group.lattice.basis:
            b = array(sections.popleft(), self.dim**2).reshape(self.dim, self.dim)
            need((abs(b) <= 127).all(), "a basis out of range")
            self.basis = b.astype(np.float32) / np.float32(127)
        levels, mixes = two_arrays(sections.popleft(), count * self.dim, count)
        self.mean_levels = levels.cumsum().reshape(count, self.dim).tolist()
        need(all(0 <= g <= 96 for of in self.mean_levels for g in of), "a mean level out of range")
        need(all(0 <= mix <= 7 for mix in mixes), "a mix out of range")
        self.mixes = [MIXES[mix] for mix in mixes]
        self.tables = self.read_tables(Bytes(sections.popleft()))
        self.next_states = next_states(group.lattice.memory)
        self.uncoded = [uncoded(token) for token in range(54)]

    @staticmethod
    def read_tables(source: Bytes) -> list[list[list[int]]]:
        """Cumulative frequencies, [quantizer][context]."""
        first, contexts, tokens = (source.number(1) for _ in range(3))
        need(contexts and first + contexts <= 48 and 1 <= tokens <= 54, "contexts or tokens out of range")
        levels = array(source.rest(), 2 * contexts * tokens).reshape(2, contexts, tokens).cumsum(axis=1).cumsum(axis=2)
        tables = [[cumulative(frequencies(table, 12), 12) for table in of] for of in levels]
        return [[of[min(max(c - first, 0), contexts - 1)] for c in range(48)] for of in tables]

    def chunk(self, section: bytes, chunk: list[Piece]) -> list[np.ndarray]:
        """The lattice's part of each piece, [rows, cols, D]."""
        self.stream, self.state, out = Stream(section), 0, []
        for piece in chunk:
            y = np.empty((len(piece.rows), piece.cols, self.dim), np.int64)
            for coefficient in range(self.dim):
                level = self.mean_levels[piece.member][coefficient]
                y[:, :, coefficient] = self.plane(len(piece.rows), piece.cols, level, self.mixes[piece.member])
            out.append(self.values(y))
        self.stream.end()
        return out

    def plane(self, rows: int, cols: int, g: int, mix: tuple[int, int, int, int]) -> list[list[int]]:
        """The levels y of a plane."""
        stream, state, tables, w_f, w_s, w_u, w_g = self.stream, self.state, self.tables, *mix
        mean = R[(g - 1) % 4] << (g - 1) // 4 >> 13 if g else 0
        fast = slow = mean
        of_column, out = [mean] * cols, []
        step = 1 if cols >= 64 else ceil_div(64, cols)
        for b, first in enumerate(range(0, rows, step)):
            n, sums = min(step, rows - first), [0] * cols
            for _ in range(n):
                row = []
                for c in range(cols):
                    energy = w_f * fast + w_s * slow + w_u * of_column[c] + w_g * mean >> 4
                    t = energy.bit_length() - 1
                    context = 0 if t < 2 else min(47, 2 * (t - 2) + (energy >> t - 1 & 1) + 1)
                    quantizer, k, y = state & 1, 0, 0
                    token = stream.symbol(tables[quantizer][context])
                    if token:
                        smallest, r = self.uncoded[token]
                        bits = stream.number(r)
                        k = smallest + (bits >> 1)
                        y = quantizer - 2 * k if bits & 1 else 2 * k - quantizer
                    state = self.next_states[state][k & 1]
                    m = min(abs(y), 1 << 14) << 12
                    fast += m - fast >> 3
                    slow += m - slow >> 5
                    sums[c] += m
                    row.append(y)
                out.append(row)
            for c in range(cols):
                of_column[c] += sums[c] // n - of_column[c] >> min(4, 1 + b)
        self.state = state
        return out

    def values(self, y: np.ndarray) -> np.ndarray:
        """*Values* of levels, [rows, cols, D] float32."""
        shift = np.array([0, *self.lattice.shift])
        v = 128 * y - np.sign(y) * shift[np.minimum(abs(y), 3)]
        v = v.astype(np.float32) * np.float32(self.lattice.step / 128)
        if self.basis is None:
            return v
        out = self.basis[:, 0] * v[..., :1]
        for j in range(1, self.dim):
            out = out + self.basis[:, j] * v[..., j : j + 1]
        return out


# Masks --------------------------------------------------------------------------------------------------------------

ODDS = [cumulative(frequencies([max(o, 0), max(-o, 0)], 20), 20) for o in range(-60, 61)]


def read_masks(section: bytes, shapes: list[list[int]], ones: list[int]) -> list[np.ndarray]:
    """Which elements survive in each tensor, in storage order."""
    elements = [math.prod(shape) for shape in shapes]
    masks = [np.full(n, left > 0) for n, left in zip(elements, ones, strict=True)]
    mixed = [i for i, (n, left) in enumerate(zip(elements, ones, strict=True)) if 0 < left < n]
    if not mixed:
        need(not section, "masks of no tensors")
        return masks
    shapes = [shapes[i] for i in mixed]
    source = Bytes(section)
    first, second = source.number(), source.number()
    numbers = array(source.take(first), 7 * len(shapes)).reshape(-1, 7).tolist()
    counts = []
    for (block, base, *units), shape in zip(numbers, shapes, strict=True):
        rows = rows_of(shape) if len(shape) > 1 else 1
        length, size = math.prod(shape) // rows, abs(block)
        fine = 1 <= size <= 32 and length % size == 0 and (block > 0 or kernel_size(shape) > 1)
        need(fine and abs(base) <= 60 and all(0 <= u <= 6 for u in units), "numbers of a mask out of range")
        counts.append((rows, length // size, size, size, size))
    total = sum(n for row, of in zip(numbers, counts, strict=True) for n, unit in zip(of, row[2:], strict=True) if unit)
    effect = iter(array(source.take(second), total).tolist())
    stream = Stream(source.rest())
    for (block, base, *units), of, shape, i in zip(numbers, counts, shapes, mixed, strict=True):
        lists = [[next(effect) << u - 1 for _ in range(n)] if u else [0] * n for n, u in zip(of, units, strict=True)]
        need(all(-60 <= e <= 60 for effects in lists for e in effects), "an effect out of range")
        mask = mask_bits(stream, of[:3], base, lists).reshape(of[0], -1)
        if block < 0:
            mask = mask.reshape(of[0], kernel_size(shape), -1).swapaxes(1, 2)
        need(mask.sum() == ones[i], "a mask leaves more or fewer elements than it should")
        masks[i] = mask.reshape(-1)
    stream.end()
    return masks


def mask_bits(stream: Stream, grid: tuple[int, int, int], base: int, effects: list[list[int]]) -> np.ndarray:
    """The bits of a mask, [R, columns, B]."""
    rows, columns, block = grid
    row, column, position, ones, zeros = effects
    bits, earlier = np.zeros(grid, bool), [[0] * columns for _ in range(rows)]
    for p in range(block):
        for r in range(rows):
            before = earlier[r]
            for c in range(columns):
                o = before[c]
                odds = base + row[r] + column[c] + position[p] + ones[o] + zeros[p - o]
                if stream.symbol(ODDS[min(max(odds, -60), 60) + 60]):
                    bits[r, c, p] = True
                    before[c] += 1
    return bits


# Scalar groups --------------------------------------------------------------------------------------------------------


def decode_scalars(index: Index, group: ScalarGroup, sections: deque[bytes]) -> Iterator[tuple[int, np.ndarray]]:
    """Positions and arrays of a scalar group's tensors."""
    shapes = [index.shapes[t] for t in group.tensors]
    rows = [shape[0] if len(shape) > 1 else 1 for shape in shapes]
    lengths = [math.prod(shape) // r for shape, r in zip(shapes, rows, strict=True)]
    source = Bytes(sections.popleft())
    if group.bits == 0:
        palette = planes(source, "float32", group.size)
        need(np.isfinite(palette).all(), "a palette that is not finite")
        zero = next(iter(np.flatnonzero(palette == 0).tolist()), None)
    else:
        blocks = [{0: r * n, -1: n}.get(group.block, group.block) for r, n in zip(rows, lengths, strict=True)]
        need(group.block < 1 or not any(n % group.block for n in lengths), "a block that does not divide its rows")
        counts = [r * n // block for r, n, block in zip(rows, lengths, blocks, strict=True)]
        inner = Bytes(source.take(source.number())) if group.zeros else source
        scales = widened(planes(inner, "bfloat16", sum(counts)))
        inner.end()
        need(((scales > 0) & np.isfinite(scales)).all(), "a scale that is not above 0 and finite")
        points = array(source.rest(), len(scales)) if group.zeros else np.zeros(len(scales), np.int64)
        need(((points >= 0) & (points < group.size)).all(), "a zero point out of range")
        scales, points = (np.split(of, np.cumsum(counts)[:-1]) for of in (scales, points))
        zero = None if group.zeros else 2 ** (group.bits - 1) - 1
    source.end()
    for i, (tensor, method) in enumerate(zip(group.tensors, group.methods, strict=True)):
        s = read_symbols(sections.popleft(), method, shapes[i], (rows[i], lengths[i]), group.size, zero)
        need(((s >= 0) & (s < group.size)).all(), "a symbol out of range")
        if group.bits == 0:
            weights = palette[s]
        else:
            q = s if group.zeros else s - zero
            q = q.reshape(-1, blocks[i]) - points[i][:, None]
            weights = q.astype(np.float32) * scales[i][:, None]
        yield tensor, convert(weights.reshape(shapes[i]), index.dtype(tensor))


def read_symbols(
    section: bytes, method: int, shape: list[int], matrix: tuple[int, int], size: int, zero: int | None
) -> np.ndarray:
    """The symbols of a tensor in storage order."""
    rows, columns = matrix
    elements, source = rows * columns, Bytes(section)
    if method == 0:
        return array(section, elements)
    if method == 1:
        return fixed_width(source, max(1, (size - 1).bit_length()), elements)
    if method == 2:
        return huffman_code(source, size, elements).reshape(columns, rows).T.reshape(-1)
    need(zero is not None, "zeros left out where there is no symbol for zero")
    out = np.full(elements, zero, np.int64)
    if method == 3:
        width = source.number(1)
        if width:
            counts = fixed_width(source, width, columns, last=False)
            need(int(counts.max()).bit_length() == width and counts.max() <= rows, "counts of columns out of range")
            places = fixed_width(source, (rows - 1).bit_length(), int(counts.sum()), last=False)
            column = np.repeat(np.arange(columns), counts)
            need((places < rows).all(), "a row out of range")
            order = column * rows + places
            need((np.diff(order) > 0).all(), "rows that do not rise")
            out[places * columns + column] = huffman_code(source, size, len(places), absent=zero)
        source.end()
    else:
        count = source.number()
        need(count <= elements, "more symbols than elements")
        [mask] = read_masks(source.take(source.number()), [shape], [count])
        out[mask] = array(source.rest(), count)
    return out


def fixed_width(source: Bytes, width: int, count: int, last: bool = True) -> np.ndarray:
    """`count` numbers of `width` bits each, the highest first, and zeros that fill a byte."""
    bits = bits_of(source.take(ceil_div(width * count, 8)))
    padded(bits, width * count)
    if last:
        source.end()
    return np.array([int(bits[i * width : (i + 1) * width] or "0", 2) for i in range(count)], np.int64)


def huffman_code(source: Bytes, size: int, count: int, absent: int | None = None) -> np.ndarray:
    """`count` symbols of *a Huffman code*, to the end of the section."""
    lengths = array(source.take(source.number()), size).tolist()
    need(all(0 <= n <= 32 for n in lengths), "a code length out of range")
    need(absent is None or lengths[absent] == 0, "a code for the symbol that is left out")
    order = sorted((n, symbol) for symbol, n in enumerate(lengths) if n)
    symbols, code, before = {}, 0, 0
    for n, symbol in order:
        code <<= n - before
        symbols[f"{code:0{n}b}"] = symbol
        code, before = code + 1, n
    fills = code == 1 << before or (len(order) == 1 and before == 1)
    need(fills, "a Huffman code that does not fill its code space")
    bits, at, out = bits_of(source.rest()), 0, []
    for _ in range(count):
        end = at + 1
        while bits[at:end] not in symbols:
            need(end < len(bits) and end - at < 32, "a Huffman code ends too early")
            end += 1
        out.append(symbols[bits[at:end]])
        at = end
    padded(bits, at)
    return np.array(out, np.int64)


# Rules --------------------------------------------------------------------------------------------------------------

GOLDEN = 0x9E3779B97F4A7C15  # g


def mix(x: np.ndarray) -> np.ndarray:
    """*mix* of a rule's words, uint64."""
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def random_words(seed: int, i: np.ndarray) -> np.ndarray:
    """*Words* i of a seed, uint64."""
    start = mix(np.array([(seed + GOLDEN) % 2**64], np.uint64))
    return mix(start + (i.astype(np.uint64) + np.uint64(1)) * np.uint64(GOLDEN))


def subset(seed: int, j: int, n: int, a: int) -> np.ndarray:
    """*Subset j*: `a` of the integers 0..n - 1, rising."""
    order = np.argsort(random_words(seed, np.arange(j * n, (j + 1) * n)), kind="stable")
    return np.sort(order[:a])


def float_of(bits: int) -> float:
    """The float32 number of these bits."""
    return struct.unpack("<f", struct.pack("<I", bits))[0]


def exact_cos(m: int, d: int) -> float:
    """*cos(m, d)*: the cosine of π/2·m/d."""
    m, sign = m % (4 * d), 1.0
    if m > 2 * d:
        m = 4 * d - m
    if m > d:
        m, sign = 2 * d - m, -1.0
    late = int(2 * m > d)
    x = float(d - m if late else m) * float.fromhex("0x1.921FB54442D18p0") / d
    total, y = 0.0, x * x
    for k in range(18, -1, -2):
        total = total * y + (1 if k % 4 == 0 else -1) / math.factorial(k + late)
    return sign * (total * x if late else total)


def exact_exp(x: np.ndarray) -> np.ndarray:
    """*exp(x)*, elementwise."""
    a, b = float.fromhex("0x1.62E42FEEp-1"), float.fromhex("0x1.A39EF35793C76p-33")
    n = np.floor(np.maximum(x, -700) * (1 / (a + b)) + 0.5)
    r, total = (np.maximum(x, -700) - n * a) - n * b, np.zeros_like(x)
    for k in range(18, -1, -1):
        total = total * r + 1 / math.factorial(k)
    return np.where(x < -700, 0.0, np.ldexp(total, n.astype(np.int64)))


def make(rule: tuple[int, list[int]], shape: list[int]) -> np.ndarray:
    """A tensor of a rule, [r, n] float32."""
    kind, numbers = rule
    r, n = shape[0], math.prod(shape[1:])
    need(0 <= kind <= 3, "a rule that the format does not have")
    need(len(shape) >= 2 and n <= 2**20 and r * n <= 2**27, "a tensor too large for a rule, or of one dimension")
    need(kind == 2 or 0 <= numbers[0] < 2**63, "a seed out of range")
    makers = (identity, gaussian, cosine, squared_exponential)
    with np.errstate(over="ignore"):
        out = makers[kind](r, n, *numbers).astype(np.float32)
    need(np.isfinite(out).all(), "a rule that leads beyond float32")
    return out


def subsets(r: int, n: int, seed: int, j: int) -> list[np.ndarray]:
    """All subsets of a rule."""
    need(0 < j <= r and r % j == 0 and r // j <= n and j * n <= 2**27, "subsets that do not fit the tensor")
    return [subset(seed, i, n, r // j) for i in range(j)]


def identity(r: int, n: int, seed: int, j: int) -> np.ndarray:
    """The rule *identity*, float64 [r, n]."""
    out = np.zeros((r, n))
    out[np.arange(r), np.concatenate(subsets(r, n, seed, j))] = 1
    return out


def gaussian(r: int, n: int, seed: int, scale: int) -> np.ndarray:
    """The rule *gaussian*, float64 [r, n]."""
    sixteens = random_words(seed, np.arange(3 * r * n)).view(np.uint16).reshape(r, n, 12)
    return (sixteens.astype(np.int64).sum(axis=2) - 393210) / 65536 * float_of(scale)


def places_of(n: int, channels: int, sides: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The places of the grid of these sides in storage order."""
    fits = len(sides) < 8 and channels > 0 and all(side > 0 for side in sides) and channels * math.prod(sides) == n
    need(fits, "sides that do not fit the tensor")
    return list(itertools.product(*map(range, sides)))


def cosine(r: int, n: int, channels: int, *sides: int) -> np.ndarray:
    """The rule *cosine*, float64 [r, n]."""
    places, size = places_of(n, channels, sides), math.prod(sides)
    need(sides and r <= n, "more rows than there are cosines")
    pitches = [size // side for side in sides]
    order = sorted(places, key=lambda place: sum((f * pitch) ** 2 for f, pitch in zip(place, pitches, strict=True)))
    out = np.zeros((r, channels, size))
    for i in range(r):
        for at, place in enumerate(places):
            product = 1.0
            for f, p, side in zip(order[i // channels], place, sides, strict=True):
                product *= exact_cos(f * (2 * p + 1), side) * math.sqrt((2 if f > 0 else 1) / side)
            out[i, i % channels, at] = product
    return out.reshape(r, n)


def squared_exponential(
    r: int, n: int, seed: int, j: int, width: int, ridge: int, channels: int, *sides: int
) -> np.ndarray:
    """The rule *squared-exponential*, float64 [r, n]."""
    width, ridge = float_of(width), float_of(ridge)
    places, size = np.array(places_of(n, channels, sides), np.int64), math.prod(sides)
    need(sides and 0 < width < math.inf and 0 <= ridge < math.inf, "width or ridge out of range")
    chosen = subsets(r, n, seed, j)
    need(r * min(r // j, size) * size <= 2**32, "a tensor that would take hours to make")
    out = np.zeros((r, channels, size))
    for of, s in enumerate(chosen):
        for channel in range(channels):
            k = np.flatnonzero(s // size == channel)
            at = s[k] % size
            covariance = np.empty((len(at), size))
            for row, place in zip(covariance, places[at], strict=True):
                row[:] = exact_exp(-((places - place) ** 2).sum(axis=1) / ((2 * width) * width))
            out[of * (r // j) + k, channel] = solve(covariance[:, at] + ridge * np.eye(len(at)), covariance)
    return out.reshape(r, n)


def solve(matrix: np.ndarray, x: np.ndarray) -> np.ndarray:
    """By Cholesky, in the order of the format."""
    low, x, size = matrix.copy(), x.copy(), len(matrix)
    for k in range(size):
        need(low[k, k] > 0, "a matrix that has no root")
        low[k:, k] /= math.sqrt(low[k, k])
        low[k + 1 :, k + 1 :] -= low[k + 1 :, k, None] * low[None, k + 1 :, k]
    for k in range(size):
        x[k] /= low[k, k]
        x[k + 1 :] -= low[k + 1 :, k, None] * x[k]
    for k in range(size - 1, -1, -1):
        x[k] /= low[k, k]
        x[:k] -= low[k, :k, None] * x[k]
    return x


# Kept tensors ---------------------------------------------------------------------------------------------------------


def planes(source: Bytes, dtype: str, count: int) -> np.ndarray:
    """`count` elements of a type from the planes of their bytes."""
    kind, found = stored(dtype), []
    for _ in range(kind.itemsize):
        length = source.number()
        plane = source.take(length & 0x7FFFFFFF)
        if length >> 31:
            need(zstandard.frame_content_size(plane) == count, "a plane of the wrong size")
            plane = unzstd(plane)
        need(len(plane) == count, "a plane of the wrong size")
        found.append(np.frombuffer(plane, np.uint8))
    raw = np.ascontiguousarray(np.stack(found, axis=-1))
    need(dtype != "bool" or (raw <= 1).all(), "a truth value that is neither 0 nor 1")
    return raw.view(kind).reshape(-1)


def decode_kept(index: Index, sections: deque[bytes]) -> Iterator[tuple[int, np.ndarray]]:
    """Positions and arrays of the kept tensors."""

    def is_small(tensor: int, kind: int) -> bool:
        return index.elements(tensor) * stored(TYPES[kind]).itemsize <= 2**20

    kept = [(t, kind) for t, _, kind in index.kept]
    small = [entry for entry in kept if is_small(*entry)]
    shared = [[entry for entry in small if entry[1] == kind] for kind in sorted({kind for _, kind in small})]
    for entries in [*shared, *([entry] for entry in kept if not is_small(*entry))]:
        dtype, counts = TYPES[entries[0][1]], [index.elements(t) for t, _ in entries]
        source = Bytes(sections.popleft())
        parts = np.split(planes(source, dtype, sum(counts)), np.cumsum(counts)[:-1])
        source.end()
        for (tensor, _), values in zip(entries, parts, strict=True):
            if dtype != index.dtype(tensor):
                values = widened(values) if dtype == "bfloat16" else values.astype(np.float32)
                values = convert(values, index.dtype(tensor), limited=False)
            yield tensor, values.reshape(index.shapes[tensor])


# All together ---------------------------------------------------------------------------------------------------------


def decode(data: bytes) -> dict[str, Tensor]:
    """All tensors of a file's bytes, in the order of the checkpoint; raises Refused if the file is damaged."""
    try:
        version, entry, body = container(data)
        index = read_index(entry, version)
        total = sum(index.elements(t) for t in range(len(index.names)) if t not in index.ties)
        need(total <= 16384 * (len(entry) + len(body) + 2048), "more elements than a file of this size may have")
        with np.errstate(over="ignore", invalid="ignore"):  # weights beyond their type's range are allowed
            arrays = decode_sections(index, body)
    except Refused:
        raise
    except FAULTS as error:
        raise Refused(f"not what the format allows ({' '.join(str(error).split())})") from error
    return {
        name: Tensor(index.dtype(t), tuple(index.shapes[t]), arrays[index.ties.get(t, t)])
        for t, name in enumerate(index.names)
    }


def decode_sections(index: Index, body: bytes) -> dict[int, np.ndarray]:
    """The arrays of all tensors that are not tied."""
    source, parts, arrays = Bytes(body), [], {}
    for number, (length, check) in enumerate(zip(index.lengths, index.checks, strict=True)):
        parts.append(source.take(length))
        what = f"section {number} does not match its checksum; the file is damaged, fetch it again"
        need(zlib.crc32(parts[-1]) == check, what)
    source.end()
    sections = deque(parts)
    for group in index.groups:
        arrays |= decode_group(index, group, sections)
    for scalars in index.scalars:
        arrays |= decode_scalars(index, scalars, sections)
    arrays |= decode_kept(index, sections)
    for tensor, rule in index.made:
        values = make(rule, index.shapes[tensor]).reshape(index.shapes[tensor])
        arrays[tensor] = convert(values, index.dtype(tensor))
    need(len(sections) == 1 and not any(sections[0]), "not one section of zeros behind the others")
    return arrays


def main() -> int:
    """List the tensors of a file, or write them; 1 if it is refused."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("file", type=Path, help="a .tersor file")
    arguments.add_argument("out", type=Path, nargs="?", help="an .npz file to write")
    options = arguments.parse_args()
    try:
        tensors = decode(options.file.read_bytes())
        if options.out:
            write(options.out, tensors)
    except (OSError, Refused) as error:
        print(f"{options.file}: {error}", file=sys.stderr)
        return 1
    for name, tensor in tensors.items():
        print(f"{name}  {tensor.dtype}  {list(tensor.shape)}{form(tensor) if options.out else ''}")
    return 0


def form(tensor: Tensor) -> str:
    """What a tensor is in an .npz where it is not of its own type."""
    if tensor.dtype == "bfloat16":
        return "  as float32"
    return "" if tensor.dtype == tensor.array.dtype.name else f"  as bits, {tensor.array.dtype.name}"


def write(path: Path, tensors: dict[str, Tensor]) -> None:
    """An .npz of all tensors; np.savez would not take every name."""
    with zipfile.ZipFile(path, "w") as file:
        for name, tensor in tensors.items():
            values = widened(tensor.array) if tensor.dtype == "bfloat16" else tensor.array
            with file.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, values)


if __name__ == "__main__":
    sys.exit(main())
