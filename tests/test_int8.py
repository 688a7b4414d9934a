"""Copies with int8 weights."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors import safe_open
from safetensors.torch import load_file

import tersor
from networks import network
from tersor.checkpoint import open_checkpoint
from tersor.cli import main
from tersor.int8 import INT8_KEY, Int8Copy, quantize_rows, quantized
from tersor.recipe import Recipe

CODED = ["conv.weight", "point.weight", "fc.weight"]

matrices = arrays.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=5).flatmap(
    lambda shape: arrays.arrays(np.float32, shape, elements=st.floats(-(2.0**120), 2.0**120, width=32))
)


@given(matrices)
def test_within_half_a_step(values: np.ndarray) -> None:
    q, scale, error, energy = quantized(values)
    assert q.dtype == np.int8 and q.shape == values.shape and q.min() >= -127
    assert scale.dtype == np.float32 and scale.shape == values.shape[:1] and (scale > 0).all()
    rows = values.reshape(len(values), -1).astype(np.float64)
    back = q.reshape(rows.shape) * scale[:, None]
    assert (np.abs(back - rows) <= 0.5001 * scale[:, None]).all()
    largest = np.abs(rows).max(axis=1)
    normal = largest > 127 * np.finfo(np.float32).tiny
    assert np.allclose(scale[normal], largest[normal] / 127, rtol=1e-6)
    assert (scale[largest == 0] == 1).all() and (back[largest == 0] == 0).all()
    assert np.abs(q.reshape(rows.shape)[normal]).max(axis=1, initial=127).min(initial=127) == 127
    assert energy == pytest.approx(np.square(rows).sum())
    assert error == pytest.approx(np.square(back - rows).sum(), rel=1e-3, abs=1e-6 * energy)


def test_ties_go_to_even_and_signs_are_alike() -> None:
    values = np.array([[127, 0.5, 1.5, -0.5, -1.5, 126.5]], dtype=np.float32)
    q, scale, _, _ = quantized(values)
    assert scale.tolist() == [1] and q.tolist() == [[127, 0, 2, 0, -2, 126]]
    assert quantized(-values)[0].tolist() == (-q).tolist()


def test_rows_of_a_tensor() -> None:
    tensor = torch.tensor([[[1.0, -2.0]], [[0.0, 0.0]]], dtype=torch.bfloat16)
    integers, scales = quantize_rows(tensor)
    assert integers.dtype == torch.int8 and integers.tolist() == [[[64, -127]], [[0, 0]]]
    assert scales.dtype == torch.float32 and torch.equal(scales, torch.tensor([2 / 127, 1]))


def test_rows_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).standard_normal((33, 3, 5)).astype(np.float32)
    whole = quantized(values)
    monkeypatch.setattr("tersor.int8.PART", 40)
    parts = quantized(values)
    assert np.array_equal(whole[0], parts[0]) and np.array_equal(whole[1], parts[1])
    assert whole[2:] == pytest.approx(parts[2:])


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = network() | {"half": network(1)["conv.weight"].bfloat16(), "empty": torch.empty(0, 3)}
    state["again"] = state["fc.weight"]
    state["wide"] = torch.randn(16, 40, generator=torch.Generator().manual_seed(1))
    path = tmp_path_factory.mktemp("int8") / "net.tersor"
    tersor.compress(state, Recipe(ratio=3, effort="draft", exclude=("wide",)), out=path)
    return path


def decompress(source: Path, out: Path, *options: str) -> None:
    main(["decompress", str(source), str(out), "--int8", *options])


def read_back(path: Path, name: str) -> np.ndarray:
    """As the documentation says."""
    file = safe_open(path, "numpy")
    q, scale = file.get_tensor(name), file.get_tensor(f"{name}.scale")
    return q * scale.reshape(-1, *[1] * (q.ndim - 1))


def test_the_whole_way(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.safetensors"
    decompress(archive, out)
    told = capsys.readouterr().out
    exact, found = tersor.open(archive).state_dict(), load_file(out)
    names = [*CODED, "half", "again"]
    assert set(found) == set(exact) | {f"{name}.scale" for name in names}
    metadata = safe_open(out, "numpy").metadata()
    assert sorted(json.loads(metadata[INT8_KEY])) == sorted(names) and metadata["format"] == "pt"
    error = energy = 0.0
    for name, tensor in exact.items():
        if name not in names:
            assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
            continue
        assert found[name].dtype == torch.int8 and found[name].shape == tensor.shape
        assert found[f"{name}.scale"].dtype == torch.float32 and found[f"{name}.scale"].shape == tensor.shape[:1]
        if name != "again":  # the same tensor once more
            truth = tensor.double().numpy()
            error += float(np.square(read_back(out, name) - truth).sum())
            energy += float(np.square(truth).sum())
    db = 10 * math.log10(error / energy)
    assert db < -35
    assert told.endswith(f"5 as int8, error {db:.1f} dB beside the archive's own values\n")
    assert f"{len(exact)} tensors, {out.stat().st_size:,} B" in told
    entries = {entry.name: entry for entry in open_checkpoint(out).entries}
    assert entries["again"].tied_to == "fc.weight" and entries["again.scale"].tied_to == "fc.weight.scale"
    order = list(entries)
    assert all(order[order.index(name) + 1] == f"{name}.scale" for name in names)


def test_shards_and_json(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, folder = tmp_path / "out.safetensors", tmp_path / "shards"
    decompress(archive, whole, "--json")
    decompress(archive, folder, "--shard-size", "2kB", "--json")
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["int8"] == second["int8"] == 5 and first["int8_error_db"] == second["int8_error_db"] < -35
    assert second["shards"] > 1 and second["size"] == sum(f.stat().st_size for f in folder.glob("*.safetensors"))
    shards: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        shards |= load_file(path)
    single = load_file(whole)
    assert shards.keys() == single.keys() and all(torch.equal(shards[name], t) for name, t in single.items())


def test_nothing_coded_and_integers_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = {"w": torch.ones(3, 4, dtype=torch.int8), "x": torch.randn(4, 4)}
    tersor.compress(state, Recipe(size="1kB", exclude=("x",)), out=tmp_path / "kept.tersor")
    decompress(tmp_path / "kept.tersor", tmp_path / "out.safetensors")
    assert "0 as int8, no error" in capsys.readouterr().out
    assert safe_open(tmp_path / "out.safetensors", "pt").metadata()[INT8_KEY] == "[]"
    assert torch.equal(load_file(tmp_path / "out.safetensors")["x"], state["x"])


def test_a_name_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = network() | {"fc.weight.scale": torch.ones(16)}
    tersor.compress(state, Recipe(bpp=8, effort="draft"), out=tmp_path / "net.tersor")
    with pytest.raises(SystemExit) as stop:
        decompress(tmp_path / "net.tersor", tmp_path / "out.safetensors")
    assert stop.value.code == 1
    assert "'fc.weight.scale'" in capsys.readouterr().err and not (tmp_path / "out.safetensors").exists()


def test_integers_of_a_scalar_group(tmp_path: Path) -> None:
    archive = tersor.compress(network(), Recipe(ratio=3, scheme="int4", effort="draft"))
    copy = Int8Copy(archive)
    assert copy.names == CODED and [len(e.shape) for e in copy.entries if e.name.endswith(".scale")] == [1, 1, 1]
    copy.write(tmp_path / "out.safetensors", archive.tensors())
    assert copy.error_db is not None and copy.error_db < -35
    q = load_file(tmp_path / "out.safetensors")["fc.weight"]
    assert all(len(row.unique()) <= 16 for row in q), "four bits stay four bits"
