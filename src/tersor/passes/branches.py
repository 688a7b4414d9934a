"""Residual branches that an identity shortcut bridges: what can be removed as a whole.

Source: Wen et al., 2016, section 3.2 (depth). Ours: how they are found, in the flow of the network.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx, nn
from torch.nn.modules.conv import _ConvNd

from tersor.errors import TersorError
from tersor.passes.flow import Flow, operation
from tersor.structure.gone import gone

_QUIET = {"relu", "relu6", "leakyrelu", "prelu", "elu", "celu", "silu", "gelu", "mish", "hardswish", "tanh", "identity"}
"""f(0) = 0."""


@dataclass(frozen=True)
class Branch:
    """Modules between a value and its sum with itself.

    Attributes:
        layers: paths of linear and convolution layers, in order.
        modules: paths of all modules that have tensors, in order.
    """

    layers: tuple[str, ...]
    modules: tuple[str, ...]


def branches(flow: Flow, exclude: tuple[str, ...] = ()) -> list[Branch]:
    """All branches x + f(x) in which f is a chain of modules and functions that answer zeros with zeros once gone."""
    found = []
    for node in flow.nodes:
        ends = flow.sources(node)
        if operation(node) != "add" or len(ends) != 2:
            continue
        for end, start in (ends, reversed(ends)):
            branch = _between(flow, end, start, node, exclude)
            if branch is not None:
                found.append(branch)
                break
    return found


def _between(flow: Flow, end: fx.Node, start: fx.Node, total: fx.Node, exclude: tuple[str, ...]) -> Branch | None:
    """The branch from one node to another, if it is a chain of what can go."""
    layers, modules = [], []
    at, after = end, total
    while at is not start:
        module, before = flow.module(at), flow.sources(at)
        if len(before) != 1 or flow.readers(at) != [after]:
            return None
        path = str(at.target)
        if module is not None and any(True for _ in (*module.parameters(), *module.buffers())):
            try:
                gone(module)
            except TersorError:
                return None
            if flow.why_not(path, exclude):
                return None
            modules.append(path)
            if isinstance(module, (nn.Linear, _ConvNd)):
                layers.append(path)
        elif not _quiet(at, module):
            return None
        at, after = before[0], at
    return Branch(tuple(layers[::-1]), tuple(modules[::-1])) if layers else None


def _quiet(node: fx.Node, module: nn.Module | None) -> bool:
    name = (type(module).__name__ if module is not None else operation(node)).lower().replace("_", "")
    return name in _QUIET or name.startswith(("dropout", "featuredropout"))
