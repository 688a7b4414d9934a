"""Opening a checkpoint of any kind: one function that finds out what the source is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tersor.checkpoint.inventory import Checkpoint
from tersor.errors import TersorError

if TYPE_CHECKING:
    from torch import nn

INDEX_SUFFIX = ".index.json"
TORCH_SUFFIXES = (".pt", ".pth", ".th", ".bin")
ONNX_SUFFIX = ".onnx"


def open_checkpoint(source: nn.Module | Mapping[str, Any] | str | os.PathLike[str]) -> Checkpoint:
    """Open a module, a mapping of names to tensors or numpy arrays, or a path; of a file only the names are read.

    A path is a `.safetensors` file, the `*.index.json` of a sharded one, a folder with either, or a `.pt`, `.pth`,
    `.th` or `.bin` file with a state dict, at the top or under `state_dict` or `model`, or an `.onnx` file, whose
    initializers count.

    Raises:
        TersorError: the source is missing, damaged, of a kind unknown here, or holds no plain tensors.
    """
    if isinstance(source, (str, os.PathLike)):
        return _open_path(Path(source))
    from tersor.checkpoint.memory import from_mapping

    if isinstance(source, Mapping):
        return from_mapping(source, "the state dict")
    from torch import nn

    if isinstance(source, nn.Module):
        return from_mapping(source.state_dict(), type(source).__name__)
    raise TersorError(f"a {type(source).__name__} is no checkpoint; give a module, a state dict or a path")


def _open_path(path: Path) -> Checkpoint:
    if os.path.isdir(path):
        path = _find_in_folder(path)
    if not os.path.exists(path):
        raise TersorError(f"{path} does not exist; check the path")
    if not os.path.isfile(path):
        raise TersorError(f"{path} is not a regular file; give a checkpoint file or its folder")
    suffix = INDEX_SUFFIX if path.name.lower().endswith(INDEX_SUFFIX) else path.suffix.lower()
    if suffix not in (".safetensors", INDEX_SUFFIX, ONNX_SUFFIX, *TORCH_SUFFIXES):
        known = ", ".join((".safetensors", f"*{INDEX_SUFFIX}", ONNX_SUFFIX, *TORCH_SUFFIXES))
        raise TersorError(f"{path} has no known suffix; checkpoints are {known} or a folder")
    if path.stat().st_size == 0:
        raise TersorError(f"{path} is empty; get it again")
    if suffix in TORCH_SUFFIXES:
        from tersor.checkpoint.torch_files import from_torch_file

        return from_torch_file(path)
    if suffix == ONNX_SUFFIX:
        from tersor.checkpoint.onnx_files import from_onnx

        return from_onnx(path)
    from tersor.checkpoint.safetensors_files import from_index, from_safetensors

    return from_index(path) if suffix == INDEX_SUFFIX else from_safetensors(path)


def _find_in_folder(folder: Path) -> Path:
    """The one index in a folder (of safetensors, where there is one of each kind), or else the one file."""
    for pattern in (f"*.safetensors{INDEX_SUFFIX}", f"*{INDEX_SUFFIX}", "*.safetensors"):
        found = sorted(folder.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(path.name for path in found)
            raise TersorError(f"{folder} has several files to choose from ({names}); name one of them")
    raise TersorError(f"{folder} has no *{INDEX_SUFFIX} and no .safetensors file; name the checkpoint file itself")
