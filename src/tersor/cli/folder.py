"""`tersor compress` from a folder of transformers to a folder that `from_pretrained` loads."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from tersor.errors import TersorError

if TYPE_CHECKING:
    from tersor.hf.source import ModelFolder


def folder_of(options: argparse.Namespace, processes: int) -> ModelFolder | None:
    """The folder that IN is, where OUT is to be one too: IN has a config.json and OUT is no `.tersor`; None elsewhere.

    Raises:
        TersorError: the folder lacks weights or is quantized already; transformers is missing; `--resume`, or several
            processes, which need one file to work at.
    """
    single = options.out.lower().endswith(".tersor")
    if single or not os.path.isfile(os.path.join(options.source, "config.json")):
        return None
    if options.resume or processes > 1:
        raise TersorError(
            f"--resume and torchrun make one file: give {options.out.rstrip(os.sep)}.tersor, then write the folder "
            "with tersor.hf.save_folder"
        )
    from tersor.hf.source import open_folder

    return open_folder(options.source)
