"""`tersor decompress`, `inspect` and `verify`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from calls import run
from safetensors.torch import load_file

import tersor
from networks import network
from tersor.checkpoint import open_checkpoint


def test_the_whole_way(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, back = tmp_path / "net.tersor", tmp_path / "back.safetensors"
    assert run("compress", checkpoint, small, "--ratio", 4) == 0
    out = capsys.readouterr()
    assert f"{small.stat().st_size:,} B" in out.out and "coded" in out.out and "kept" in out.out
    assert out.err == "", "quiet when not a terminal"
    assert run("verify", small) == 0 and "all good" in capsys.readouterr().out
    assert run("decompress", small, back) == 0
    original, restored = network(), load_file(back)
    assert open_checkpoint(back).entries == open_checkpoint(checkpoint).entries, "in the same order"
    archive = tersor.open(small).state_dict()
    assert all(torch.equal(restored[name], archive[name]) for name in original)
    assert run("inspect", small) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in original) and "bits per weight" in text and "one-dimensional" in text


def test_inspect_accounts_for_the_bytes(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = tmp_path / "net.tersor"
    assert run("compress", checkpoint, small, "--bpp", 6) == 0
    capsys.readouterr()
    run("inspect", small, "--json")
    found = json.loads(capsys.readouterr().out)
    coded = sum(t["bytes"] for t in found["tensors"] if "bytes" in t)
    archive = tersor.open(small)
    streams = 0
    for g, record in enumerate(archive.index.groups):
        reader = archive.group(g)
        streams += sum(len(s) for c in range(reader.chunks) for s in reader.chunk_streams(c))
        assert record.lattice is not None
    chunks = sum(archive.group(g).chunks for g in range(len(archive.index.groups)))
    assert abs(streams - coded) <= 8 * chunks + 0.01 * streams
    assert found["size"] == small.stat().st_size
    assert found["bits_per_parameter"] == pytest.approx(8 * found["size"] / found["parameters"], abs=1e-3)


def test_decompress_to_shards(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, folder = tmp_path / "net.tersor", tmp_path / "shards"
    assert run("compress", checkpoint, small, "--ratio", 4) == 0
    capsys.readouterr()
    assert run("decompress", small, folder, "--shard-size", "4kB", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    files = sorted(folder.glob("*.safetensors"))
    assert found["shards"] == len(files) > 1
    assert found["size"] == sum(path.stat().st_size for path in files)
    restored: dict[str, torch.Tensor] = {}
    for path in files:
        restored |= load_file(path)
    archive = tersor.open(small).state_dict()
    assert restored.keys() == archive.keys()
    assert all(torch.equal(restored[name], archive[name]) for name in archive)
    assert run("decompress", small, folder, "--shard-size", "4kB") == 1, "it exists"
    assert run("decompress", small, folder, "--shard-size", "4kB", "--force") == 0
    for size in ("0", "many"):
        assert run("decompress", small, tmp_path / "other", "--shard-size", size) == 1
    assert not (tmp_path / "other").exists()
    inside = folder / "model-00009-of-00009.safetensors"
    small.rename(inside)
    assert run("decompress", inside, folder, "--shard-size", "4kB", "--force") == 1
    assert inside.exists()
