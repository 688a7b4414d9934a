"""`tersor compress FOLDER OUT_FOLDER`, and the other commands on what it writes."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers", minversion="5", reason='needs transformers 5: pip install "tersor[hf]"')

import torch
from hf_models import Folders, archive_of
from transformers import AutoModelForCausalLM

from networks import assert_same
from tersor.cli import main
from tersor.hf.source import ARCHIVE

Capture = pytest.CaptureFixture[str]


def fails(capsys: Capture, *arguments: str) -> str:
    """What a command that fails prints on stderr: one line."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def test_folder_to_folder(folders: Folders, tmp_path: Path, capsys: Capture) -> None:
    plain, out = str(folders("llama")[0]), str(tmp_path / "out")
    main(["compress", plain, out, "--ratio", "5"])
    assert capsys.readouterr().out.startswith(f"{out}: ")
    assert (Path(out) / ARCHIVE).read_bytes() == (folders("llama")[1] / ARCHIVE).read_bytes()
    model = AutoModelForCausalLM.from_pretrained(out)
    assert_same(model.state_dict(), {name: archive_of(Path(out))[name] for name in model.state_dict()})
    assert "exists; pass --force" in fails(capsys, "compress", plain, out, "--ratio", "5")
    main(["compress", plain, out, "--ratio", "4", "--force"])


def test_as_json(folders: Folders, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    (folders("vit")[0] / "more").mkdir(exist_ok=True)
    main(["compress", str(folders("vit")[0]), str(out), "--ratio", "5", "--json"])
    made = json.loads(capsys.readouterr().out)
    assert made["file"] == str(out)
    assert made["size"] == (out / ARCHIVE).stat().st_size
    assert made["left_out"] == ["more/"]


def test_what_is_not_copied_is_told(folders: Folders, tmp_path: Path, capsys: Capture) -> None:
    (folders("vit")[0] / "more").mkdir(exist_ok=True)
    main(["compress", str(folders("vit")[0]), str(tmp_path / "out"), "--ratio", "5"])
    assert "not copied: more/\n" in capsys.readouterr().out


def test_to_one_file_by_its_name(folders: Folders, tmp_path: Path) -> None:
    main(["compress", str(folders("llama")[0]), str(tmp_path / "one.tersor"), "--ratio", "5"])
    assert (tmp_path / "one.tersor").read_bytes() == (folders("llama")[1] / ARCHIVE).read_bytes()


def test_dry_run(folders: Folders, tmp_path: Path, capsys: Capture) -> None:
    main(["compress", str(folders("llama")[0]), str(tmp_path / "out"), "--ratio", "5", "--dry-run"])
    assert "nothing written" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_the_other_commands_take_the_archive(folders: Folders, tmp_path: Path, capsys: Capture) -> None:
    from safetensors.torch import load_file

    file = str(folders("llama")[1] / ARCHIVE)
    main(["inspect", file])
    assert "model.layers.0.self_attn.q_proj.weight" in capsys.readouterr().out
    main(["verify", file])
    assert capsys.readouterr().out.endswith("all good\n")
    main(["decompress", file, str(tmp_path / "plain.safetensors")])
    archive = archive_of(folders("llama")[1])
    assert all(torch.equal(t, archive[n]) for n, t in load_file(tmp_path / "plain.safetensors").items())


def test_what_it_refuses(folders: Folders, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, small, out = (str(path) for path in (*folders("llama"), tmp_path / "out"))
    ratio = ["--ratio", "5"]
    assert "quantized already, by tersor" in fails(capsys, "compress", small, out, *ratio)
    assert "passes need the network" in fails(capsys, "compress", plain, out, *ratio, "--pass", "prune(sparsity=0.5)")
    assert f"give {out}.tersor" in fails(capsys, "compress", plain, out, *ratio, "--resume")
    assert "is the input itself" in fails(capsys, "compress", plain, plain, *ratio, "--force")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "tersor.hf.save_folder" in fails(capsys, "compress", plain, out, *ratio)
    assert not Path(out).exists()


def test_a_folder_without_weights(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    told = fails(capsys, "compress", str(tmp_path / "empty"), str(tmp_path / "out"), "--ratio", "5")
    assert "has none of model.safetensors" in told


def test_without_transformers(
    folders: Folders, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name == "tersor.hf" or name.startswith("tersor.hf.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    told = fails(capsys, "compress", str(folders("llama")[0]), str(tmp_path / "out"), "--ratio", "5")
    assert told == 'tersor: tersor.hf needs transformers 5 or later: pip install "tersor[hf]"\n'
