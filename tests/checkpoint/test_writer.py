from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from checkpoints import TIES, Tied, assert_holds, raw, state_dicts, ties_of
from hypothesis import HealthCheck, given, settings

from tersor.checkpoint import open_checkpoint, save_safetensors
from tersor.errors import TersorError


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(state=state_dicts)
def test_round_trip_here_and_in_the_reference_library(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "x.safetensors"
    assert save_safetensors(path, state, force=True) == path.stat().st_size
    assert_holds(open_checkpoint(path), state)
    with safetensors.safe_open(path, "pt") as file:
        assert set(file.keys()) == set(state)
        for name, tensor in state.items():
            if tensor.numel():
                assert raw(file.get_tensor(name)) == raw(tensor)


def test_a_network_comes_back_with_its_ties_and_any_loader_finds_every_name(tmp_path: Path) -> None:
    module = Tied()
    given_as = open_checkpoint(module)
    path = tmp_path / "x.safetensors"
    save_safetensors(path, module.state_dict(), ties=ties_of(given_as), metadata={"from": "a test"})
    checkpoint = open_checkpoint(path)
    assert_holds(checkpoint, module.state_dict())
    assert checkpoint.entries == given_as.entries and ties_of(checkpoint) == TIES
    assert (checkpoint.nbytes, checkpoint.parameters) == (given_as.nbytes, given_as.parameters)
    Tied().load_state_dict(safetensors.torch.load_file(path))
    with safetensors.safe_open(path, "np") as file:
        assert file.metadata()["from"] == "a test"


def test_a_name_that_is_only_tied_is_written_from_its_owner(tmp_path: Path) -> None:
    save_safetensors(tmp_path / "x.safetensors", [("a", torch.ones(2))], ties={"ü": "a"})
    assert ties_of(open_checkpoint(tmp_path / "x.safetensors")) == {"ü": "a"}
    assert safetensors.torch.load_file(tmp_path / "x.safetensors")["ü"].tolist() == [1, 1]


def test_tensors_are_aligned_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    state = {"a": torch.ones(1, dtype=torch.bool), "b": torch.ones(1, dtype=torch.float64), "c": torch.ones(3)}
    save_safetensors(path, state)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert length % 8 == 0
    assert all(header[name]["data_offsets"][0] % tensor.itemsize == 0 for name, tensor in state.items())
    assert_holds(open_checkpoint(path), state)


@pytest.mark.parametrize(
    ("tensors", "ties", "reason"),
    [
        ({"__metadata__": torch.ones(1)}, {}, "reserves the name '__metadata__'"),
        ({"a\ud800": torch.ones(1)}, {}, "not valid Unicode"),
        ({"a": torch.ones(1, dtype=torch.complex128)}, {}, "'a' has dtype complex128"),
        ({"a": torch.zeros((), dtype=torch.uint8).view(torch.float4_e2m1fn_x2)}, {}, "'a': a 0-d tensor"),
        ({"a": torch.ones(1, device="meta")}, {}, "'a' is on the meta device"),
        ([("a", torch.ones(1)), ("a", torch.ones(1))], {}, "two tensors are named 'a'"),
        ({"a": torch.ones(1)}, {"b": "c"}, "'b' is tied to 'c'"),
        ({"a": torch.ones(1)}, {"a": "a"}, "'a' is tied to 'a'"),
        ({"a": torch.ones(1), "b": torch.ones(2)}, {"b": "a"}, "differ in dtype or shape"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(tmp_path: Path, tensors: Any, ties: Any, reason: str) -> None:
    with pytest.raises(TersorError, match=reason):
        save_safetensors(tmp_path / "x.safetensors", tensors, ties=ties)
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_safetensors(path, {"a": torch.ones(1)})
    with pytest.raises(TersorError, match="--force"):
        save_safetensors(path, {"b": torch.ones(1)})
    assert open_checkpoint(path).entries[0].name == "a"
    save_safetensors(path, {"b": torch.ones(1)}, force=True)
    assert open_checkpoint(path).entries[0].name == "b"


def test_a_checkpoint_can_be_written_over_itself(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    state = {"a": torch.arange(5.0), "b": torch.ones(2)}
    save_safetensors(path, state)
    checkpoint = open_checkpoint(path)
    save_safetensors(path, ((entry.name, checkpoint.read(entry.name)) for entry in checkpoint.entries), force=True)
    assert_holds(open_checkpoint(path), state)
