"""The graph closed again: weights in place of what was open, short names, and no second copy of anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tersor.archive import Archive
from tersor.errors import TersorError
from tersor.export.copies import copy_of
from tersor.export.graph import Builder, Names
from tersor.export.open_graph import taken_names
from tersor.export.weights import initializer

if TYPE_CHECKING:
    import onnx
    import torch


def close(proto: onnx.ModelProto, build: Builder, dense: dict[str, torch.Tensor], kinds: dict[str, int]) -> None:
    """Close the graph: decoding nodes first, plain tensors as initializers."""
    inputs = [v for v in proto.graph.input if v.name not in {o for n in build.nodes for o in n.output} | dense.keys()]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*build.nodes, *nodes])
    proto.graph.initializer.extend(build.initializers)
    for name, value in dense.items():
        proto.graph.initializer.append(initializer(name, value, kinds[name]))


def compact(proto: onnx.ModelProto) -> None:
    """Short names for what is between, none for nodes, no notes: a graph of codes is otherwise mostly words."""
    kept = {v.name for v in (*proto.graph.input, *proto.graph.output)}
    kept |= {v.values.name for v in proto.graph.sparse_initializer}
    if any(a.type in (5, 10) for n in proto.graph.node for a in n.attribute):  # subgraphs see outer names
        kept |= taken_names(proto.graph)
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
    proto.doc_string = proto.graph.doc_string = ""
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]


def check_no_copies(proto: onnx.ModelProto, archive: Archive, own: set[str], state: dict[str, torch.Tensor]) -> None:
    """Make sure that no coded tensor is in the graph dense, but for those of these names, which are so on purpose.

    Raises:
        TersorError: a constant is a copy of a coded tensor; names it and who takes it.
    """
    import torch
    from onnx import numpy_helper

    users: dict[str, str] = {}
    for node in proto.graph.node:
        for name in node.input:
            users.setdefault(name, node.op_type)
    floats = [i for i in proto.graph.initializer if i.data_type in (1, 10, 11) and i.name not in own]
    floats += [
        a.t for n in proto.graph.node if n.op_type == "Constant" for a in n.attribute if a.t.data_type in (1, 10, 11)
    ]
    for tensor in floats:
        found = copy_of(archive, state, torch.from_numpy(numpy_helper.to_array(tensor).copy()))
        if found is not None:
            raise TersorError(
                f"the graph holds a dense copy of {found}: a constant {list(tensor.dims)} taken by "
                f"{users.get(tensor.name, 'Constant')}; export with --dense, or exclude the layer when compressing"
            )
