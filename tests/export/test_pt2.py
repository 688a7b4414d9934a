"""Programs of torch.export that hold codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import tersor
from export.test_onnx_file import Net, inputs, network
from tersor.errors import TersorError
from tersor.export.pt2 import export_pt2


@pytest.mark.parametrize("scheme", ["auto", "additive"])
def test_it_answers_as_torch_does_and_holds_codes(scheme: str, tmp_path: Path) -> None:
    archive = tersor.compress(network(), tersor.Recipe(bpp=5, scheme=scheme))
    made = export_pt2(archive, tmp_path / "net.pt2", network(4), inputs())
    assert made.size == (tmp_path / "net.pt2").stat().st_size
    program = torch.export.load(tmp_path / "net.pt2")
    for have, want in zip(program.module()(*inputs()), archive.apply_(network())(*inputs()), strict=True):
        torch.testing.assert_close(have, want)
    held = {**program.state_dict, **program.constants}
    tensors = [v for v in held.values() if isinstance(v, torch.Tensor)]
    assert max(v.numel() for v in tensors if v.is_floating_point()) < 32 * 32
    coded = sum(archive.entries[i].numel for members in archive.index.coded for i in members)
    assert 0 < sum(v.nbytes for v in tensors if not v.is_floating_point()) < 2.5 * coded


def test_torch_alone_runs_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)).eval()
    archive = tersor.compress(model, tersor.Recipe(bpp=3))
    export_pt2(archive, tmp_path / "net.pt2", model, [torch.zeros(1, 64)])
    code = (
        "import sys, torch\n"
        f"y = torch.export.load({str(tmp_path / 'net.pt2')!r}).module()(torch.ones(1, 64))\n"
        "assert 'tersor' not in sys.modules\n"
        "print(float(y.sum()))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    with torch.no_grad():
        assert float(told) == pytest.approx(float(archive.apply_(model)(torch.ones(1, 64)).sum()), abs=1e-3)


def test_what_torch_cannot_export_is_told(tmp_path: Path) -> None:
    class Loop(Net):
        def forward(self, image: torch.Tensor, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return super().forward(image, words) if image.sum().item() > 0 else (image, image)

    archive = tersor.compress(network(), tersor.Recipe(bpp=5))
    with pytest.raises(TersorError, match="torch cannot export Loop"):
        export_pt2(archive, tmp_path / "net.pt2", Loop(), inputs())
    assert not (tmp_path / "net.pt2").exists()
