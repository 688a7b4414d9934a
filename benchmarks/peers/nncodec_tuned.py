"""NNCodec's weights at a size, fixed; everything else (norms, biases) is trained with them.

The stream names its tensors by their positions, since the file's own header has the names. NNCodec runs in its own
virtual environment, see `nncodec.py`; `nncodec_decode.py` is what runs there.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn

from benchmarks.peers import nncodec
from benchmarks.peers.tuned import Array, Tuned

SCRIPT = Path(__file__).with_name("nncodec_decode.py")

SLACK = 0.002
"""The part of the budget that kept tensors may grow by while they are trained."""


class Student(Tuned):
    """The network with NNCodec's weights.

    Attributes:
        stream: NNCodec's, whole.
        setting: that it was made with, and its squared error.
    """

    METHOD = "nncodec"

    def __init__(self, net: nn.Module, budget: int, steps: int) -> None:
        super().__init__(net, budget, steps)
        self.latents.requires_grad_(False)
        self.originals = [v.detach().cpu().numpy().copy() for v in self.latents]
        self.stream = b""
        self._encode(int((1 - SLACK) * budget) - len(self.written()))

    def _encode(self, target: int) -> None:
        self.stream, self.setting = encode(self.originals, target)
        self.take(decode(self.stream))

    def weights(self) -> list[torch.Tensor]:
        return self.dense()

    def file(self) -> bytes:
        """The whole file; where kept tensors grew past the slack, weights are coded again, a little smaller."""
        blob = self.written()
        if len(blob) > self.budget:
            self._encode(self.budget - (len(blob) - len(self.stream)) - 2)  # the header holds the stream's length
            blob = self.written()
        return blob

    def coded(self) -> tuple[Any, list[bytes]]:
        return None, [self.stream]

    def restore(self, settings: Any, sections: Sequence[bytes]) -> None:
        if sections[0] != self.stream:
            self.stream = sections[0]
            self.take(decode(self.stream))


def encode(tensors: Sequence[Array], target: int) -> tuple[bytes, dict[str, float]]:
    """The best stream of at most `target` bytes, and its setting."""
    with tempfile.TemporaryDirectory() as folder:
        weights, stream = Path(folder) / "weights.safetensors", Path(folder) / "stream.nnc"
        save_file({str(i): np.ascontiguousarray(value) for i, value in enumerate(tensors)}, weights)
        said = _run("encode", str(weights), str(stream), str(target))
        lines = [line for line in said.splitlines() if line.startswith("{")]
        return stream.read_bytes(), json.loads(lines[-1])


def decode(stream: bytes) -> list[torch.Tensor]:
    """The tensors of a stream, in their order."""
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "stream.nnc", Path(folder) / "weights.npz"
        path.write_bytes(stream)
        _run("decode", str(path), str(out))
        with np.load(out) as back:
            return [torch.from_numpy(back[str(i)]) for i in range(len(back.files))]


def _run(*arguments: str) -> str:
    command = [nncodec.interpreter(), "-I", str(SCRIPT), *arguments]  # else our nncodec.py hides theirs
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
