from __future__ import annotations

import gc
import json
import os
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from checkpoints import TIES, Tied, assert_holds, raw, state_dicts, ties_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tersor.checkpoint import Entry, open_checkpoint, save_safetensors, stream_safetensors, stream_shards
from tersor.checkpoint import shards as module
from tersor.errors import TersorError


def entries_of(state: dict[str, torch.Tensor]) -> list[Entry]:
    return [Entry(name, str(t.dtype).removeprefix("torch."), tuple(t.shape)) for name, t in state.items()]


def backwards(state: dict[str, torch.Tensor]) -> list[tuple[str, torch.Tensor]]:
    return list(reversed(state.items()))


def shards_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(state=state_dicts, limit=st.integers(1, 200))
def test_shards_hold_what_arrived_in_any_order(tmp_path: Path, state: dict[str, torch.Tensor], limit: int) -> None:
    folder, entries = tmp_path / "net", entries_of(state)
    sizes = stream_shards(folder, entries, backwards(state), limit=limit, force=True)
    assert sizes == [path.stat().st_size for path in shards_of(folder)]
    assert_holds(open_checkpoint(folder), state)
    for path in shards_of(folder):
        held = [entry.nbytes for entry in open_checkpoint(path).entries]
        assert sum(held) <= limit or len(held) - held.count(0) == 1
    index = json.loads((folder / module.INDEX_NAME).read_text())
    assert index["metadata"]["total_size"] == sum(len(raw(t)) for t in state.values())
    for name, shard in index["weight_map"].items():  # the reference library agrees
        tensor = safetensors.torch.load_file(folder / shard)[name]
        assert not tensor.numel() or raw(tensor) == raw(state[name])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(state=state_dicts)
def test_a_streamed_file_is_the_one_saved_at_once(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    save_safetensors(tmp_path / "whole", state, force=True)
    size = stream_safetensors(tmp_path / "streamed", entries_of(state), backwards(state), force=True)
    assert (tmp_path / "streamed").read_bytes() == (tmp_path / "whole").read_bytes()
    assert size == (tmp_path / "whole").stat().st_size


@pytest.mark.parametrize("limit", [1, 90, 10**6])
def test_tied_tensors_are_in_one_shard_and_tied_again(tmp_path: Path, limit: int) -> None:
    state = Tied().state_dict()
    own = {name: tensor for name, tensor in state.items() if name not in TIES}
    entries = [replace(entry, tied_to=TIES.get(entry.name)) for entry in entries_of(state)]
    stream_shards(tmp_path / "net", entries, backwards(own), limit=limit)
    checkpoint = open_checkpoint(tmp_path / "net")
    assert ties_of(checkpoint) == TIES
    assert_holds(checkpoint, state)
    for path in shards_of(tmp_path / "net"):
        with safetensors.safe_open(path, "pt") as file:  # transformers asks for the format where there is metadata
            assert (file.metadata() or {"format": "pt"})["format"] == "pt"


def test_an_owner_without_a_name(tmp_path: Path) -> None:
    entries = [Entry("", "float32", (3,)), Entry("b", "float32", (3,), tied_to="")]
    stream_safetensors(tmp_path / "x.safetensors", entries, [("", torch.arange(3.0))])
    stream_shards(tmp_path / "net", entries, [("", torch.arange(3.0))], limit=1)
    for path in (tmp_path / "x.safetensors", tmp_path / "net"):
        assert_holds(open_checkpoint(path), {"": torch.arange(3.0), "b": torch.arange(3.0)})
        assert ties_of(open_checkpoint(path)) == {"b": ""}


@pytest.mark.parametrize(
    ("arriving", "reason"),
    [
        ([("a", torch.ones(3))], "'b' never came"),
        ([("a", torch.ones(3)), ("b", torch.ones(4)), ("c", torch.ones(1))], "'b' has another size"),
        ([("a", torch.ones(3)), ("a", torch.ones(3))], "'a' is not expected"),
        ([("c", torch.ones(3))], "'c' is not expected"),
    ],
)
def test_only_what_was_announced_is_written(tmp_path: Path, arriving: Any, reason: str) -> None:
    entries = [Entry("a", "float32", (3,)), Entry("b", "float32", (3,))]
    with pytest.raises(TersorError, match=reason):
        stream_safetensors(tmp_path / "one", entries, arriving)
    with pytest.raises(TersorError, match=reason):
        stream_shards(tmp_path / "many", entries, arriving, limit=12)
    assert not list(tmp_path.iterdir())


def test_no_two_tensors_need_be_in_memory(tmp_path: Path) -> None:
    entries = [Entry(f"t{i}", "float32", (1000,)) for i in range(20)]

    def arriving() -> Iterator[tuple[str, torch.Tensor]]:
        before = None
        for entry in entries:
            tensor = torch.full(entry.shape, 1.5)
            gc.collect()
            assert before is None or before() is None, "the last tensor is still held"
            before = weakref.ref(tensor)
            yield entry.name, tensor
            del tensor

    stream_safetensors(tmp_path / "one", entries, arriving())
    stream_shards(tmp_path / "many", entries, arriving(), limit=9000)
    assert len(shards_of(tmp_path / "many")) == 10


def test_a_failure_on_the_way_leaves_all_as_it_was(tmp_path: Path) -> None:
    state = {"a": torch.ones(3), "b": torch.ones(3)}
    stream_shards(tmp_path / "net", entries_of(state), backwards(state), limit=12)
    before = {path.name: path.read_bytes() for path in (tmp_path / "net").iterdir()}

    def failing() -> Iterator[tuple[str, torch.Tensor]]:
        yield "a", torch.zeros(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream_shards(tmp_path / "net", entries_of(state), failing(), limit=12, force=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "net").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    state = {"a": torch.ones(3)}
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    for force, reason in ((False, "it exists"), (True, "'notes.txt', which is not replaced")):
        with pytest.raises(TersorError, match=reason):
            stream_shards(folder, entries_of(state), backwards(state), limit=12, force=force)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(TersorError, match="shards need a folder"):
        stream_shards(tmp_path / "file", entries_of(state), backwards(state), limit=12, force=True)
    with pytest.raises(TersorError, match="does not exist"):
        stream_shards(tmp_path / "no" / "net", entries_of(state), backwards(state), limit=12)
    assert (folder / "notes.txt").read_text() == "mine" and len(list(tmp_path.iterdir())) == 2
    (folder / "notes.txt").unlink()
    shard = folder / "model-00001-of-00001.safetensors"
    shard.mkdir()
    with pytest.raises(TersorError, match="is not replaced"):
        stream_shards(folder, entries_of(state), backwards(state), limit=12, force=True)
    shard.rmdir()
    stream_shards(folder, entries_of(state), backwards(state), limit=12)  # an empty folder is no loss
    assert_holds(open_checkpoint(folder), state)


def test_a_folder_that_cannot_be_replaced_gets_its_name_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, folder = {"a": torch.ones(3)}, tmp_path / "net"
    stream_shards(folder, entries_of(state), backwards(state), limit=12)
    rename = os.replace

    def failing(source: Path, target: Path) -> None:
        if target == folder and ".old" not in source.name:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "replace", failing)
    other = {"b": torch.ones(3)}
    with pytest.raises(KeyboardInterrupt):
        stream_shards(folder, entries_of(other), backwards(other), limit=12, force=True)
    assert_holds(open_checkpoint(folder), state)
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_too_many_shards_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    state = {name: torch.ones(3) for name in "abc"}
    with pytest.raises(TersorError, match="3 shards are more than 2; allow larger ones"):
        stream_shards(tmp_path / "net", entries_of(state), backwards(state), limit=12)
    assert not list(tmp_path.iterdir())
