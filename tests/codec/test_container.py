from __future__ import annotations

import io
import json
import zlib
from pathlib import Path

import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

import tersor
from networks import network
from tersor.codec import container
from tersor.errors import ArchiveError

lengths = st.integers(0, 3000)


def read(data: bytes) -> tuple[int, int, int, int]:
    return container.read_header(io.BytesIO(data), len(data))


@given(lengths, lengths, st.integers(1, container.VERSION))
def test_lengths_and_version_come_back(index: int, data: int, version: int) -> None:
    head = container.header(index, data, version)
    assert len(head) % 8 == 0
    assert read(head + bytes(index + data)) == (len(head), index, data, version)


@given(lengths, lengths)
def test_the_header_is_a_safetensors_header(index: int, data: int) -> None:
    arrays = safetensors.numpy.load(container.header(index, data) + b"\1" * index + b"\2" * data)
    assert {name: (a.size, set(a.tolist())) for name, a in arrays.items()} == {
        "index": (index, {1} if index else set()),
        "data": (data, {2} if data else set()),
    }


def test_an_archive_is_a_safetensors_file(tmp_path: Path) -> None:
    archive = tersor.compress(network(), tersor.Recipe(ratio=8))
    archive.save(tmp_path / "a.tersor")
    with safetensors.safe_open(tmp_path / "a.tersor", framework="np") as file:
        assert file.metadata() == {"tersor": "1"}
        assert sorted(file.keys()) == ["data", "index"]
        parts = [file.get_tensor(name).tobytes() for name in ("index", "data")]
    start, index_length, data_length, _ = read(archive.to_bytes())
    assert b"".join(parts) == archive.to_bytes()[start:]
    assert [len(p) for p in parts] == [index_length, data_length]


def test_every_wrong_byte_of_a_header_is_refused() -> None:
    head = container.header(20, 30)
    for i in range(len(head)):
        for flip in (1, 0x20, 0x80, 0xFF):
            damaged = bytearray(head + bytes(50))
            damaged[i] ^= flip
            with pytest.raises(ArchiveError):
                read(bytes(damaged))


def test_a_version_told_wrongly_is_another_file_and_the_index_tells() -> None:
    data = tersor.compress(network(), tersor.Recipe(ratio=8)).to_bytes()
    start, index_length, data_length, version = read(data)
    other = container.header(index_length, data_length, 3 - version) + data[start:]
    with pytest.raises(ArchiveError, match="index"):
        tersor.Archive(other)


@pytest.mark.parametrize("change", [-50, -1, 1, 8])
def test_a_file_of_another_size_is_refused(change: int) -> None:
    data = container.header(20, 30) + bytes(50)
    with pytest.raises(ArchiveError):
        read(data[:change] if change < 0 else data + bytes(change))


@pytest.mark.parametrize("version", [container.VERSION + 1, 10, 999999999])
def test_a_newer_version_says_what_to_do(version: int) -> None:
    with pytest.raises(ArchiveError, match="upgrade tersor"):
        read(container.header(20, 30, version) + bytes(50))


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "1", "{", '"x"', "[" * 3000, '{"__metadata__":{}}', '{"__metadata__":{"tersor":"1"}}',
        '{"__metadata__":{"tersor":1},"index":{"shape":[0]},"data":{"shape":[0]}}',
        '{"__metadata__":{"tersor":"1"},"index":{"shape":[]},"data":{"shape":[0]}}',
        '{"__metadata__":{"tersor":"1"},"index":{"shape":[-1]},"data":{"shape":[1]}}',
        '{"__metadata__":{"tersor":"1"},"index":{"shape":[1e9]},"data":{"shape":[0]}}',
        '{"__metadata__":{"tersor":"1"},"index":{"shape":[true]},"data":{"shape":[false]}}',
        '{"__metadata__":{"tersor":"²"},"index":{"shape":[0]},"data":{"shape":[0]}}',
        '{"__metadata__":{"tersor":["2"]},"index":{"shape":[0]},"data":{"shape":[0]}}',
        '{"__metadata__":{"tersor":"0"},"index":{"shape":[0]},"data":{"shape":[0]}}',
        '{"__metadata__":{"tersor":"02"},"index":{"shape":[0]},"data":{"shape":[0]}}',
    ],
)  # fmt: skip
def test_any_other_header_is_refused(text: str) -> None:
    body = text.encode() + b" " * (-len(text.encode()) % 8)
    for length in (len(body), len(body) + 1, 1 << 40, (1 << 64) - 1):
        with pytest.raises(ArchiveError):
            read(length.to_bytes(8, "little") + body)


def test_a_reordered_header_is_refused() -> None:
    head = container.header(0, 0)
    shuffled = json.dumps(dict(reversed(json.loads(head[8:]).items())), separators=(",", ":")).encode()
    padded = shuffled + b" " * (-len(shuffled) % 8)
    with pytest.raises(ArchiveError, match="header"):
        read(len(padded).to_bytes(8, "little") + padded)


@given(st.binary(max_size=200))
def test_the_checksum_is_crc_32(data: bytes) -> None:
    assert container.checksum(data) == zlib.crc32(data)
