"""The archive's index: what the sections mean. Plain data, decoded strictly; no tensor values, no file access.

Field order is the wire format (msgpack arrays, compressed); see `docs/format.md`, "Index".
"""

from __future__ import annotations

import math

import msgspec
import zstandard

from tersor.codec.container import checksum
from tersor.errors import ArchiveError, TersorError
from tersor.lattice.trellis import TRELLISES
from tersor.representations import scalars
from tersor.representations.made import RULES, Made
from tersor.representations.records import DenseRecord, GroupRecord
from tersor.representations.scalars import ScalarRecord

DTYPES = (
    "float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool", "uint16", "uint32",
    "uint64", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz",
    "float8_e8m0fnu", "complex32", "float4_e2m1fn_x2",
)  # fmt: skip
"""Element types; a file holds positions in this list, so it only ever grows."""

CODED = ("float32", "float16", "bfloat16", "float64")
"""Element types of tensors that may be coded."""

REASONS = (
    "integers", "booleans", "complex", "8-bit floats", "one-dimensional", "small", "excluded", "empty", "exact",
    "precision",
)  # fmt: skip
"""Why a tensor was kept; a file holds positions in this list."""

MAX_INDEX = 1 << 28
ELEMENTS_PER_BYTE = 1 << 14
"""A file declares at most this many elements per byte of its own, else it is padded: bounds a reader's memory."""


GRACE = 2048  # bytes a file may lack for its elements
MAX_CODEWORDS, MAX_ENTRIES = 1 << 18, 1 << 22
"""Codewords and their entries in all codebooks of a group together, at most."""


class FirstIndex(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Everything but the sections, as format version 1 has it.

    Per tensor: name, position in `DTYPES`, shape. `ties` maps a tensor to the earlier one it is tied to. `kept` gives
    per kept tensor its position, its position in `REASONS` and the type it is stored in. `errors` holds the error of
    each coded tensor, group by group, in half decibels of its energy. `lengths` and `checks` describe the sections.
    """

    tool: str
    recipe: dict[str, str | int | float | bool | list[str] | None]
    names: tuple[str, ...]
    dtypes: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    ties: dict[int, int]
    kept: tuple[tuple[int, int, int], ...]
    groups: tuple[DenseRecord, ...]
    errors: tuple[int, ...]
    lengths: tuple[int, ...]
    checks: tuple[int, ...]


class SecondIndex(FirstIndex, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The same as format version 2 has it: groups may be sparse."""

    groups: tuple[GroupRecord, ...]


class Index(SecondIndex, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Everything but the sections. `scalars`: groups of integers or shared values; `made`: tensors that are rules."""

    scalars: tuple[ScalarRecord, ...]
    made: tuple[tuple[int, Made], ...]

    @property
    def coded(self) -> list[tuple[int, ...]]:
        """Tensors of each group, then of each scalar group."""
        return [group.tensors for group in self.groups] + [group.tensors for group in self.scalars]


_NEWER = REASONS.index("precision")  # from here on, reasons that version 2 does not know


def version_of(index: Index) -> int:
    """The oldest format version that can say all this."""
    if index.scalars or index.made or any(reason >= _NEWER for _, reason, _ in index.kept):
        return 3
    return 2 if any(group.survivors is not None for group in index.groups) else 1


def coverage_line(coded: int, kept: list[tuple[str, int]], tied: int) -> str:
    """How many bytes (as given) are coded, and why the others are kept: (reason, bytes) per kept tensor."""
    reasons: dict[str, tuple[int, int]] = {}
    for reason, size in kept:
        count, total = reasons.get(reason, (0, 0))
        reasons[reason] = (count + 1, total + size)
    given = coded + sum(size for _, size in kept)
    listed = sorted(reasons.items(), key=lambda item: -item[1][1])
    why = "; ".join(f"{count} {reason} {total:,} B" for reason, (count, total) in listed)
    line = f"coded {coded:,} of {given:,} B ({100 * coded / max(given, 1):.1f} %)"
    line += f"; kept: {why}" if why else "; nothing kept"
    return line + (f"; tied: {tied}" if tied else "")


def encoded(index: Index) -> bytes:
    """The index as msgpack, in the format of `version_of`."""
    version = version_of(index)
    if version == 3:
        return msgspec.msgpack.encode(index)
    fields = msgspec.structs.asdict(index)
    del fields["scalars"], fields["made"]
    if version == 2:
        return msgspec.msgpack.encode(SecondIndex(**fields))
    return msgspec.msgpack.encode(FirstIndex(**{**fields, "groups": tuple(group.dense() for group in index.groups)}))


def pack(index: Index) -> bytes:
    """The index as bytes, in the format of `version_of`: its checksum, then compressed msgpack.

    Raises:
        TersorError: a name that is no Unicode text.
    """
    try:
        body = encoded(index)
    except UnicodeEncodeError as error:
        raise TersorError(f"the name {error.object!r} is no Unicode text; rename the tensor") from error
    packed = zstandard.ZstdCompressor(level=19, write_content_size=True).compress(body)
    return checksum(packed).to_bytes(4, "little") + packed


def _current(index: FirstIndex) -> Index:
    """An index of an older version in the words of the newest."""
    groups = tuple(
        g if isinstance(g, GroupRecord) else GroupRecord(**msgspec.structs.asdict(g), survivors=None)
        for g in index.groups
    )
    fields = {name: getattr(index, name) for name in FirstIndex.__struct_fields__}
    return Index(**{**fields, "groups": groups, "scalars": (), "made": ()})


_KINDS = {1: FirstIndex, 2: SecondIndex, 3: Index}


def unpack(data: bytes, data_length: int, version: int = 1) -> Index:
    """Decode and check an index of a file of that format version whose sections take `data_length` bytes.

    Raises:
        ArchiveError: damaged, or anything in it contradicts something else.
    """
    if len(data) < 4 or int.from_bytes(data[:4], "little") != checksum(data[4:]):
        raise ArchiveError("the index is damaged (its checksum does not match)")
    try:
        size = zstandard.frame_content_size(data[4:])
        if not 0 <= size <= min(MAX_INDEX, 1024 * len(data)):
            raise ArchiveError("the index is damaged (implausible size)")
        body = zstandard.ZstdDecompressor().decompress(data[4:], max_output_size=size, allow_extra_data=False)
        read = msgspec.msgpack.decode(body, type=_KINDS[version])
        index = read if isinstance(read, Index) else _current(read)
    except (zstandard.ZstdError, msgspec.MsgspecError, UnicodeDecodeError, OverflowError, RecursionError) as error:
        raise ArchiveError("the index is damaged") from error
    _check(index, len(data) + data_length)
    if sum(index.lengths) != data_length:
        raise ArchiveError("the index is damaged (sections do not fill the file)")
    return index


def _check(index: Index, size: int) -> None:
    def need(condition: bool, what: str) -> None:
        if not condition:
            raise ArchiveError(f"the index is damaged ({what})")

    count = len(index.names)
    need(len(set(index.names)) == count == len(index.dtypes) == len(index.shapes), "names, types and shapes differ")
    need(all(0 <= d < len(DTYPES) for d in index.dtypes), "an unknown type")
    need(all(0 <= n < 1 << 48 for shape in index.shapes for n in shape), "a dimension out of range")
    need(all(len(shape) <= 64 for shape in index.shapes), "too many dimensions")
    need(all(math.prod(max(n, 1) for n in shape) < 1 << 58 for shape in index.shapes), "a dimension out of range")
    owned = [i for i in range(count) if i not in index.ties]
    need(sum(math.prod(index.shapes[i]) for i in owned) <= ELEMENTS_PER_BYTE * (size + GRACE), "implausible shapes")
    for alias, owner in index.ties.items():
        need(0 <= owner < alias < count and owner not in index.ties, "a tie out of range")
        need(
            index.shapes[alias] == index.shapes[owner] and index.dtypes[alias] == index.dtypes[owner], "an unequal tie"
        )
    placed = [i for members in index.coded for i in members]
    placed += [i for i, _, _ in index.kept] + [i for i, _ in index.made]
    need(sorted(placed) == owned, "tensors not stored exactly once")
    for i, reason, stored in index.kept:
        need(0 <= reason < len(REASONS) and 0 <= stored < len(DTYPES), "a kept tensor out of range")
        same = stored == index.dtypes[i]
        half = DTYPES[stored] == "bfloat16" or (DTYPES[stored] == "float16" and reason >= _NEWER)
        need(same or (half and DTYPES[index.dtypes[i]] in CODED), "a kept tensor out of range")
    for group in index.groups:
        need(1 <= group.dim <= 256 and group.scales in (0, 1, 2) and len(group.tensors) > 0, "a group out of range")
        need(all(index.shapes[i] and math.prod(index.shapes[i]) > 0 for i in group.tensors), "an empty coded tensor")
        need(all(DTYPES[index.dtypes[i]] in CODED for i in group.tensors), "a coded tensor of another type")
        need(0 <= group.num_codebooks <= 16 and 0 <= group.codebook_size <= 65536, "codebooks out of range")
        need((group.num_codebooks == 0) == (group.codebook_size == 0), "codebooks out of range")
        codewords = group.num_codebooks * group.codebook_size
        need(codewords <= MAX_CODEWORDS and codewords * group.dim <= MAX_ENTRIES, "codebooks out of range")
        need(len(group.steps) == group.num_codebooks, "codebooks out of range")
        need(group.num_codebooks > 0 or group.lattice is not None, "a group of nothing")
        need(all(0 <= s < 1e36 for s in group.steps), "a codebook unit out of range")
        if group.lattice is not None:
            step = group.lattice.step
            need(
                group.lattice.memory in TRELLISES and math.isfinite(step) and 0 < step < 1e38, "a lattice out of range"
            )
            need(all(-64 <= s <= 64 for s in group.lattice.shifts), "a lattice out of range")
        if group.survivors is not None:
            sizes = [math.prod(index.shapes[i]) for i in group.tensors]
            need(len(group.survivors) == len(sizes) and group.scales < 2, "a sparse group out of range")
            pairs = zip(group.survivors, sizes, strict=True)
            need(all(0 <= count <= size for count, size in pairs), "more survivors than elements")
    for record in index.scalars:
        shapes = [index.shapes[i] for i in record.tensors]
        need(all(shape and math.prod(shape) > 0 for shape in shapes), "an empty coded tensor")
        need(all(DTYPES[index.dtypes[i]] in CODED for i in record.tensors), "a coded tensor of another type")
        wrong = scalars.check(record, shapes)
        need(not wrong, wrong)
    for i, made in index.made:
        need(0 <= made.rule < len(RULES) and DTYPES[index.dtypes[i]] in CODED, "a rule out of range")
    need(len(index.errors) == sum(map(len, index.coded)), "errors missing")
    need(len(index.lengths) == len(index.checks) and min(index.lengths, default=0) >= 0, "sections out of range")
