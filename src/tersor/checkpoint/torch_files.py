"""Reading what `torch.save` wrote, with `weights_only=True` and nothing else: no code of the file ever runs."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tersor.checkpoint.inventory import Checkpoint
from tersor.checkpoint.memory import from_mapping
from tersor.errors import TersorError

_RESAVE = "re-save its weights where they load: torch.save(model.state_dict(), path)"


def from_torch_file(path: Path) -> Checkpoint:
    """A checkpoint of a `.pt` file with a state dict, also when that lies under `state_dict` or `model`.

    Tensors stay on the disk, mapped, until they are read.

    Raises:
        TersorError: the file is damaged, needs more than `weights_only=True` allows, or holds no mapping of tensors.
    """
    content = _load(path)
    if not isinstance(content, Mapping):
        raise TersorError(f"{path} holds a {type(content).__name__} instead of a state dict; {_RESAVE}")
    return from_mapping(content, str(path))


def _load(path: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch warns of here is said by the errors below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=_can_be_mapped(path))
    except OSError as error:
        raise TersorError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error
    except pickle.UnpicklingError as error:
        needs = re.search(r"GLOBAL (\S+)", str(error))
        what = f"more than tensors ({needs[1]})" if needs else "no plain state dict"
        raise TersorError(f"{path} holds {what}, which is never loaded as it may run code; {_RESAVE}") from error
    except Exception as error:  # on damaged bytes torch raises nearly any type there is
        if "TorchScript" in str(error):
            raise TersorError(f"{path} holds a TorchScript program instead of a state dict; {_RESAVE}") from error
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise TersorError(f"{path} is damaged or was not written by torch.save ({reason}); get it again") from error


def _can_be_mapped(path: Path) -> bool:
    """Whether the file is of torch's zip form; a zip that was packed again with compression cannot be mapped."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return all(item.compress_type == zipfile.ZIP_STORED for item in archive.infolist())
