"""`tersor export`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnxruntime
import pytest
import torch

import tersor
from cli.calls import NETS
from tersor.cli import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    sys.modules.pop("nets", None)
    (tmp_path / "nets.py").write_text(NETS)
    main(["compress", "nets:small", "net.tersor", "--bpp", "6"])
    return tmp_path


def test_onnx_and_pt2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    main(["export", "net.tersor", "net.onnx", "--model", "nets:small", "--input", "8x16x4x4", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["size"] == (folder / "net.onnx").stat().st_size and told["form"] == "codes" and told["coded"] == 2
    import nets  # type: ignore[import-not-found]

    x = nets.images(1)[0]
    want = tersor.open("net.tersor").apply_(nets.small())(x)
    session = onnxruntime.InferenceSession("net.onnx")
    (have,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(have), want.detach(), rtol=1e-4, atol=1e-5)
    main(["export", "net.tersor", "net.pt2", "--model", "nets:small", "--input", "8x16x4x4"])
    assert "smaller than dense weights" in capsys.readouterr().out
    torch.testing.assert_close(torch.export.load("net.pt2").module()(x), want)


def test_int8_and_dense(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("int8", "dense"):
        main(["export", "net.tersor", f"{form}.onnx", "--model", "nets:small", "--input", "8x16x4x4", f"--{form}"])
    assert (folder / "int8.onnx").stat().st_size < (folder / "dense.onnx").stat().st_size


def test_from_onnx(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["export", "net.tersor", "dense.onnx", "--model", "nets:small", "--input", "8x16x4x4", "--dense"])
    main(["compress", "dense.onnx", "again.tersor", "--bpp", "6"])
    main(["export", "again.tersor", "small.onnx", "--graph", "dense.onnx"])
    assert (folder / "small.onnx").stat().st_size < (folder / "dense.onnx").stat().st_size


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["net.bin", "--model", "nets:small", "--input", "1"], "no known suffix"),
        (["net.onnx"], "give --model with --input, or --graph"),
        (["net.onnx", "--model", "nets:small"], "needs an example --input"),
        (["net.pt2", "--model", "nets:small", "--input", "1", "--int8"], ".pt2 takes"),
    ],
)
def test_wrong_usage(folder: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["export", "net.tersor", *arguments])
    assert stop.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "nets:small", "--input", "axb"], "--input axb is no shape; write 1x3x32x32"),
        (["--model", "nets:small", "--input", "1x3:int99"], "is no shape"),
        (["--model", "nets:small", "--input", "²x3"], "is no shape"),
        (["--model", "nets:small", "--input", "99999999999x99999999"], "cannot be made"),
        (["--graph", "none.onnx"], "none.onnx does not exist"),
        (["--model", "nets:wide", "--input", "1x64"], "does not fit Sequential"),
        (["--model", "nets:small", "--input", "8x16x4x4", "--opset", "7"], "opset 7 is too old"),
        (["--graph", "nets.py"], "is no ONNX model, or damaged"),
    ],
)
def test_bad_input(folder: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["export", "net.tersor", "net.onnx", *arguments])
    assert stop.value.code == 1 and said in capsys.readouterr().err
    assert not (folder / "net.onnx").exists()
