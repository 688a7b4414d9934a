"""Hugging Face transformers: folders whose weights are one archive, and `from_pretrained` that loads them.

`import tersor.hf` tells transformers what `"quant_method": "tersor"` in a config.json means; it has no way to find that
out by itself. Any `AutoModel...from_pretrained(folder)` then loads such folders. What it returns is a plain model: its
weights are what `Archive.apply_` loads, and `save_pretrained` writes them as plain weights.

Raises:
    TersorError: transformers is missing, or older than version 5.
"""

from __future__ import annotations

from importlib.util import find_spec

from tersor.errors import TersorError

_INSTALL = 'pip install "tersor[hf]"'

if find_spec("transformers") is None:
    raise TersorError(f"tersor.hf needs transformers 5 or later: {_INSTALL}")
import transformers  # noqa: E402

if int(transformers.__version__.partition(".")[0]) < 5:
    raise TersorError(f"tersor.hf needs transformers 5 or later, and {transformers.__version__} is there: {_INSTALL}")

from tersor.hf.config import TersorConfig  # noqa: E402
from tersor.hf.folder import compress_folder, save_folder  # noqa: E402
from tersor.hf.quantizer import TersorQuantizer  # noqa: E402

__all__ = ["TersorConfig", "TersorQuantizer", "compress_folder", "save_folder"]
