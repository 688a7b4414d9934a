from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tersor.checkpoint import open_checkpoint, save_safetensors
from tersor.errors import TersorError


@pytest.mark.parametrize("name", ["no.safetensors", "no.pt", "no/folder", "x" * 5000 + ".pt"])
def test_a_missing_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TersorError, match="does not exist"):
        open_checkpoint(tmp_path / name)


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt", "x.bin", "x.index.json"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(TersorError, match=f"{name} is empty"):
        open_checkpoint(tmp_path / name)


@pytest.mark.parametrize("name", ["x.bin2", "x", "x.json", ".pt"])
def test_an_unknown_suffix_names_the_known_ones(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(TersorError, match=r"\.safetensors, \*\.index\.json, \.onnx, \.pt, \.pth, \.th, \.bin"):
        open_checkpoint(tmp_path / name)


def test_a_device_is_refused() -> None:
    with pytest.raises(TersorError, match="not a regular file"):
        open_checkpoint("/dev/null")


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([], "no .*index.json and no .safetensors"),
        (["x.pt"], "no .*index.json and no .safetensors"),
        (["a.safetensors", "b.safetensors"], "several files.*a.safetensors, b.safetensors"),
        (["a.index.json", "b.index.json", "a.safetensors"], "several files.*a.index.json, b.index.json"),
    ],
)
def test_a_folder_without_one_checkpoint_is_refused(tmp_path: Path, names: list[str], reason: str) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(TersorError, match=reason):
        open_checkpoint(tmp_path)


def test_a_folder_with_an_index_of_each_kind_is_read_by_that_of_safetensors(tmp_path: Path) -> None:
    save_safetensors(tmp_path / "1.safetensors", {"a": torch.ones(1)})
    save_safetensors(tmp_path / "2.safetensors", {"b": torch.ones(1)})
    (tmp_path / "pytorch_model.bin.index.json").write_text("other")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"b": "2.safetensors"}}')
    assert [entry.name for entry in open_checkpoint(tmp_path).entries] == ["b"]


def test_names_of_a_safetensors_file_are_known_without_torch(tmp_path: Path) -> None:
    save_safetensors(tmp_path / "x.safetensors", {"a": torch.ones(3)}, ties={"b": "a"})
    program = (
        "import sys, tersor.checkpoint as c; assert 'numpy' not in sys.modules;"
        "print(c.open_checkpoint(sys.argv[1]).nbytes, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "x.safetensors")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "12 False\n"
