from __future__ import annotations

from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tersor import index as indices
from tersor.codec.container import checksum
from tersor.errors import ArchiveError
from tersor.index import GroupRecord, Index
from tersor.representations.made import Made
from tersor.representations.records import LatticeRecord
from tersor.representations.scalars import ScalarRecord

LATTICE = LatticeRecord(0.01, 3, False, (3, -2, 64))
GROUP = GroupRecord((0, 3), 9, 0, 0, (), 0, LATTICE, None)
CODES = GroupRecord((0, 3), 9, 2, 16, (0.1, 0.0), 2, None, None)
SPARSE = msgspec.structs.replace(GROUP, dim=1, survivors=(0, 400))
INTEGERS = ScalarRecord((0, 3), 4, 4, True, 16, (0, 4))
INDEX = Index(
    tool="0", recipe={"ratio": 2.0}, names=("a", "b", "", "d", "e"), dtypes=(0, 4, 0, 1, 0),
    shapes=((8, 4, 3, 3), (), (8, 4, 3, 3), (20, 20), (0, 5)), ties={2: 0}, kept=((1, 0, 4), (4, 7, 0)),
    groups=(GROUP,), errors=(40, 255), lengths=(3, 4), checks=(1, 2**32 - 1), scalars=(), made=(),
)  # fmt: skip

SCALARS = msgspec.structs.replace(INDEX, groups=(), scalars=(INTEGERS,))


def with_(**changes: Any) -> Index:
    return msgspec.structs.replace(INDEX, **changes)


def group(**changes: Any) -> Index:
    return with_(groups=(msgspec.structs.replace(GROUP, **changes),))


def lattice(**changes: Any) -> Index:
    return group(lattice=msgspec.structs.replace(LATTICE, **changes))


def packed(body: bytes) -> bytes:
    return checksum(body).to_bytes(4, "little") + body


@pytest.mark.parametrize(
    "index",
    [
        INDEX, with_(groups=(CODES,)), with_(groups=(msgspec.structs.replace(CODES, lattice=LATTICE),)),
        with_(groups=(SPARSE,)), SCALARS, with_(groups=(SPARSE,), made=((4, Made(0, (1, 1))),), kept=((1, 0, 4),)),
        with_(kept=((1, 0, 4), (4, 9, 1))),
    ],
)  # fmt: skip
def test_an_index_comes_back(index: Index) -> None:
    version = indices.version_of(index)
    assert indices.unpack(indices.pack(index), sum(index.lengths), version) == index
    with pytest.raises(ArchiveError, match="index"):  # each version has records of its own length
        indices.unpack(indices.pack(index), sum(index.lengths), 1 + version % 3)


def scalar(**changes: Any) -> Index:
    return with_(groups=(), scalars=(msgspec.structs.replace(INTEGERS, **changes),))


@pytest.mark.parametrize(
    "index",
    [
        scalar(bits=1), scalar(bits=9, size=512), scalar(bits=-1), scalar(size=15), scalar(size=0), scalar(block=-2),
        scalar(block=7), scalar(methods=(0,)), scalar(methods=(0, 5)), scalar(methods=(0, -1)), scalar(tensors=(0,)),
        scalar(tensors=()), scalar(tensors=(0, 1)), scalar(bits=0, size=0), scalar(bits=0, size=65537),
        scalar(bits=0, block=4, size=9), scalar(bits=0, zeros=True, size=9), with_(scalars=(INTEGERS,)),
        with_(made=((0, Made(0, ())),)), with_(kept=((1, 0, 4),), made=((4, Made(4, ())),)),
        with_(kept=((4, 7, 0),), made=((1, Made(0, ())),)), with_(kept=((1, 0, 4),), made=((4, Made(-1, ())),)),
        with_(kept=((1, 0, 4), (4, 7, 1)), scalars=()),
    ],
)  # fmt: skip
def test_what_version_3_says_wrongly_is_refused(index: Index) -> None:
    with pytest.raises(ArchiveError, match="index"):
        indices.unpack(indices.pack(index), 7, indices.version_of(index))


def test_a_version_is_as_old_as_can_be() -> None:
    assert indices.version_of(SCALARS) == indices.version_of(with_(kept=((1, 0, 4), (4, 9, 1)))) == 3
    assert [indices.version_of(with_(groups=(g,))) for g in (GROUP, CODES, SPARSE)] == [1, 1, 2]
    assert len(msgspec.msgpack.decode(msgspec.msgpack.encode(GROUP.dense()))) == 7


@pytest.mark.parametrize("survivors", [(), (0,), (0, 1, 2), (-1, 3), (1, 401), (1153, 3), (1 << 63, 1), (1.5, 2)])
def test_survivors_out_of_range_are_refused(survivors: Any) -> None:
    with pytest.raises(ArchiveError, match="index"):
        indices.unpack(indices.pack(with_(groups=(msgspec.structs.replace(SPARSE, survivors=survivors),))), 7, 2)


def test_survivors_have_no_rows_and_so_no_scales_of_rows() -> None:
    with pytest.raises(ArchiveError, match="index"):
        indices.unpack(indices.pack(with_(groups=(msgspec.structs.replace(SPARSE, scales=2),))), 7, 2)


@pytest.mark.parametrize(
    "index",
    [
        with_(names=("a", "a", "", "d", "e")), with_(names=("a", "b", "", "d")), with_(dtypes=(0, 4, 0, 1)),
        with_(dtypes=(0, 4, 0, 1, 99)), with_(dtypes=(0, 4, 0, 1, -1)), with_(dtypes=(4, 4, 4, 1, 0)),
        with_(shapes=((8, 4, 3, 3), (), (8, 4, 3, 3), (20, 20))),
        with_(shapes=((8, 4, 3, 3), (), (8, 4, 3, 3), (20, 20), (-1, 5))),
        with_(shapes=((8, 4, 3, 3), (), (8, 4, 3, 3), (1 << 50, 20), (0, 5))),
        with_(shapes=((8, 4, 3, 3), (1 << 20, 1 << 20), (8, 4, 3, 3), (20, 20), (0, 5))),
        with_(shapes=((8, 4, 3, 3), (1,) * 65, (8, 4, 3, 3), (20, 20), (0, 5))),
        with_(shapes=((), (), (), (20, 20), (0, 5))), with_(shapes=((8, 0, 3, 3), (), (8, 0, 3, 3), (20, 20), (0, 5))),
        with_(ties={}), with_(ties={2: 2}), with_(ties={2: 4}), with_(ties={2: -1}), with_(ties={2: 3}),
        with_(ties={2: 0, 3: 2}), with_(ties={0: 2, 2: 0}), with_(ties={2: 0, 9: 0}), with_(ties={-3: 0}),
        with_(kept=((1, 0, 4),)), with_(kept=((1, 0, 4), (4, 7, 0), (4, 7, 0))), with_(kept=((1, 0, 4), (0, 7, 0))),
        with_(kept=((1, 0, 4), (4, 99, 0))), with_(kept=((1, 0, 4), (4, -1, 0))), with_(kept=((1, 0, 99), (4, 7, 0))),
        with_(kept=((1, 0, 0), (4, 7, 0))), with_(kept=((1, 0, 2), (4, 7, 0))), with_(kept=((9, 0, 4), (4, 7, 0))),
        with_(groups=()), with_(groups=(GROUP, GROUP)), with_(errors=(40,)), with_(errors=(40, 2, 3)),
        with_(lengths=(7,)), with_(lengths=(8, -1)), with_(lengths=(3, 5)), with_(checks=(1, 2, 3)),
        group(tensors=(0,)), group(tensors=(0, 3, 99)), group(tensors=()), group(tensors=(0, 0, 3)), group(dim=0),
        group(dim=257), group(scales=3), group(scales=-1), group(num_codebooks=1), group(codebook_size=4),
        group(num_codebooks=17, codebook_size=2, steps=(1.0,) * 17), group(num_codebooks=-1, codebook_size=2),
        group(num_codebooks=8, codebook_size=65536, steps=(1.0,) * 8),
        group(dim=256, num_codebooks=2, codebook_size=16384, steps=(1.0, 1.0)),
        group(num_codebooks=2, codebook_size=65537, steps=(1.0, 1.0)),
        group(num_codebooks=2, codebook_size=4, steps=(1.0,)),
        group(num_codebooks=1, codebook_size=4, steps=(float("nan"),)),
        group(num_codebooks=1, codebook_size=4, steps=(-1.0,)),
        group(num_codebooks=1, codebook_size=4, steps=(float("inf"),)),
        group(num_codebooks=1, codebook_size=4, steps=(1e37,)),
        group(lattice=None),
        lattice(step=0.0), lattice(step=-1.0), lattice(step=float("nan")), lattice(step=float("inf")),
        lattice(step=1e39),
        lattice(memory=1), lattice(memory=7), lattice(shifts=(65, 0, 0)), lattice(shifts=(0, 0, -65)),
    ],
)  # fmt: skip
def test_a_contradiction_is_refused(index: Index) -> None:
    with pytest.raises(ArchiveError, match="index"):
        indices.unpack(indices.pack(index), 7)


FIRST = zstandard.decompress(indices.pack(INDEX)[4:])
BODY = zstandard.compress(FIRST)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"abc", bytes(4), packed(b""), packed(b"\0" * 20), packed(BODY[:-1]), packed(zstandard.compress(b"")),
        packed(zstandard.compress(b"\xc1")), packed(zstandard.compress(msgspec.msgpack.encode({"names": []}))),
        packed(zstandard.compress(FIRST[:-1])), packed(zstandard.compress(b"\x91" * 100_000)),
        packed(zstandard.compress(FIRST + b"\0")),
        packed(zstandard.compress(bytes(1 << 24))),
        packed(zstandard.ZstdCompressor(write_content_size=False).compress(b"1")),
        packed(zstandard.compress(b"\x9b" + msgspec.msgpack.encode("x") * 11)),
        packed(zstandard.compress(b"\x9b\xa1\xff" + FIRST[3:])),
    ],
)  # fmt: skip
def test_bytes_that_are_no_index_are_refused(data: bytes) -> None:
    with pytest.raises(ArchiveError, match="index"):
        indices.unpack(data, 7)


def test_a_recipe_nested_without_end_is_refused() -> None:
    whole = zstandard.decompress(indices.pack(with_(recipe={"deep": 1}))[4:])
    deep = whole.replace(b"\xa4deep\x01", b"\xa4deep" + b"\x91" * 50_000 + b"\x01")
    assert len(deep) > 50_000
    with pytest.raises(ArchiveError, match="index"):
        indices.unpack(packed(zstandard.compress(deep, 1)[:1] + zstandard.compress(deep, 1)[1:]), 7)


@settings(max_examples=300)
@given(st.integers(0, 10**6), st.integers(1, 255), st.booleans())
def test_flips_behind_the_checksum_give_an_index_or_an_error(at: int, flip: int, inside: bool) -> None:
    body = bytearray(FIRST if inside else BODY)
    body[at % len(body)] ^= flip
    try:
        indices.unpack(packed(zstandard.compress(bytes(body)) if inside else bytes(body)), 7)
    except ArchiveError as error:
        assert "\n" not in str(error)


def test_lists_only_grow() -> None:
    """Files hold positions in these lists."""
    assert indices.DTYPES[:12] == (
        "float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool", "uint16",
        "uint32",
    )  # fmt: skip
    assert indices.REASONS[:6] == ("integers", "booleans", "complex", "8-bit floats", "one-dimensional", "small")
