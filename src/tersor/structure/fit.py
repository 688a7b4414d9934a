"""A user's module of the original class made to fit a file whose network was changed by passes.

All that passes do to a network shows in names and shapes: a layer with fewer channels has smaller tensors, a factorized
one has `.0.weight` and `.1.weight`, one that is gone has none, one whose inputs are integers has an `input_grid`. So
the file needs no description of the change, and the module none but its own class.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from tersor.errors import TersorError
from tersor.structure.factored import chain_like
from tersor.structure.gone import gone
from tersor.structure.inputs import BUFFER, grid_of, quantize_inputs
from tersor.structure.resize import resize_

Shapes = Mapping[str, tuple[int, ...]]

RESIZES, FACTORS, FOLDS, BRANCHES, GRIDS = (
    {"merge", "ssl", "channels"},
    {"lowrank", "factorize"},
    {"fold"},
    {"ssl"},
    {"quantize"},
)
"""Passes that leave layers of other sizes, chains, norms that are gone, branches that are gone, inputs on a grid."""

STRUCTURAL = frozenset().union(RESIZES, FACTORS, FOLDS, BRANCHES, GRIDS)


def fit_(model: nn.Module, shapes: Shapes, passes: Collection[str] = STRUCTURAL) -> bool:
    """Change modules of `model`, in place, so that its state dict has these names and shapes; all or nothing.

    Args:
        model: of the class that passes started from (or one that fits already, which is left as it is).
        shapes: of all tensors by name.
        passes: names of those that the network went through: nothing is changed that none of them does.

    Returns:
        Whether it was changed: not if it fits as it is, or cannot be made to fit; whoever compares names tells that.
    """
    if _shapes(model) == dict(shapes) or STRUCTURAL.isdisjoint(passes):
        return False
    trial = copy.deepcopy(model)
    try:
        _fit(trial, shapes, set(passes))
    except TersorError:
        return False
    if _shapes(trial) != dict(shapes):
        return False
    _fit(model, shapes, set(passes))
    return True


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def _fit(model: nn.Module, shapes: Shapes, passes: set[str]) -> None:
    own = _shapes(model)
    for path, module in list(model.named_modules(remove_duplicate=False)):
        mine = {**module._parameters, **module._buffers}
        saved = [leaf for leaf, value in mine.items() if value is not None and _join(path, leaf) in own]
        if not saved or model.get_submodule(path) is not module:
            continue
        given = {name[len(path) + 1 :] if path else name: shape for name, shape in shapes.items() if _under(name, path)}
        direct = {leaf: shape for leaf, shape in given.items() if "." not in leaf}
        if path and not direct and "0.weight" in given and passes & FACTORS:
            _put(model, path, chain_like(module, {leaf: s for leaf, s in given.items() if BUFFER not in leaf}))
        elif path and not given and passes & (FOLDS if isinstance(module, _NormBase) else set()) | passes & BRANCHES:
            _put(model, path, gone(module))
        elif given:
            _resize(module, saved, direct, passes)
    for name in shapes:
        path, _, leaf = name.rpartition(".")
        if leaf == BUFFER and name not in own and _has(model, path) and passes & GRIDS:
            quantize_inputs(model.get_submodule(path), grid_of(0, 1, 8))


def _resize(module: nn.Module, saved: list[str], given: Mapping[str, tuple[int, ...]], passes: set[str]) -> None:
    """Give a module's own tensors the file's shapes, where a pass could have made them so."""
    mine = {**module._parameters, **module._buffers}
    shapes = {leaf: tuple(v.shape) for leaf, v in mine.items() if isinstance(v, torch.Tensor) and leaf in saved}
    wanted = {leaf: shape for leaf, shape in given.items() if leaf != BUFFER}
    if shapes.keys() - wanted.keys() or all(shapes.get(leaf) == shape for leaf, shape in wanted.items()):
        return  # what is missing is told by whoever compares names
    grown = {leaf for leaf, shape in wanted.items() if shapes.get(leaf) != shape}
    if passes & RESIZES or (passes & FOLDS and grown == {"bias"} and "bias" not in shapes):
        resize_(module, wanted)


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    owner, _, leaf = path.rpartition(".")
    setattr(model.get_submodule(owner), leaf, module)


def _has(model: nn.Module, path: str) -> bool:
    try:
        model.get_submodule(path)
    except AttributeError:
        return False
    return True


def _under(name: str, path: str) -> bool:
    return not path or name.startswith(f"{path}.")


def _join(path: str, leaf: str) -> str:
    return f"{path}.{leaf}" if path else leaf
