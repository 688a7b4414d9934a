"""Initializers of .onnx files as checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tersor.checkpoint import open_checkpoint
from tersor.errors import TersorError


def write(path: Path, tensors: list[onnx.TensorProto], external: bool = False) -> None:
    graph = helper.make_graph([], "g", [], [], tensors)
    onnx.save(helper.make_model(graph), path, save_as_external_data=external, size_threshold=0)


@pytest.mark.parametrize("external", [False, True])
def test_tensors_of_many_types(tmp_path: Path, external: bool) -> None:
    random = np.random.default_rng(0)
    arrays = {
        "w": random.normal(size=(4, 5)).astype(np.float32), "h": random.normal(size=7).astype(np.float16),
        "d": random.normal(size=(2, 2)), "n": random.integers(0, 9, (3, 1)), "b": random.random(5) > 0.5,
        "one": np.array(3.5, dtype=np.float32),
    }  # fmt: skip
    half = torch.randn(3, 4).bfloat16()
    raw = helper.make_tensor("bf", TensorProto.BFLOAT16, [3, 4], half.view(torch.int16).numpy().tobytes(), raw=True)
    write(tmp_path / "net.onnx", [*(numpy_helper.from_array(v, k) for k, v in arrays.items()), raw], external)
    found = open_checkpoint(tmp_path / "net.onnx")
    assert [e.name for e in found.entries] == [*arrays, "bf"]
    for entry in found.entries:
        value = found.read(entry.name)
        assert tuple(value.shape) == entry.shape and str(value.dtype) == f"torch.{entry.dtype}"
        want = half if entry.name == "bf" else torch.from_numpy(arrays[entry.name])
        assert torch.equal(value, want)


def test_damaged_and_empty_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"\\xff\\xfe no graph")
    with pytest.raises(TersorError, match=r"bad.onnx is no ONNX model, or damaged"):
        open_checkpoint(tmp_path / "bad.onnx")
    write(tmp_path / "none.onnx", [])
    with pytest.raises(TersorError, match="has no initializers"):
        open_checkpoint(tmp_path / "none.onnx")
