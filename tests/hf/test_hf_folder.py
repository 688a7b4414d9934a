"""Folders as they are written: what is in them, what is copied, whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", minversion="5", reason='needs transformers 5: pip install "tersor[hf]"')

import torch
from hf_models import Folders, archive_of, outputs, save
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import tersor
from networks import assert_same
from tersor.errors import TargetError, TersorError
from tersor.hf import compress_folder, save_folder
from tersor.hf.source import ARCHIVE

RECIPE = tersor.Recipe(ratio=5.0)


@pytest.fixture
def source(folders: Folders, tmp_path: Path) -> Path:
    """A folder of one's own, with things that lie beside weights."""
    folder = Path(shutil.copytree(folders("llama")[0], tmp_path / "source"))
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    (folder / "tokenizer.model").write_bytes(b"\x00\x01pieces")
    (folder / "modeling_own.py").write_text("x = 1\n")
    (folder / "optimizer.pt").write_bytes(b"large")
    (folder / "tf_model.h5").write_bytes(b"other weights")
    (folder / ".cache").write_text("hidden")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"other weights")
    return folder


def test_what_is_in_it(source: Path, tmp_path: Path) -> None:
    archive = compress_folder(source, tmp_path / "out", RECIPE)
    copied = ["generation_config.json", "modeling_own.py", "tokenizer.json", "tokenizer.model"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted([*copied, ARCHIVE, "config.json"])
    for name in copied:
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    assert archive.size == (tmp_path / "out" / ARCHIVE).stat().st_size
    assert archive.name == str(tmp_path / "out" / ARCHIVE)
    before, after = (json.loads((f / "config.json").read_text()) for f in (source, tmp_path / "out"))
    assert after == {**before, "quantization_config": {"quant_method": "tersor", "file": ARCHIVE}}
    archive.verify()


def test_the_archive_is_that_of_the_weights_alone(source: Path, tmp_path: Path) -> None:
    compress_folder(source, tmp_path / "out", RECIPE)
    alone = tersor.compress(source / "model.safetensors", RECIPE)
    assert alone.to_bytes() == (tmp_path / "out" / ARCHIVE).read_bytes()


def test_shards(folders: Folders, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folders("llama")[0])
    model.save_pretrained(tmp_path / "shards", max_shard_size="30KB")
    assert len(list((tmp_path / "shards").glob("model-*-of-*.safetensors"))) > 2
    compress_folder(tmp_path / "shards", tmp_path / "out", RECIPE)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"config.json", "generation_config.json", ARCHIVE}
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    archive = archive_of(tmp_path / "out")
    assert_same(loaded.state_dict(), {name: archive[name] for name in loaded.state_dict()})


def test_a_pickle_without_a_dtype(folders: Folders, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    model = save("bert-classifier", folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.to(torch.float16).state_dict(), folder / "pytorch_model.bin")
    config = json.loads((folder / "config.json").read_text())
    del config["dtype"]
    (folder / "config.json").write_text(json.dumps(config))
    compress_folder(folder, tmp_path / "out", RECIPE)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert loaded.dtype == torch.float16
    assert_same(loaded.state_dict(), archive_of(tmp_path / "out").state_dict())


def test_excluded_tensors_are_exact(folders: Folders, tmp_path: Path) -> None:
    recipe = tersor.Recipe(ratio=2, exclude=("*embed_tokens*", "lm_head.*"))
    compress_folder(folders("llama")[0], tmp_path / "out", recipe)
    first, second = (AutoModelForCausalLM.from_pretrained(f) for f in (folders("llama")[0], tmp_path / "out"))
    same = {n for n, t in first.state_dict().items() if torch.equal(t, second.state_dict()[n])}
    assert {"model.embed_tokens.weight", "lm_head.weight"} <= same
    assert "model.layers.0.mlp.up_proj.weight" not in same


def test_around_an_archive_that_is_there(folders: Folders, tmp_path: Path) -> None:
    plain = folders("llama")[0]
    archive = tersor.compress(plain, tersor.Recipe(ratio=4), out=tmp_path / "llama.tersor")
    assert save_folder(archive, plain, tmp_path / "out") == archive.size
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert_same(loaded.state_dict(), {name: archive[name] for name in loaded.state_dict()})
    assert torch.isfinite(outputs(loaded)).all()


def test_around_another_models_archive(folders: Folders, tmp_path: Path) -> None:
    with pytest.raises(TersorError, match=r"differ in names or shapes: ([\w.]+, ){9}[\w.]+ …$"):
        save_folder(archive_of(folders("bert")[1]), folders("llama")[0], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_force_replaces_what_is_ours(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    compress_folder(source, out, RECIPE)
    before = (out / ARCHIVE).read_bytes()
    with pytest.raises(TersorError, match="it exists; give another name, or --force"):
        compress_folder(source, out, tersor.Recipe(ratio=4))
    compress_folder(source, out, tersor.Recipe(ratio=4), force=True)
    assert (out / ARCHIVE).stat().st_size > len(before)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(TersorError, match=r"holds 'notes\.txt', which is not replaced"):
        compress_folder(source, out, RECIPE, force=True)
    assert (out / "notes.txt").read_text() == "mine"


def test_a_failure_leaves_nothing(source: Path, tmp_path: Path) -> None:
    there = sorted(tmp_path.iterdir())
    with pytest.raises(TargetError):
        compress_folder(source, tmp_path / "out", tersor.Recipe(size=100))
    assert sorted(tmp_path.iterdir()) == there


def test_into_itself(source: Path) -> None:
    with pytest.raises(TersorError, match="is the input itself"):
        compress_folder(source, source, RECIPE, force=True)
    assert (source / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f: (f / "config.json").unlink(), "has no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "config.json is not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json holds no object"),
        (lambda f: (f / "model.safetensors").unlink(), "has none of model.safetensors, model.safetensors.index.json"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x08"), "is damaged or no safetensors file"),
        (lambda f: (f / "adapter_config.json").write_text("{}"), "holds an adapter"),
    ],
)
def test_folders_that_cannot_be_used(spoil: Callable[[Path], Any], told: str, source: Path, tmp_path: Path) -> None:
    spoil(source)
    with pytest.raises(TersorError, match=told):
        compress_folder(source, tmp_path / "out", RECIPE)
    assert not (tmp_path / "out").exists()


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(TersorError, match="is not a folder"):
        compress_folder(tmp_path / "nothing", tmp_path / "out", RECIPE)


def test_quantized_already(folders: Folders, tmp_path: Path) -> None:
    with pytest.raises(TersorError, match="is quantized already, by tersor"):
        compress_folder(folders("llama")[1], tmp_path / "out", RECIPE)


def test_passes_need_the_network(folders: Folders, tmp_path: Path) -> None:
    with pytest.raises(TersorError, match=r"passes need the network.*tersor\.hf\.save_folder"):
        compress_folder(folders("llama")[0], tmp_path / "out", tersor.Recipe(ratio=5, passes=("prune(sparsity=0.5)",)))


def test_passes_that_changed_layers(folders: Folders, tmp_path: Path) -> None:
    """Such an archive does not fit its config; one whose zeros are kept does."""
    from hf_models import KINDS
    from transformers import AutoModel

    plain = folders("bert")[0]
    model = AutoModel.from_pretrained(plain)
    factored = tersor.compress(model, tersor.Recipe(ratio=5, passes=("lowrank(rank=8)",)))
    with pytest.raises(TersorError, match=r"lowrank\(rank=8\) changed the network.*archive\.apply_"):
        save_folder(factored, plain, tmp_path / "out")
    pruned = tersor.compress(model, tersor.Recipe(ratio=5, passes=("prune(sparsity=0.5)",)))
    save_folder(pruned, plain, tmp_path / "out")
    loaded = AutoModel.from_pretrained(tmp_path / "out")
    assert_same(loaded.state_dict(), pruned.apply_(KINDS["bert"]()).state_dict())
    (tmp_path / "out" / ARCHIVE).unlink()
    factored.save(tmp_path / "out" / ARCHIVE)
    with pytest.raises(TersorError, match="changed the network"):
        AutoModel.from_pretrained(tmp_path / "out")
