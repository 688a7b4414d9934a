"""`from_pretrained` of compressed folders: the archive's very bits, in plain models, without a word."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", minversion="5", reason='needs transformers 5: pip install "tersor[hf]"')

import torch
import transformers
from hf_models import KINDS, Folders, archive_of, no_complaints, outputs

from networks import assert_same
from tersor.errors import ArchiveError, TersorError
from tersor.hf.source import ARCHIVE

AUTO = {
    "llama": "AutoModelForCausalLM",
    "tied-llama": "AutoModelForCausalLM",
    "bf16-llama": "AutoModelForCausalLM",
    "mixtral": "AutoModelForCausalLM",
    "bert": "AutoModel",
    "bert-classifier": "AutoModelForSequenceClassification",
    "vit": "AutoModelForImageClassification",
    "resnet": "AutoModelForImageClassification",
}


def load(kind: str, folder: Path, **how: Any) -> Any:
    return getattr(transformers, AUTO[kind]).from_pretrained(folder, **how)


def plainly(kind: str, folder: Path, place: Path, **how: Any) -> Any:
    """The same, of a folder with the same values as plain weights."""
    from safetensors.torch import save_file

    place.mkdir()
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (place / "config.json").write_text(json.dumps(config))
    save_file(archive_of(folder).state_dict(), place / "model.safetensors", {"format": "pt"})
    return load(kind, place, **how)


@pytest.mark.parametrize("kind", AUTO)
def test_every_bit_is_the_archives(kind: str, folders: Folders, tmp_path: Path) -> None:
    folder = folders(kind)[1]
    with no_complaints():
        model, info = load(kind, folder, output_loading_info=True)
    assert not any(info.values())
    reference = plainly(kind, folder, tmp_path / "reference")
    assert_same(model.state_dict(), reference.state_dict())
    assert torch.equal(outputs(model), outputs(reference))
    assert not model.training


@pytest.mark.parametrize("kind", ["llama", "bf16-llama", "bert", "bert-classifier", "resnet"])
def test_as_apply_loads_it(kind: str, folders: Folders) -> None:
    folder = folders(kind)[1]
    model = load(kind, folder)
    reference = KINDS[kind]()
    archive_of(folder).apply_(reference)
    assert_same(model.state_dict(), reference.state_dict())
    assert torch.equal(outputs(model), outputs(reference.eval()))


def test_names_in_the_file_are_those_that_were_saved(folders: Folders) -> None:
    for kind in AUTO:
        plain, small = folders(kind)
        from tersor.checkpoint import open_checkpoint

        assert list(archive_of(small)) == [e.name for e in open_checkpoint(plain).entries], kind


def test_ties_stay(folders: Folders) -> None:
    model = load("tied-llama", folders("tied-llama")[1])
    assert "lm_head.weight" not in archive_of(folders("tied-llama")[1])
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize(
    ("kind", "auto"),
    [
        ("llama", "AutoModel"),
        ("bert", "AutoModelForSequenceClassification"),
        ("bert-classifier", "AutoModel"),
        ("bert-classifier", "AutoModelForMaskedLM"),
        ("vit", "AutoModel"),
    ],
)
def test_heads_come_and_go_as_with_plain_weights(kind: str, auto: str, folders: Folders, tmp_path: Path) -> None:
    folder, loader = folders(kind)[1], getattr(transformers, auto)
    plainly(kind, folder, tmp_path / "reference")
    model, info = loader.from_pretrained(folder, output_loading_info=True)
    reference, expected = loader.from_pretrained(tmp_path / "reference", output_loading_info=True)
    assert info == expected
    found = [{n: t for n, t in m.state_dict().items() if n not in info["missing_keys"]} for m in (model, reference)]
    assert len(found[0]) > 10
    assert_same(*found)


@pytest.mark.parametrize("kind", ["llama", "bert-classifier", "mixtral"])
@pytest.mark.parametrize("dtype", ["bfloat16", torch.float16, "auto"])
def test_dtypes(kind: str, dtype: Any, folders: Folders, tmp_path: Path) -> None:
    folder = folders(kind)[1]
    model = load(kind, folder, dtype=dtype)
    assert model.dtype == {"bfloat16": torch.bfloat16, "auto": torch.float32}.get(dtype, dtype)
    assert_same(model.state_dict(), plainly(kind, folder, tmp_path / "reference", dtype=dtype).state_dict())
    base = transformers.AutoModel.from_pretrained(folder, dtype=dtype)
    assert base.dtype == model.dtype


def test_bf16_stays(folders: Folders) -> None:
    assert {e.dtype for e in archive_of(folders("bf16-llama")[1]).entries} == {"bfloat16"}
    assert load("bf16-llama", folders("bf16-llama")[1]).dtype == torch.bfloat16


def test_without_a_dtype_in_the_config(folders: Folders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders("llama")[1], tmp_path / "folder"))
    config = json.loads((folder / "config.json").read_text())
    del config["dtype"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(TersorError, match='add "dtype"'):
        load("llama", folder)
    assert load("llama", folder, dtype="float32").dtype == torch.float32


def test_on_a_device(folders: Folders) -> None:
    folder = folders("llama")[1]
    assert_same(load("llama", folder, device_map=None).state_dict(), load("llama", folder).state_dict())
    if importlib.util.find_spec("accelerate") is None:
        with pytest.raises(ValueError, match="requires `accelerate`"):
            load("llama", folder, device_map="cpu")
        return
    for place in ("cpu", "auto"):
        assert_same(load("llama", folder, device_map=place).state_dict(), load("llama", folder).state_dict())


def test_generates(folders: Folders, tmp_path: Path) -> None:
    folder = folders("tied-llama")[1]
    prompt = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    models = load("tied-llama", folder), plainly("tied-llama", folder, tmp_path / "reference")
    with no_complaints():
        answers = [m.generate(**prompt, max_new_tokens=8, do_sample=False, pad_token_id=0) for m in models]
    assert answers[0].shape[1] > 3
    assert torch.equal(*answers)


@pytest.mark.parametrize("kind", ["tied-llama", "mixtral", "bert-classifier", "resnet"])
def test_saved_again_it_is_plain(kind: str, folders: Folders, tmp_path: Path) -> None:
    plain, small = folders(kind)
    model = load(kind, small)
    assert not hasattr(model, "hf_quantizer")
    with no_complaints():
        model.save_pretrained(tmp_path / "again")
        again = load(kind, tmp_path / "again")
    assert_same(again.state_dict(), model.state_dict())
    from tersor.checkpoint import open_checkpoint

    saved, first = (open_checkpoint(folder) for folder in (tmp_path / "again", plain))
    assert {e.name: e.shape for e in saved.entries} == {e.name: e.shape for e in first.entries}
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert config == json.loads((plain / "config.json").read_text())


def test_it_trains_and_casts_as_a_plain_model(folders: Folders) -> None:
    model = load("bert-classifier", folders("bert-classifier")[1]).train()
    before = model.classifier.weight.detach().clone()
    model(torch.tensor([[1, 2]]), labels=torch.tensor([1])).loss.backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    assert not torch.equal(model.classifier.weight, before)
    assert model.half().dtype == torch.float16


def test_nothing_is_left_in_the_temporary_folder(folders: Folders, temporary: Path) -> None:
    model = load("llama", folders("llama")[1])
    assert not list(temporary.iterdir())
    assert torch.isfinite(outputs(model)).all()  # also where the weights are mapped from a file that is gone


def test_damage_is_told_and_leaves_nothing(folders: Folders, tmp_path: Path, temporary: Path) -> None:
    import gc

    folder = Path(shutil.copytree(folders("llama")[1], tmp_path / "folder"))
    data = bytearray((folder / ARCHIVE).read_bytes())
    data[-200] ^= 1
    (folder / ARCHIVE).write_bytes(data)
    with pytest.raises(ArchiveError, match=r"model\.tersor\.safetensors: section \d+ .* is damaged"):
        load("llama", folder)
    gc.collect()  # the model that was begun, which the exception held
    assert not list(temporary.iterdir())
    (folder / ARCHIVE).write_bytes(data[:-10])
    with pytest.raises(ArchiveError, match="cut short"):
        load("llama", folder)


def test_a_full_disk_is_told_and_leaves_nothing(
    folders: Folders, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tersor.hf.plain.reserve", full)
    with pytest.raises(TersorError, match=r"cannot decode .* B\): the disk is full; .* \(TMPDIR\)"):
        load("llama", folders("llama")[1])
    assert not list(temporary.iterdir())
    monkeypatch.setattr("tempfile.tempdir", str(temporary / "nowhere"))
    with pytest.raises(TersorError, match=r"cannot decode .* No such file or directory"):
        load("llama", folders("llama")[1])


def test_of_another_model(folders: Folders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders("llama")[1], tmp_path / "folder"))
    shutil.copy(folders("bert")[1] / ARCHIVE, folder)
    with pytest.raises(TersorError, match="does not fit LlamaForCausalLM: it holds embeddings") as told:
        load("llama", folder)
    assert str(told.value).count(".weight") + str(told.value).count(".bias") <= 20


def test_of_other_shapes_as_with_plain_weights(folders: Folders) -> None:
    folder, other = folders("bert-classifier")[1], {"type_vocab_size": 5}
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        load("bert-classifier", folder, **other)
    model = load("bert-classifier", folder, **other, ignore_mismatched_sizes=True)
    assert model.bert.embeddings.token_type_embeddings.weight.shape == (5, 32)
    assert torch.equal(model.classifier.weight, archive_of(folder)["classifier.weight"])


def test_of_other_shapes_where_transformers_lets_them_pass(folders: Folders, temporary: Path) -> None:
    from tersor.hf import TersorConfig, TersorQuantizer

    model = KINDS["bert"]()
    files = [str(folders("bert")[1] / ARCHIVE)]
    quantizer = TersorQuantizer(TersorConfig())
    quantizer.preprocess_model(model, checkpoint_files=files)
    assert Path(files[0]).parent.parent == temporary
    quantizer.validate_environment(device_map={"": "cpu"})  # once more, with what device_map="auto" came to
    for layer in (*model.encoder.layer, model.pooler):
        for parameter in layer.parameters():
            parameter.data = torch.zeros(3)
    with pytest.raises(TersorError, match=r"weight \(3,\) for \(32, 32\), .* …; give the config") as told:
        quantizer.postprocess_model(model)
    assert str(told.value).count(" for (") == 10


def test_not_compressed_while_it_is_loaded(folders: Folders) -> None:
    from tersor.hf import TersorConfig

    with pytest.raises(TersorError, match="tersor compress FOLDER OUT"):
        load("llama", folders("llama")[0], quantization_config=TersorConfig())


@pytest.mark.parametrize(
    ("field", "told"), [({"bits": 4}, "has bits, unknown here: upgrade tersor"), ({"file": 3}, "names 3 as its file")]
)
def test_a_config_that_is_not_ours(field: dict[str, Any], told: str, folders: Folders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders("llama")[1], tmp_path / "folder"))
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] |= field
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(TersorError, match=told):
        load("llama", folder)


ALONE = """
import sys, torch
from transformers import AutoModelForCausalLM
try:
    AutoModelForCausalLM.from_pretrained(sys.argv[1])
except OSError as error:
    print("without:", "no file named model.safetensors" in str(error))
import tersor.hf
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
torch.save(model.state_dict(), sys.argv[2])
"""


def test_in_a_process_of_its_own(folders: Folders, tmp_path: Path) -> None:
    folder = folders("llama")[1]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, folder, tmp_path / "state.pt"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "without: True\n"  # no random weights where nobody has imported tersor.hf
    assert_same(torch.load(tmp_path / "state.pt"), load("llama", folder).state_dict())
