"""What config.json says of a folder whose weights are an archive: its `quantization_config`."""

from __future__ import annotations

from typing import Any

from transformers.quantizers.auto import register_quantization_config
from transformers.utils.quantization_config import QuantizationConfigMixin

from tersor.errors import TersorError
from tersor.hf.source import ARCHIVE, METHOD


@register_quantization_config(METHOD)
class TersorConfig(QuantizationConfigMixin):
    """`{"quant_method": "tersor", "file": "model.tersor.safetensors"}`.

    Args:
        file: the archive's name in the folder; transformers wants it to end in `.safetensors`.

    Raises:
        TersorError: `file` is no name, or there are fields that this version does not know.
    """

    quant_method: Any

    def __init__(self, file: str = ARCHIVE, quant_method: str = METHOD, **unknown: Any) -> None:
        if unknown:
            raise TersorError(f"quantization_config has {', '.join(sorted(unknown))}, unknown here: upgrade tersor")
        if not isinstance(file, str) or not file:
            raise TersorError(f"quantization_config names {file!r} as its file; give the archive's name in the folder")
        self.quant_method = METHOD
        self.file = file
