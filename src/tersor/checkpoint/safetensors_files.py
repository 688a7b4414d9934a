"""Reading `.safetensors`: one file, or the shards that an `*.index.json` lists.

The file is validated by the safetensors library; its header is then read once more as JSON because only the header
has the tensors in the order in which they were saved. No torch until the first tensor is read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Hashable, Mapping
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from tersor.checkpoint.header import TIES_KEY, TORCH_NAMES, to_torch_shape
from tersor.checkpoint.inventory import Checkpoint, Entry, tie
from tersor.errors import TersorError

if TYPE_CHECKING:
    import torch

_CHUNK = 1 << 20
_PAGES, _PAGE = 64, 1 << 12


def from_safetensors(path: Path) -> Checkpoint:
    """A checkpoint of one `.safetensors` file; its tensors are read one at a time, when asked for.

    Raises:
        TersorError: the file is damaged, holds no tensors or a dtype unknown here, or its ties make no sense.
    """
    file = _File(path)
    if not file.entries:
        raise TersorError(f"{path} holds no tensors; give a file with a network's weights")
    entries = tie((entry, file.keys[name]) for name, entry in file.entries.items())
    return Checkpoint(str(path), entries, file.load, (), file.load_part, lambda: {path.name: file.identity()})


def from_index(path: Path) -> Checkpoint:
    """A checkpoint of the `.safetensors` shards beside an index, in the order of the index.

    What a shard holds beyond the index is named in `skipped`.

    Raises:
        TersorError: the index is no such JSON, leads out of its folder, or lists a shard or a tensor that is missing.
    """
    places = _weight_map(path)
    files: dict[str, _File] = {}
    for shard in dict.fromkeys(places.values()):
        if not os.path.isfile(path.parent / shard):
            raise TersorError(f"{path.parent / shard} is missing, though {path.name} lists it; get all the shards")
        files[shard] = _File(path.parent / shard)
    for name, shard in places.items():
        if name not in files[shard].entries:
            raise TersorError(f"{path} puts tensor {name!r} in {shard}, which does not hold it; get both files again")
    keyed = ((files[shard].entries[name], (shard, files[shard].keys[name])) for name, shard in places.items())
    skipped = [name for shard, file in files.items() for name in file.entries if places.get(name) != shard]

    def load(name: str) -> torch.Tensor:
        return files[places[name]].load(name)

    def load_part(name: str, start: int, stop: int) -> torch.Tensor:
        return files[places[name]].load_part(name, start, stop)

    def identity() -> dict[str, Any]:
        return {shard: file.identity() for shard, file in files.items()}

    return Checkpoint(str(path), tie(keyed), load, tuple(skipped), load_part, identity)


def _weight_map(index: Path) -> dict[str, str]:
    try:
        content = json.loads(index.read_bytes())
    except (ValueError, RecursionError) as error:
        raise TersorError(f"{index} is not JSON ({error}); get the index again") from error
    except OSError as error:
        raise TersorError(f"cannot read {index}: {error.strerror}; check the path and its permissions") from error
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(shard, str) for shard in places.values()):
        raise TersorError(f"{index} has no 'weight_map' of tensor names to file names; give a safetensors index")
    for shard in places.values():
        parts = PureWindowsPath(shard)  # knows both separators, and drives
        if parts.anchor or ".." in parts.parts or "\0" in shard:
            raise TersorError(f"{index} leads out of its folder ({shard!r}); refuse such files or correct the index")
        if parts.suffix.lower() != ".safetensors":
            raise TersorError(f"{index} lists {shard!r}, which is not .safetensors; convert the shards first")
    return places


def _stamp(found: os.stat_result) -> tuple[int, int]:
    """Size and time of the last change."""
    return found.st_size, found.st_mtime_ns


class _File:
    """One validated safetensors file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        header = self._header()
        metadata = header.pop("__metadata__", None) or {}
        self._spans: dict[str, tuple[int, int]] = {name: tuple(info["data_offsets"]) for name, info in header.items()}
        self.entries = {name: self._entry(name, info) for name, info in header.items()}
        owners = self._owners(metadata[TIES_KEY]) if TIES_KEY in metadata else {}
        self.keys: dict[str, Hashable] = {name: owners.get(name, name) for name in self.entries}
        """Equal for tensors that are tied."""

    def load(self, name: str) -> torch.Tensor:
        """One tensor, read into memory of its own: a mapping of the file would stay resident beside it."""
        entry, (start, stop) = self.entries[name], self._spans[name]
        return self._read(entry.dtype, start, stop).reshape(entry.shape)

    def load_part(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Elements [start, stop) of one tensor, flat."""
        entry, (first, last) = self.entries[name], self._spans[name]
        width = (last - first) // max(entry.numel, 1)
        return self._read(entry.dtype, first + start * width, min(first + stop * width, last))

    def _read(self, dtype: str, start: int, stop: int) -> torch.Tensor:
        import torch

        data = bytearray(stop - start)
        try:
            with open(self.path, "rb") as file:
                file.seek(self._data_start + start)
                read = file.readinto(data)
                now = _stamp(os.fstat(file.fileno()))
        except OSError as error:
            raise TersorError(
                f"cannot read {self.path}: {error.strerror or error}; check the path and its permissions"
            ) from error
        if read != len(data):
            raise TersorError(f"{self.path} was cut short while it was read; get it again")
        if now != self._stamp:
            raise TersorError(f"{self.path} was changed while it was read; begin again with a file that stays as it is")
        kind = getattr(torch, dtype)
        return torch.frombuffer(data, dtype=kind) if data else torch.empty(0, dtype=kind)

    def identity(self) -> dict[str, Any]:
        """Size, when it was last changed, and a digest of the header and of a few pages: not of all values."""
        size, changed = self._stamp
        digest = hashlib.sha256()
        with open(self.path, "rb") as file:
            digest.update(file.read(self._data_start))
            for i in range(_PAGES):
                file.seek(self._data_start + (size - self._data_start) * i // _PAGES)
                digest.update(file.read(_PAGE))
        return {"bytes": size, "changed": changed, "digest": digest.hexdigest()[:16]}

    def _open(self, framework: str) -> Any:
        from safetensors import SafetensorError, safe_open

        try:
            return safe_open(self.path, framework=framework)
        except SafetensorError as error:
            raise TersorError(f"{self.path} is damaged or no safetensors file ({error}); get it again") from error
        except OSError as error:
            raise TersorError(
                f"cannot read {self.path}: {error.strerror or error}; check the path and its permissions"
            ) from error

    def _header(self) -> dict[str, Any]:
        if os.path.getsize(self.path) == 0:
            raise TersorError(f"{self.path} is empty; get it again")
        self._open("np")  # refuses whatever is damaged, so that what follows can rely on the header
        with open(self.path, "rb") as file:
            self._stamp = _stamp(os.fstat(file.fileno()))
            self._data_start = 8 + int.from_bytes(file.read(8), "little")
            return json.loads(file.read(self._data_start - 8))

    def _entry(self, name: str, info: Mapping[str, Any]) -> Entry:
        dtype = TORCH_NAMES.get(info["dtype"])
        if dtype is None:
            raise TersorError(
                f"{self.path}: tensor {name!r} has dtype {info['dtype']}, which torch does not know; convert it first"
            )
        try:
            return Entry(name, dtype, to_torch_shape(dtype, info["shape"]))
        except ValueError as error:
            raise TersorError(f"{self.path}: tensor {name!r}: {error}; save the file again") from error

    def _owners(self, text: str) -> dict[str, str]:
        """Owner of each tied name. Bytes decide: an alias changed since it was written is a tensor of its own."""
        try:
            ties = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise TersorError(f"{self.path}: metadata {TIES_KEY!r} is not JSON; save the file again") from error
        if not isinstance(ties, dict) or not all(isinstance(owner, str) for owner in ties.values()):
            raise TersorError(f"{self.path}: metadata {TIES_KEY!r} must map names to names; save the file again")
        for alias, owner in ties.items():
            left, right = self.entries.get(alias), self.entries.get(owner)
            if left is None or right is None or owner in ties:
                raise TersorError(f"{self.path}: the tie of {alias!r} to {owner!r} leads nowhere; save the file again")
            if (left.dtype, left.shape) != (right.dtype, right.shape):
                raise TersorError(
                    f"{self.path}: {alias!r} and {owner!r} are tied but differ in dtype or shape; save the file again"
                )
        return {alias: owner for alias, owner in ties.items() if self._same_bytes(alias, owner)}

    def _same_bytes(self, left: str, right: str) -> bool:
        (start, stop), (other, _) = self._spans[left], self._spans[right]
        with open(self.path, "rb") as a, open(self.path, "rb") as b:
            a.seek(self._data_start + start)
            b.seek(self._data_start + other)
            sizes = (min(_CHUNK, stop - at) for at in range(start, stop, _CHUNK))
            return all(a.read(size) == b.read(size) for size in sizes)
