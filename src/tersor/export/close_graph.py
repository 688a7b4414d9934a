"""The graph closed again: weights in place of what was open, short names, and no second copy of anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tersor.archive import Archive
from tersor.errors import TersorError
from tersor.export.graph import Builder, Names
from tersor.export.open_graph import taken_names
from tersor.export.weights import initializer

if TYPE_CHECKING:
    import onnx
    import torch

_LARGE = 1024
"""Elements from which a constant may be a copy of a weight."""


def close(proto: onnx.ModelProto, build: Builder, dense: dict[str, torch.Tensor]) -> None:
    """Close the graph: decoding nodes first, plain tensors as initializers."""
    inputs = [v for v in proto.graph.input if v.name not in {o for n in build.nodes for o in n.output} | dense.keys()]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*build.nodes, *nodes])
    proto.graph.initializer.extend(build.initializers)
    for name, value in dense.items():
        proto.graph.initializer.append(initializer(name, value))


def compact(proto: onnx.ModelProto) -> None:
    """Short names for what is between, none for nodes, no notes: a graph of codes is otherwise mostly words."""
    kept = {v.name for v in (*proto.graph.input, *proto.graph.output)}
    if any(a.type in (5, 10) for n in proto.graph.node for a in n.attribute):  # subgraphs see outer names
        kept |= taken_names(proto)
    names = Names(kept | {i.name for i in proto.graph.initializer} | {""})
    short: dict[str, str] = {}
    initial = {i.name for i in proto.graph.initializer}
    for node in proto.graph.node:
        node.name, node.doc_string = "", ""
        del node.metadata_props[:]
        for field in (node.input, node.output):
            for k, name in enumerate(field):
                if name and name not in kept and name not in initial:
                    if name not in short:
                        short[name] = names()
                    field[k] = short[name]
    del proto.graph.value_info[:]
    del proto.graph.metadata_props[:]
    del proto.metadata_props[:]
    proto.doc_string = proto.graph.doc_string = ""
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]


def check_no_copies(proto: onnx.ModelProto, archive: Archive, own: set[str]) -> None:
    """Make sure that no coded tensor is in the graph dense, but for those of these names, which are so on purpose.

    Raises:
        TersorError: there is a constant as large as a coded tensor that the archive does not keep; names it and who
            takes it.
    """
    sizes = {archive.entries[i].numel for members in archive.index.coded for i in members}
    users: dict[str, str] = {}
    for node in proto.graph.node:
        for name in node.input:
            users.setdefault(name, node.op_type)
    for tensor in proto.graph.initializer:
        floats = tensor.data_type in (1, 10, 11, 16)
        count = int(np.prod(tensor.dims)) if tensor.dims else 1
        if floats and tensor.name not in own and count >= _LARGE and count in sizes:
            raise TersorError(
                f"the graph holds a dense copy of a coded weight: {tensor.name} {list(tensor.dims)}, taken by "
                f"{users.get(tensor.name, 'nothing')}; export with --dense, or exclude the layer when compressing"
            )
