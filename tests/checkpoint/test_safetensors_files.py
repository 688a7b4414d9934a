from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from checkpoints import REAL, Tied, assert_holds, ties_of

from tersor.checkpoint import open_checkpoint, save_safetensors
from tersor.errors import TersorError

STATE = {"a": torch.arange(4.0), "b": torch.ones(2, 3, dtype=torch.bfloat16), "c": torch.tensor(True)}


def write_raw(path: Path, header: dict[str, Any] | bytes, body: bytes) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def write_shards(folder: Path, weight_map: object | None = None) -> Path:
    """STATE in two files under an index; `weight_map` replaces the right one."""
    safetensors.torch.save_file({"a": STATE["a"]}, folder / "1.safetensors")
    safetensors.torch.save_file({"b": STATE["b"], "c": STATE["c"]}, folder / "2.safetensors")
    right = {"a": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors"}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": right if weight_map is None else weight_map}))
    return index


def test_a_file_of_the_reference_library_is_read(tmp_path: Path) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "x.safetensors")
    assert_holds(open_checkpoint(tmp_path / "x.safetensors"), STATE)
    assert_holds(open_checkpoint(tmp_path), STATE)


@pytest.mark.parametrize("by_folder", [True, False])
def test_shards_are_read_in_the_order_of_their_index(tmp_path: Path, by_folder: bool) -> None:
    index = write_shards(tmp_path, {"c": "2.safetensors", "a": "1.safetensors", "b": "2.safetensors"})
    checkpoint = open_checkpoint(tmp_path if by_folder else index)
    assert_holds(checkpoint, {name: STATE[name] for name in "cab"})
    assert checkpoint.source == str(index)


def test_what_the_index_does_not_list_is_named(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_shards(tmp_path, {"b": "2.safetensors"}))
    assert_holds(checkpoint, {"b": STATE["b"]})
    assert checkpoint.skipped == ("c",)


def test_ties_of_a_shard_are_kept_apart_from_those_of_another(tmp_path: Path) -> None:
    tensors = {"x": torch.ones(2), "y": torch.ones(2)}
    for shard in "12":
        named = [(name + shard, tensor) for name, tensor in tensors.items()]
        save_safetensors(tmp_path / f"{shard}.safetensors", named, ties={f"y{shard}": f"x{shard}"})
    places = {f"{name}{shard}": f"{shard}.safetensors" for name in "yx" for shard in "12"}
    (tmp_path / "x.index.json").write_text(json.dumps({"weight_map": places}))
    assert ties_of(open_checkpoint(tmp_path)) == {"x1": "y1", "x2": "y2"}


@pytest.mark.parametrize(
    "shard", ["../1.safetensors", "/tmp/1.safetensors", "a/../../x.safetensors", "..\\1.safetensors"]
)
def test_an_index_cannot_lead_out_of_its_folder(tmp_path: Path, shard: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    safetensors.torch.save_file(STATE, tmp_path / "1.safetensors")
    with pytest.raises(TersorError, match="leads out of its folder"):
        open_checkpoint(write_shards(inner, {"a": shard}))


@pytest.mark.parametrize(
    ("weight_map", "reason"),
    [
        ({"a": "3.safetensors"}, "3.safetensors is missing"),
        ({"a" * 9: "1.safetensors"}, "'aaaaaaaaa' in 1.safetensors, which does not hold it"),
        ({"a": "x" * 5000 + ".safetensors"}, "is missing"),
        ({"a": "1.bin"}, "not .safetensors"),
        ({"a": 1}, "no 'weight_map'"),
        ({}, "no 'weight_map'"),
        ([], "no 'weight_map'"),
    ],
)
def test_a_wrong_index_is_refused(tmp_path: Path, weight_map: object, reason: str) -> None:
    with pytest.raises(TersorError, match=reason):
        open_checkpoint(write_shards(tmp_path, weight_map))


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\xff"], ids=["open", "deep", "not UTF-8"])
def test_an_index_that_is_not_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.index.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(TersorError, match="is not JSON"):
        open_checkpoint(tmp_path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    whole = safetensors.torch.save(STATE)
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(TersorError, match="damaged"):
            open_checkpoint(path)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"\xff" * 8, "damaged"),
        ({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}, "damaged"),
        ({"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 4]}}, "damaged"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]}}, "damaged"),
        ({"a": {"dtype": "NEW", "shape": [1], "data_offsets": [0, 4]}}, "damaged"),
        ({"a": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}}, "damaged|'a' has dtype F6_E2M3"),
        ({"a": {"dtype": "F4", "shape": [8, 1], "data_offsets": [0, 4]}}, "not a whole number of bytes"),
    ],
)
def test_a_hostile_header_is_refused(tmp_path: Path, header: dict[str, Any] | bytes, reason: str) -> None:
    body = b"\0" * (3 if "F6" in str(header) else 4)
    with pytest.raises(TersorError, match=reason):
        open_checkpoint(write_raw(tmp_path / "x.safetensors", header, body))


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TersorError, match="no tensors"):
        open_checkpoint(write_raw(tmp_path / "x.safetensors", {}, b""))


@pytest.mark.parametrize(
    ("ties", "reason"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "must map names"),
        ('{"b": 1}', "must map names"),
        ('{"b": "missing"}', "leads nowhere"),
        ('{"missing": "a"}', "leads nowhere"),
        ('{"a": "a"}', "leads nowhere"),
        ('{"a": "b", "b": "a"}', "leads nowhere"),
        ('{"a": "c"}', "differ in dtype or shape"),
        ('{"a": "d"}', "differ in dtype or shape"),
    ],
)
def test_ties_that_make_no_sense_are_refused(tmp_path: Path, ties: str, reason: str) -> None:
    state = {"a": torch.zeros(2), "b": torch.zeros(2), "c": torch.zeros(3), "d": torch.zeros(2, dtype=torch.int32)}
    safetensors.torch.save_file(state, tmp_path / "x.safetensors", metadata={"tersor.ties": ties})
    with pytest.raises(TersorError, match=reason):
        open_checkpoint(tmp_path / "x.safetensors")


def test_a_tied_tensor_changed_since_is_a_tensor_of_its_own(tmp_path: Path) -> None:
    state = {"a": torch.zeros(700_000), "b": torch.zeros(700_000), "c": torch.zeros(700_000)}
    state["b"][-1] = 1
    metadata = {"tersor.ties": '{"b": "a", "c": "a"}'}
    safetensors.torch.save_file(state, tmp_path / "x.safetensors", metadata=metadata)
    checkpoint = open_checkpoint(tmp_path / "x.safetensors")
    assert ties_of(checkpoint) == {"c": "a"}
    assert_holds(checkpoint, state)


def test_opening_reads_no_tensor_before_it_is_asked_for(tmp_path: Path) -> None:
    save_safetensors(tmp_path / "x.safetensors", Tied().state_dict())
    checkpoint = open_checkpoint(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").unlink()
    assert checkpoint.parameters > 0
    with pytest.raises(TersorError, match="cannot read"):
        checkpoint.read("norm.weight")


@pytest.mark.parametrize("path", sorted(REAL.glob("*.safetensors")), ids=lambda path: path.stem)
def test_real_checkpoints(path: Path) -> None:
    checkpoint = open_checkpoint(path)
    expected = safetensors.torch.load_file(path)
    assert_holds(checkpoint, {entry.name: expected.pop(entry.name) for entry in checkpoint.entries})
    assert not expected
