from __future__ import annotations

import resource
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import hostile
import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from networks import assert_same
from tersor import index as indices
from tersor.archive import Archive
from tersor.codec import container
from tersor.errors import ArchiveError

MEGABYTE = 1 << 20
SOURCES = [hostile.small, hostile.coded, hostile.pruned]


def everything(source: bytes | Path) -> dict[str, torch.Tensor]:
    """Open, verify and decode: one of them refuses what is wrong. Values out of float's range are not."""
    with np.errstate(over="ignore", invalid="ignore"):
        archive = Archive(source)
        archive.verify()
        return archive.state_dict()


def refused(source: bytes | Path) -> str:
    with pytest.raises(ArchiveError) as caught:
        everything(source)
    message = str(caught.value)
    assert message and "\n" not in message and len(message) < 300
    return message


@pytest.mark.parametrize("source", SOURCES, ids=["lattice", "codes", "masks"])
def test_the_archives_that_attacks_are_made_of_are_sound(source: Callable[[], Archive]) -> None:
    assert hostile.rebuilt(source()) and 500 < source().size < 2000
    assert_same(everything(hostile.rebuilt(source())), source().state_dict())


@pytest.mark.parametrize("attack", hostile.ATTACKS, ids=lambda attack: attack.__name__)
def test_every_attack_is_refused_in_one_line_and_little_memory(attack: Callable[[], bytes], tmp_path: Path) -> None:
    path = tmp_path / "hostile.tersor"
    path.write_bytes(attack())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        message = refused(path)
        assert tracemalloc.get_traced_memory()[1] < 100 * MEGABYTE
    finally:
        tracemalloc.stop()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024
    assert str(path) in message


def test_attacks_have_names_of_their_own() -> None:
    assert len({attack.__name__ for attack in hostile.ATTACKS}) == len(hostile.ATTACKS) > 110


def test_a_newer_version_says_upgrade() -> None:
    assert "upgrade" in refused(hostile.a_newer_version())


@pytest.mark.parametrize("source", SOURCES, ids=["lattice", "codes", "masks"])
def test_a_file_cut_short_anywhere_is_refused(source: Callable[[], Archive]) -> None:
    data = source().to_bytes()
    for length in range(len(data)):
        refused(data[:length])
    refused(data + b"\0")


@pytest.mark.parametrize("source", SOURCES, ids=["lattice", "codes", "masks"])
def test_every_flipped_byte_is_refused_or_harmless(source: Callable[[], Archive]) -> None:
    data, sound = source().to_bytes(), source().state_dict()
    for i in range(len(data)):
        for flip in (1 << i % 8, 0xFF):
            damaged = bytearray(data)
            damaged[i] ^= flip
            try:
                found = everything(bytes(damaged))
            except ArchiveError as error:
                assert "\n" not in str(error)
            else:
                assert_same(found, sound)


@settings(max_examples=150)
@given(
    st.sampled_from(SOURCES),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(1, 255),
    st.sampled_from(["flip", "cut", "add"]),
)
def test_a_section_damaged_behind_its_checksum_never_crashes(
    made: Callable[[], Archive], i: int, at: int, flip: int, how: str
) -> None:
    source = made()
    i %= len(source.index.lengths)
    data = bytearray(source.section(i))
    at %= len(data) + 1
    if how == "flip" and at < len(data):
        data[at] ^= flip
    data = data[:at] if how == "cut" else data[:at] + bytes([flip]) + data[at:] if how == "add" else data
    try:
        found = everything(hostile.rebuilt(source, {i: bytes(data)}))
    except ArchiveError as error:
        assert "\n" not in str(error)
    else:
        assert [(n, t.shape, t.dtype) for n, t in found.items()] == [
            (n, t.shape, t.dtype) for n, t in source.state_dict().items()
        ]


@settings(max_examples=300)
@given(st.sampled_from(SOURCES), st.integers(0, 10**6), st.integers(0, 255))
def test_an_index_damaged_behind_its_checksum_never_crashes(made: Callable[[], Archive], at: int, value: int) -> None:
    source = made()
    body = bytearray(indices.encoded(source.index))
    body[at % len(body)] = value
    data = b"".join(source.section(i) for i in range(len(source.index.lengths)))
    try:
        archive = Archive(hostile.packed(zstandard.compress(bytes(body)), data, source.version))
        if sum(int(np.prod(shape, dtype=object)) for shape in archive.index.shapes) < 1 << 20:
            everything(archive.to_bytes())
    except ArchiveError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("shape", [(21, 16), (40, 16), (20, 17), (200, 160)])
def test_more_symbols_than_a_stream_holds_are_refused(shape: tuple[int, int]) -> None:
    """Without its end mark, a coder that ran dry would go on with zeros."""
    refused(hostile.with_shape(1, shape))


@settings(max_examples=100)
@given(st.binary(max_size=300), st.booleans())
def test_noise_is_refused(noise: bytes, dressed: bool) -> None:
    refused(container.header(len(noise), 0) + noise if dressed else noise)
