"""The hooks of transformers through which an archive is loaded: it becomes plain safetensors just in time."""

from __future__ import annotations

import shutil
import weakref
from typing import TYPE_CHECKING, Any

from transformers.quantizers.auto import register_quantizer
from transformers.quantizers.base import HfQuantizer

from tersor.api import open as open_archive
from tersor.errors import TersorError
from tersor.hf.config import TersorConfig
from tersor.hf.folder import check_passes
from tersor.hf.plain import decode_aside
from tersor.hf.source import METHOD

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

    from tersor.archive import Archive


@register_quantizer(METHOD)
class TersorQuantizer(HfQuantizer):
    """Gives transformers plain weights where it has found an archive, and the plain model back to the user.

    Everything that `from_pretrained` does for plain weights it therefore does here: names with and without the base
    model's prefix, names of older versions, merged and split tensors, dtypes, devices, ties, and its report of what is
    missing. transformers calls the methods in their order here.
    """

    quantization_config: TersorConfig
    _folder: weakref.finalize[..., Any]
    _shapes: dict[str, tuple[int, ...]]

    def __init__(self, quantization_config: TersorConfig, **kwargs: Any) -> None:
        """transformers makes one for each model that it loads.

        Raises:
            TersorError: the folder's weights are plain ones, and `from_pretrained` was given the config.
        """
        super().__init__(quantization_config, **kwargs)
        if not self.pre_quantized:
            raise TersorError("TersorConfig is of folders that tersor wrote; `tersor compress FOLDER OUT` makes one")

    def update_attn_implementation(self, config: PretrainedConfig) -> PretrainedConfig:
        """Name the file: this is the last hook before transformers looks for it."""
        config.transformers_weights = self.quantization_config.file
        return config

    update_tp_plan = update_attn_implementation  # the last such hook of the versions up to 5.20

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Take the dtype that was asked for, or config.json's."""
        if not dtype.is_floating_point:  # read off the archive's own two entries
            raise TersorError(f'config.json has no dtype: add "dtype": "float32" to it, or pass dtype= ({dtype} found)')
        return dtype

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, checkpoint_files: list[str] | None = None, **kwargs: Any
    ) -> PreTrainedModel:
        """Decode the archive to a plain file and put its path into the list that transformers reads from next."""
        vars(model.config).pop("transformers_weights", None)
        if not checkpoint_files:
            raise TersorError(f"transformers found no {self.quantization_config.file}; give the folder's path")
        archive = open_archive(checkpoint_files[0])
        check_passes(archive)
        _check_names(archive, model)
        self._shapes = _shapes(model)
        plain = decode_aside(archive)
        self._folder = weakref.finalize(model, shutil.rmtree, plain.parent, ignore_errors=True)  # at the latest, then
        checkpoint_files[0] = str(plain)
        self.pre_quantized = False  # from here on: some versions cast no weights that are quantized
        return model

    def postprocess_model(self, model: PreTrainedModel, **kwargs: Any) -> PreTrainedModel:
        """Leave a plain model; it keeps what transformers needs to save it under the names it was loaded from."""
        self._check_shapes(model)
        renamed = getattr(model, "_weight_conversions", None)
        self.remove_quantization_config(model)  # and that attribute with it
        if renamed is not None:
            model._weight_conversions = renamed
        if "disk" not in getattr(model, "hf_device_map", {}).values():
            self._folder()  # whatever is mapped of the file stays readable; modules left on the disk are read by name
        return model

    def _check_shapes(self, model: PreTrainedModel) -> None:
        """Refuse tensors of other shapes: versions up to 5.22 compare none where there is a quantizer, 5.24 does."""
        now = _shapes(model)
        wrong = [f"{name} {now[name]} for {shape}" for name, shape in self._shapes.items() if now.get(name) != shape]
        if wrong:
            told = ", ".join(wrong[:10]) + " …" * (len(wrong) > 10)
            raise TersorError(
                f"tensors of another shape than config.json says: {told}; give the config of these weights"
            )

    def is_serializable(self, *args: Any, **kwargs: Any) -> bool:
        """Whether models can be saved: as the plain ones they are."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Whether models can be trained: as the plain ones they are."""
        return True


def _check_names(archive: Archive, model: PreTrainedModel) -> None:
    """Refuse an archive of quite another model; where only some tensors differ, transformers reports them.

    The last two parts of names are compared: what comes before them differs between a model and its heads.
    """
    own = list(model.state_dict())
    if {_end(name) for name in own}.isdisjoint(map(_end, archive)):
        raise TersorError(
            f"{archive.name} does not fit {type(model).__name__}: it holds {', '.join(list(archive)[:10])}, and the "
            f"model has {', '.join(own[:10])}; config.json is of another model"
        )


def _end(name: str) -> str:
    return ".".join(name.split(".")[-2:])


def _shapes(model: PreTrainedModel) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items() if hasattr(value, "shape")}
