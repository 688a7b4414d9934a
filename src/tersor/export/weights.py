"""Weights in a graph: nodes that decode codes, integers with scales, or plain initializers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tersor.archive import Archive
from tersor.checkpoint.onnx_files import TYPES
from tersor.export.decoding import decode
from tersor.export.graph import Builder
from tersor.index import DTYPES
from tersor.packed.groups import pack

if TYPE_CHECKING:
    import onnx
    import torch


def codes_in(archive: Archive, build: Builder, names: dict[str, str], kinds: dict[str, int]) -> tuple[set[str], int]:
    """Nodes that decode what is coded, by the graph's names, in its types: those done, and bytes of codes."""
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
            plain = DTYPES[index.dtypes[i]] == "float32" and name is not None and kinds[name] == TYPES["float32"]
            outs[i] = name if plain and name is not None else build.names()
        decode(build, group, outs)
        for i in wanted:
            name = graph_name[index.names[i]]
            if outs[i] != name:
                _typed(build, outs[i], DTYPES[index.dtypes[i]], kinds[name], name)
            done.add(name)
        size += group.nbytes
    for name, owner in names.items():  # one tensor under several names
        if graph_name[owner] != name and graph_name[owner] in done:
            build.add("Identity", graph_name[owner], out=name)
            done.add(name)
    return done, size


def _typed(build: Builder, value: str, stored: str, wanted: int, out: str) -> None:
    """Float32 in the type the tensor came in, then in the graph's."""
    if stored == "float16":
        bound = np.array(65504, dtype=np.float32)
        value = build.add("Clip", value, build.constant(-bound), build.constant(bound))
    if stored != "float32" and TYPES[stored] != wanted:
        value = build.add("Cast", value, to=TYPES[stored])
    build.add("Cast", value, out=out, to=wanted)


def int8_in(
    archive: Archive, build: Builder, names: dict[str, str], state: dict[str, torch.Tensor], kinds: dict[str, int]
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
        parts = build.constant(integers.numpy()), build.constant(scales.numpy())
        if kinds[name] == TYPES["float32"]:
            build.add("DequantizeLinear", *parts, out=name, axis=0)
        else:
            build.add("Cast", build.add("DequantizeLinear", *parts, axis=0), out=name, to=kinds[name])
        done.add(name)
        size += integers.numel() + 4 * scales.numel()
    return done, size


def initializer(name: str, value: torch.Tensor, kind: int) -> onnx.TensorProto:
    """A torch tensor as an initializer of the graph's type."""
    import torch
    from onnx import TensorProto, helper, numpy_helper

    wanted = next((dtype for dtype, number in TYPES.items() if number == kind), None)
    value = value.detach().cpu().contiguous()
    value = value if wanted is None else value.to(getattr(torch, wanted))
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
