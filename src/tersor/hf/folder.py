"""Writing a folder that `from_pretrained` loads: an archive, its config.json, and all that lies beside the weights."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tersor.api import compress
from tersor.api import open as open_archive
from tersor.archive import Archive
from tersor.errors import TersorError
from tersor.files import atomic_folder
from tersor.hf.source import ARCHIVE, CONFIG, ModelFolder, open_folder
from tersor.structure.fit import STRUCTURAL

if TYPE_CHECKING:
    import torch

    from tersor.checkpoint import Checkpoint
    from tersor.recipe import Recipe
    from tersor.representations.control import Progress


def compress_folder(
    folder: str | os.PathLike[str] | ModelFolder,
    out: str | os.PathLike[str],
    recipe: Recipe,
    *,
    importance: Mapping[str, torch.Tensor] | Checkpoint | None = None,
    progress: Progress | None = None,
    force: bool = False,
    memory: int | str | None = None,
    device: str = "cpu",
) -> Archive:
    """Compress a folder of transformers to one that `from_pretrained` loads; all of it is there, or nothing.

    The archive takes the place of the weights (`model.safetensors`, its shards, or `pytorch_model.bin`), config.json
    gets a `quantization_config`, and the other files are copied; folders inside, hidden files and weights of other
    kinds are not.

    Args:
        folder: as `save_pretrained` writes it, or what `open_folder` has read of it.
        out: the folder to make.
        recipe: the target and how to get there; ratio and bpp refer to the tensors. No passes.
        importance, progress, memory, device: as for `tersor.compress`.
        force: replace `out`, if it holds nothing but files of the names that are written now.

    Returns:
        The archive in the new folder.

    Raises:
        TersorError: the folder lacks config.json or weights, or is quantized already; the recipe has passes; `out`
            cannot be written; and what `tersor.compress` raises.
    """
    source = folder if isinstance(folder, ModelFolder) else open_folder(os.fspath(folder))
    if recipe.passes:
        raise TersorError(
            f"passes need the network, and {source.path} has tensors: compress the module itself "
            "(tersor.compress), then write the folder with tersor.hf.save_folder"
        )
    with _made(source, out, force) as made:
        compress(
            source.checkpoint, recipe, importance=importance, progress=progress, out=made / ARCHIVE, memory=memory,
            device=device,
        )  # fmt: skip
    return open_archive(Path(out, ARCHIVE))


def save_folder(
    archive: Archive, folder: str | os.PathLike[str], out: str | os.PathLike[str], *, force: bool = False
) -> int:
    """Write a folder as `compress_folder` does, around an archive that is there: tuned, say, or made by many processes.

    Args:
        archive: of the weights of the model in `folder`, by the names they have there.
        folder: as `save_pretrained` writes it.
        out: the folder to make.
        force: as for `compress_folder`.

    Returns:
        The archive's bytes.

    Raises:
        TersorError: as `compress_folder`; names or shapes differ from the folder's (at most ten are told), or
            passes changed the network.
    """
    source = open_folder(os.fspath(folder))
    check_passes(archive)
    given = {entry.name: entry.shape for entry in source.checkpoint.entries}
    there = {entry.name: entry.shape for entry in archive.entries}
    if given != there:
        differ = sorted(name for name in given.keys() | there.keys() if given.get(name) != there.get(name))
        told = ", ".join(differ[:10]) + " …" * (len(differ) > 10)
        raise TersorError(f"{archive.name} and {source.path} differ in names or shapes: {told}")
    with _made(source, out, force) as made:
        return archive.save(made / ARCHIVE)


def check_passes(archive: Archive) -> None:
    """Refuse archives whose tensors do not fit the config's model.

    Raises:
        TersorError: passes changed layers.
    """
    changed = [text for text in archive.passes if text.partition("(")[0] in STRUCTURAL]
    if changed:
        raise TersorError(
            f"{archive.name}: {', '.join(changed)} changed the network, and config.json cannot tell so; "
            "load it with archive.apply_(model)"
        )


@contextmanager
def _made(source: ModelFolder, out: str | os.PathLike[str], force: bool) -> Iterator[Path]:
    """A folder with everything but the archive, which the block writes."""
    names = {*source.others, CONFIG, ARCHIVE}
    if os.path.realpath(out) == os.path.realpath(source.path):
        raise TersorError(f"{os.fspath(out)} is the input itself; give another folder")
    with atomic_folder(out, force=force, ours=names.__contains__) as made:
        (made / CONFIG).write_text(source.new_config(), encoding="utf-8")
        for name in source.others:
            shutil.copyfile(source.path / name, made / name)
        yield made
