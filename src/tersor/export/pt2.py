"""Programs of torch.export that hold codes: `.pt2` files which torch loads without tersor."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tersor.archive import Archive
from tersor.errors import TersorError
from tersor.export.copies import copy_of
from tersor.export.traced import quiet, said
from tersor.files import atomic_output
from tersor.lazy.network import CHILD

if TYPE_CHECKING:
    import torch
    from torch import nn

_NOTES = ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn", "custom")
"""What torch notes of a node for people who debug it; most of a small file otherwise."""


@dataclass(frozen=True)
class Program:
    """What was written: bytes of the file, and of the largest tensor in it."""

    size: int
    largest: int


def export_pt2(
    archive: Archive,
    out: str | os.PathLike[str],
    model: nn.Module,
    inputs: Sequence[torch.Tensor],
    *,
    force: bool = False,
) -> Program:
    """Write the network as a program of torch.export whose weights are decoded from codes where they are used.

    `torch.export.load(out).module()` runs it; its graph is the text of the file, compressed.

    Args:
        archive: what `compress` made.
        out: the .pt2 file to write.
        model: of the class whose parameters were compressed; it is not changed.
        inputs: example inputs, in order.
        force: replace `out`.

    Raises:
        TersorError: the model does not fit the archive, torch cannot export it (its own words follow), or a dense copy
            of a coded weight got in.
    """
    import torch

    from tersor.lazy.network import lazy

    network = lazy(model, archive)
    try:
        with torch.no_grad(), quiet():
            program = torch.export.export(network, tuple(inputs))
    except Exception as error:
        raise TersorError(f"torch cannot export {type(model).__name__}: {said(error)}") from error
    for node in program.graph.nodes:
        for note in _NOTES:
            node.meta.pop(note, None)
    held = {**program.state_dict, **program.constants}
    _check(archive, {name: value for name, value in held.items() if isinstance(value, torch.Tensor)})
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.pt2"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.save(program, plain)
        with atomic_output(out, force=force) as file:
            _compress(plain, Path(folder) / "small.pt2")
            with open(Path(folder) / "small.pt2", "rb") as made:
                shutil.copyfileobj(made, file)
            size = file.tell()
    return Program(size, max((v.nbytes for v in held.values() if isinstance(v, torch.Tensor)), default=0))


def _check(archive: Archive, held: dict[str, torch.Tensor]) -> None:
    """No tensor of the program is a coded weight.

    Raises:
        TersorError: one is, in floats.
    """
    state = archive.state_dict()
    for name, value in held.items():
        if f".{CHILD}." in f".{name}" or not value.is_floating_point():
            continue  # codes and codebooks
        found = copy_of(archive, state, value)
        if found is not None:
            raise TersorError(f"the program holds a dense copy of {found}, {name}; export plain weights instead")


def _compress(plain: Path, small: Path) -> None:
    """The same archive of torch with its texts deflated; tensors stay as they are."""
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(small, "w") as target:
        for entry in source.infolist():
            how = zipfile.ZIP_DEFLATED if entry.filename.endswith(".json") else zipfile.ZIP_STORED
            entry.date_time = (1980, 1, 1, 0, 0, 0)
            target.writestr(entry, source.read(entry.filename), compress_type=how)
