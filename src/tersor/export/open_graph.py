"""The graph whose weights an archive holds, opened: traced from a module, or read from the file that was compressed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tersor.archive import Archive
from tersor.errors import TersorError
from tersor.export.traced import check_opset, simplify, trace

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn


Opened = tuple["onnx.ModelProto", dict[str, str], dict[str, int]]
"""A graph, which tensor of the archive each open name is, and the graph's number of its type."""


def traced(archive: Archive, model: nn.Module, inputs: Sequence[torch.Tensor], opset: int) -> Opened:
    """The module's graph, its parameters opened."""
    from tersor.user.calls import copied

    network = archive.apply_(copied(model))
    proto = trace(network, inputs, opset)
    own = {id(value): name for name, value in reversed(list(network.state_dict(keep_vars=True).items()))}
    first = {name: own[id(value)] for name, value in network.state_dict(keep_vars=True).items()}
    tensors = {i.name: i for i in proto.graph.initializer}
    names = {name: first[name] for name in tensors if first.get(name) in archive}
    used = {first[name] for name in names}
    coded = {archive.entries[i].owner for members in archive.index.coded for i in members}
    for name, value in network.named_parameters():
        if name in coded and name in first and first[name] not in used and not _unused(network, name, inputs):
            raise TersorError(
                f"{name} {tuple(value.shape)} is not in the exported graph: {_taker(network, name)} exports it in "
                "another form, dense; export with --dense, or exclude it when compressing"
            )
    shapes = {entry.name: entry.shape for entry in archive.entries}
    for name in names:
        if tuple(tensors[name].dims) != shapes[first[name]]:
            raise TersorError(f"{name} has another shape in the exported graph; export with --dense")
    kinds = {name: tensors[name].data_type for name in names}
    return simplify(proto, set(names)), names, kinds


def _taker(network: nn.Module, name: str) -> str:
    """The module whose parameter it is, for messages."""
    path = name.rpartition(".")[0]
    return f"{type(network.get_submodule(path)).__name__} {path!r}" if path else type(network).__name__


def _unused(network: nn.Module, name: str, inputs: Sequence[torch.Tensor]) -> bool:
    """Whether the output does not depend on a parameter: then it is rightly not in the graph."""
    import torch
    from torch.utils._pytree import tree_leaves

    value = network.get_parameter(name)
    before = value.detach().clone()
    with torch.no_grad():
        value.fill_(float("nan"))
        out = network.eval()(*inputs)
        value.copy_(before)
    found = [v for v in tree_leaves(out) if isinstance(v, torch.Tensor)]
    return not any(v.is_floating_point() and bool(v.isnan().any()) for v in found)


def given(archive: Archive, graph: str | os.PathLike[str], form: str) -> Opened:
    """The graph of a file, the initializers that the archive holds taken out."""
    from tersor.checkpoint.onnx_files import load_onnx

    proto = load_onnx(graph)
    check_opset(opset_of(proto), form)
    tensors = {i.name: i for i in proto.graph.initializer}
    wrong = [e.name for e in archive.entries if e.name not in tensors or tuple(tensors[e.name].dims) != e.shape]
    if wrong:
        told = ", ".join(wrong[:10]) + " …" * (len(wrong) > 10)
        raise TersorError(f"{os.fspath(graph)} does not fit {archive.name}: missing or of another shape: {told}")
    kinds = {name: tensors[name].data_type for name in archive}
    for name in archive:
        proto.graph.initializer.remove(tensors[name])
    return proto, {entry.name: entry.owner for entry in archive.entries}, kinds


def taken_names(graph: onnx.GraphProto) -> set[str]:
    """All names of values in a graph, and in those inside it."""
    found = {v.name for v in (*graph.input, *graph.output, *graph.initializer)}
    found |= {v.values.name for v in graph.sparse_initializer}
    for node in graph.node:
        found.update(node.input, node.output)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    found |= taken_names(inner)
    return found


def opset_of(proto: onnx.ModelProto) -> int:
    """The version of ONNX's own operators."""
    return next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 1)
