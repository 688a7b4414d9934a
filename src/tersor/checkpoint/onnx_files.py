"""The initializers of an .onnx file as a checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tersor.checkpoint.inventory import Checkpoint, Entry
from tersor.errors import TersorError

if TYPE_CHECKING:
    import onnx
    import torch

TYPES = {
    "float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "bool": 9, "float16": 10,
    "float64": 11, "uint32": 12, "uint64": 13, "complex64": 14, "complex128": 15, "bfloat16": 16,
}  # fmt: skip
"""onnx.TensorProto's numbers of torch's types."""
_NAMES = {number: name for name, number in TYPES.items()}


def load_onnx(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """The model in a file, data beside it included.

    Raises:
        TersorError: onnx is missing, or the file cannot be read.
    """
    try:
        import onnx
    except ImportError as error:
        raise TersorError('.onnx files need one more package: pip install "tersor[onnx]"') from error
    if not os.path.exists(path):
        raise TersorError(f"{os.fspath(path)} does not exist; check the path")
    try:
        return onnx.load(os.fspath(path))
    except (onnx.checker.ValidationError, FileNotFoundError) as error:
        raise TersorError(
            f"{os.fspath(path)} keeps data in other files, which are missing beside it: {error}"
        ) from error
    except Exception as error:  # protobuf raises its own kinds, onnx others
        raise TersorError(
            f"{os.fspath(path)} is no ONNX model, or damaged ({type(error).__name__}); get it again"
        ) from error


def from_onnx(path: Path) -> Checkpoint:
    """Initializers by name; those of types that torch lacks are left out.

    Raises:
        TersorError: the file cannot be read, or has no initializers.
    """
    proto = load_onnx(path)
    tensors = {i.name: i for i in proto.graph.initializer if i.data_type in _NAMES}
    if not tensors:
        raise TersorError(f"{path} has no initializers; there is nothing to compress")
    skipped = tuple(i.name for i in proto.graph.initializer if i.name not in tensors)
    entries = tuple(Entry(name, _NAMES[t.data_type], tuple(t.dims)) for name, t in tensors.items())

    def load(name: str) -> torch.Tensor:
        import torch
        from onnx import numpy_helper

        tensor = tensors[name]
        if tensor.data_type == 16:
            raw = bytearray(numpy_helper.to_array(tensor).tobytes())
            kind = torch.bfloat16 if len(raw) == 2 * max(1, _count(tensor)) else torch.float32
            found = (
                torch.frombuffer(raw, dtype=kind).to(torch.bfloat16) if raw else torch.empty(0, dtype=torch.bfloat16)
            )
            return found.reshape(tuple(tensor.dims))
        return torch.from_numpy(numpy_helper.to_array(tensor).copy())

    return Checkpoint(str(path), entries, load, skipped=skipped)


def _count(tensor: onnx.TensorProto) -> int:
    count = 1
    for n in tensor.dims:
        count *= n
    return count
