"""A folder as transformers' `save_pretrained` writes it: its config, its weights, and what lies beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tersor.checkpoint import Checkpoint, open_checkpoint
from tersor.errors import TersorError

METHOD = "tersor"
"""The `quant_method` in config.json."""
ARCHIVE = "model.tersor.safetensors"
"""The archive's name in a folder. Were it `model.safetensors`, transformers would load random weights where nobody has
imported `tersor.hf`, and only warn; as it is, it says that there are no weights."""
CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
"""Where transformers looks for weights, in its order."""

_NOT_COPIED = (
    ".safetensors", ".bin", ".pt", ".pth", ".th", ".ckpt", ".index.json", ".h5", ".msgpack", ".ot", ".gguf", ".onnx",
    ".onnx_data", ".tersor",
)  # fmt: skip
"""Weights of any kind, and what trainers leave (`optimizer.pt`, `training_args.bin`)."""


@dataclass(frozen=True)
class ModelFolder:
    """A folder with a config and weights."""

    path: Path
    config: Mapping[str, Any]
    """config.json as it is."""
    checkpoint: Checkpoint
    others: tuple[str, ...]
    """Names of the files that go with the weights: the tokenizer's, generation_config.json, the model's code."""
    left_out: tuple[str, ...]
    """Names of what does not: other weights, and folders, which end in a slash. Hidden files are not named."""

    def new_config(self) -> str:
        """config.json of a folder that holds the archive instead: with `quantization_config`, and a dtype.

        Where config.json has none, transformers takes the first floating tensor's, which an archive does not show.
        """
        config = dict(self.config)
        if config.get("dtype") is None and config.get("torch_dtype") is None:
            kinds = (e.dtype for e in self.checkpoint.entries if e.dtype.startswith(("float", "bfloat")))
            config["dtype"] = next(kinds, "float32")
        config["quantization_config"] = {"quant_method": METHOD, "file": ARCHIVE}
        return json.dumps(config, indent=2, ensure_ascii=False) + "\n"


def open_folder(path: str | Path) -> ModelFolder:
    """Read a folder's config and the names of its tensors.

    Raises:
        TersorError: it is no folder, lacks config.json or weights, holds an adapter, its weights are quantized
            already, or what `open_checkpoint` raises.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise TersorError(f"{folder} is not a folder; give one with {CONFIG} and model.safetensors")
    config = _config(folder)
    names = {entry.name for entry in folder.iterdir()}
    if "adapter_config.json" in names:
        raise TersorError(f"{folder} holds an adapter; merge it into its model and save that first")
    weights = next((name for name in WEIGHTS if name in names), None)
    if weights is None:
        raise TersorError(f"{folder} has none of {', '.join(WEIGHTS)}; save the model with save_pretrained first")
    checkpoint = open_checkpoint(folder / weights)
    shards = {path.name for path in folder.glob("model-*.safetensors")}
    shown = sorted(name for name in names - shards - {*WEIGHTS, CONFIG} if not name.startswith("."))
    others = tuple(n for n in shown if (folder / n).is_file() and not n.lower().endswith(_NOT_COPIED))
    left_out = tuple(n + "/" * (folder / n).is_dir() for n in shown if n not in others)
    return ModelFolder(folder, config, checkpoint, others, left_out)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise TersorError(f"{folder} has no {CONFIG}; save the model with save_pretrained first")
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise TersorError(f"{path} is not JSON ({error}); get it again") from error
    except OSError as error:
        raise TersorError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error
    if not isinstance(config, dict):
        raise TersorError(f"{path} holds no object; get it again")
    quantized = config.get("quantization_config")
    if quantized is not None:
        method = quantized.get("quant_method") if isinstance(quantized, dict) else quantized
        raise TersorError(f"{folder} is quantized already, by {method}; give the folder with the original weights")
    return config
