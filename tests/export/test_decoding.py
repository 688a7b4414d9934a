"""Graphs that decode packed groups, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

import tersor
from packed.archives import archives
from tersor.archive import restore
from tersor.export.decoding import decode
from tersor.export.graph import Builder, Names
from tersor.export.traced import NEEDED_OPSET
from tersor.index import DTYPES
from tersor.packed.groups import PackedGroup, pack


def session(proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(proto.SerializeToString(), options)


@pytest.mark.parametrize("opset", [NEEDED_OPSET, 13])
@pytest.mark.parametrize("made", list(archives()))
def test_onnxruntime_decodes_the_weights_of_the_file(made: Callable[[], tersor.Archive], opset: int) -> None:
    archive = made()
    index, graph, outs = archive.index, Builder(Names(set()), opset), {}
    exact = {}
    for group in pack(archive):
        names = {i: graph.names() for i in group.tensors}
        decode(graph, group, names)
        outs |= names
        exact |= dict.fromkeys(names, not (isinstance(group, PackedGroup) and group.basis is not None))
    if not outs:
        pytest.skip("nothing is coded")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, index.shapes[i]) for i, name in outs.items()]
    proto = helper.make_model(
        helper.make_graph(graph.nodes, "weights", [], values, graph.initializers),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
    )
    onnx.checker.check_model(proto)
    found = session(proto).run(None, {})
    state = archive.state_dict()
    for (i, _), value in zip(outs.items(), found, strict=True):
        want, have = state[index.names[i]], restore(torch.from_numpy(value.copy()), DTYPES[index.dtypes[i]])
        if exact[i]:
            assert torch.equal(have, want), index.names[i]
        else:  # a matrix product adds in its own order
            torch.testing.assert_close(
                have.float(),
                want.float(),
                rtol=1e-3 if want.dtype != torch.float32 else 1e-5,
                atol=2e-6 * float(want.abs().max()),
            )


def test_names_are_short_and_free() -> None:
    names = Names({"0", "2"})
    assert [names() for _ in range(3)] == ["1", "3", "4"]
    assert len({names() for _ in range(2000)}) == 2000


def test_equal_constants_are_held_once() -> None:
    graph = Builder(Names(set()), 13)
    assert graph.integers(3, 4) == graph.integers(3, 4) != graph.integers(4, 3)
    assert len(graph.initializers) == 2
