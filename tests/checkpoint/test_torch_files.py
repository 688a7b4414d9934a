from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import REAL, TIES, Tied, assert_holds, state_dicts, ties_of
from hypothesis import HealthCheck, given, settings
from torch import nn

from tersor.checkpoint import open_checkpoint
from tersor.errors import TersorError


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(state=state_dicts)
def test_round_trip(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(state, tmp_path / "x.pt")
    assert_holds(open_checkpoint(tmp_path / "x.pt"), state)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".th", ".bin", ".PT"])
@pytest.mark.parametrize("as_zip", [True, False])
def test_every_suffix_and_form_keeps_ties(tmp_path: Path, suffix: str, as_zip: bool) -> None:
    module = Tied()
    path = tmp_path / f"net{suffix}"
    torch.save({"state_dict": module.state_dict(), "epoch": 1}, path, _use_new_zipfile_serialization=as_zip)
    checkpoint = open_checkpoint(str(path))
    assert_holds(checkpoint, module.state_dict())
    assert ties_of(checkpoint) == TIES
    assert (checkpoint.skipped, checkpoint.source) == (("epoch",), str(path))


def test_a_zip_packed_again_with_compression_is_read(tmp_path: Path) -> None:
    state = {"w": torch.arange(100.0)}
    torch.save(state, tmp_path / "x.pt")
    with (
        zipfile.ZipFile(tmp_path / "x.pt") as old,
        zipfile.ZipFile(tmp_path / "y.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert_holds(open_checkpoint(tmp_path / "y.pt"), state)


class Runs:
    """A pickle that leaves a mark if it is ever executed."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (self.mark,)


def test_a_pickle_that_needs_code_is_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for as_zip in (True, False):
        torch.save({"w": Runs(str(mark))}, tmp_path / "x.pt", _use_new_zipfile_serialization=as_zip)
        with pytest.raises(TersorError, match=r"more than tensors \(posix.mkdir\).*never loaded.*re-save"):
            open_checkpoint(tmp_path / "x.pt")
    assert not mark.exists()


@pytest.mark.parametrize("content", [nn.Linear(2, 2), {"args": argparse.Namespace(x=1), "w": torch.ones(1)}])
def test_a_whole_module_or_settings_must_be_saved_again(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(TersorError, match=r"re-save.*state_dict\(\)"):
        open_checkpoint(tmp_path / "x.pt")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_program_must_be_saved_again(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "x.pt")
    with pytest.raises(TersorError, match=r"TorchScript.*re-save"):
        open_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize(("content", "kind"), [(torch.ones(1), "Tensor"), ([torch.ones(1)], "list"), (3, "int")])
def test_something_else_than_a_mapping_is_refused(tmp_path: Path, content: Any, kind: str) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(TersorError, match=f"holds a {kind}"):
        open_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize(
    "data",
    [b"junk", b"PK\x03\x04 no zip", pickle.dumps({"a": 1}), pickle.dumps(3, protocol=2), b"\x80\x02}q\x00.", b"\x80"],
)
def test_what_torch_did_not_write_is_refused_quietly(
    tmp_path: Path, data: bytes, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    (tmp_path / "x.pt").write_bytes(data)
    with pytest.raises(TersorError, match=r"x\.pt") as caught:
        open_checkpoint(tmp_path / "x.pt")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "") and not recwarn.list


@pytest.mark.parametrize("as_zip", [True, False])
def test_every_truncation_is_refused(tmp_path: Path, as_zip: bool) -> None:
    torch.save({"w": torch.arange(8.0)}, tmp_path / "x.pt", _use_new_zipfile_serialization=as_zip)
    whole = (tmp_path / "x.pt").read_bytes()
    for size in range(1, len(whole), max(1, len(whole) // 60)):
        (tmp_path / "x.pt").write_bytes(whole[:size])
        with pytest.raises(TersorError):
            open_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize("path", sorted(REAL.glob("*.pt")), ids=lambda path: path.stem)
def test_real_checkpoints(path: Path) -> None:
    assert_holds(open_checkpoint(path), torch.load(path, weights_only=True))
