"""Weights in a graph: nodes that decode codes, integers with scales, or plain initializers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tersor.archive import Archive
from tersor.export.decoding import decode
from tersor.export.graph import Builder
from tersor.index import DTYPES
from tersor.packed.groups import pack

if TYPE_CHECKING:
    import onnx
    import torch


def codes_in(archive: Archive, build: Builder, names: dict[str, str]) -> tuple[set[str], int]:
    """Nodes that decode what is coded, by the graph's names: those done, and bytes of codes and codebooks."""
    index = archive.index
    graph_name = {owner: name for name, owner in reversed(names.items())}
    done, size = set(), 0
    for group in pack(archive):
        wanted = [i for i in group.tensors if index.names[i] in graph_name]
        if not wanted:
            continue
        outs = {}
        for i in group.tensors:
            name = graph_name.get(index.names[i])
            plain = DTYPES[index.dtypes[i]] == "float32" and name is not None
            outs[i] = name if plain and name is not None else build.names()
        decode(build, group, outs)
        for i in wanted:
            name = graph_name[index.names[i]]
            if outs[i] != name:
                _typed(build, outs[i], DTYPES[index.dtypes[i]], name)
            done.add(name)
        size += group.nbytes
    for name, owner in names.items():  # one tensor under several names
        if graph_name[owner] != name and graph_name[owner] in done:
            build.add("Identity", graph_name[owner], out=name)
            done.add(name)
    return done, size


def _typed(build: Builder, value: str, dtype: str, out: str) -> None:
    """Float32 in the type the tensor came in."""
    from onnx import TensorProto

    if dtype == "float16":
        bound = np.array(65504, dtype=np.float32)
        value = build.add("Clip", value, build.constant(-bound), build.constant(bound))
    kinds = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16, "float64": TensorProto.DOUBLE}
    build.add("Cast", value, out=out, to=kinds[dtype])


def int8_in(
    archive: Archive, build: Builder, names: dict[str, str], state: dict[str, torch.Tensor]
) -> tuple[set[str], int]:
    """DequantizeLinear of a byte per weight and a scale per row for what is coded."""
    from tersor.int8 import quantize_rows

    index = archive.index
    coded = {index.names[i] for members in index.coded for i in members}
    done, size = set(), 0
    for name, owner in names.items():
        value = state[owner]
        if owner not in coded or value.ndim < 2 or str(value.dtype) != "torch.float32":
            continue
        integers, scales = quantize_rows(value)
        build.add(
            "DequantizeLinear", build.constant(integers.numpy()), build.constant(scales.numpy()), out=name, axis=0
        )
        done.add(name)
        size += integers.numel() + 4 * scales.numel()
    return done, size


def initializer(name: str, value: torch.Tensor) -> onnx.TensorProto:
    """A torch tensor as an initializer."""
    import torch
    from onnx import TensorProto, helper, numpy_helper

    value = value.detach().cpu().contiguous()
    if value.dtype == torch.bfloat16:
        raw = value.view(torch.int16).numpy().tobytes()
        return helper.make_tensor(name, TensorProto.BFLOAT16, list(value.shape), raw, raw=True)
    return numpy_helper.from_array(value.numpy(), name)


def left_dense(archive: Archive, names: dict[str, str], coded: set[str], form: str) -> dict[str, str]:
    """Tensors that the archive codes and the graph holds dense, and why."""
    index = archive.index
    out = {}
    made = {index.names[i] for i, _ in index.made}
    members = {index.names[i] for group in index.coded for i in group}
    for name, owner in names.items():
        if name in coded or form == "dense":
            continue
        if owner in made:
            out[owner] = "it is a rule, which no graph can compute"
        elif owner in members:
            out[owner] = "int8 copies are for float32 matrices and kernels"
    return out
