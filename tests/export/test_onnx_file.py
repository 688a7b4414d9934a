"""ONNX files with codes inside, run by a stock ONNX Runtime."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import tersor
from tersor.errors import TersorError
from tersor.export.onnx_file import export_onnx
from tersor.packed.groups import pack


class Net(nn.Module):
    """Kernels, a depthwise and a transposed convolution, a tied embedding, a matrix, norms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3, padding=1)
        self.norm = nn.BatchNorm2d(32)
        self.depth = nn.Conv2d(32, 64, 3, groups=32)
        self.up = nn.ConvTranspose2d(64, 32, 2)
        self.embed = nn.Embedding(50, 64)
        self.fc = nn.Linear(64, 96)
        self.head = nn.Linear(64, 50, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, image: torch.Tensor, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = self.up(self.depth(self.norm(self.conv(image)).relu()))
        read = self.embed(words)
        return seen, self.head(read) + self.fc(read).sum(-1, keepdim=True)


def network(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    model = Net()
    with torch.no_grad():
        model.norm.running_mean.normal_()
        model.norm.running_var.uniform_(0.5, 2)
    return model.eval()


def inputs() -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return [torch.randn(2, 3, 8, 8, generator=g), torch.randint(0, 50, (2, 5), generator=g)]


def run(path: Path, given: list[torch.Tensor]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options)
    names = [i.name for i in session.get_inputs()]
    return list(session.run(None, dict(zip(names, [v.numpy() for v in given], strict=True))))


SCHEMES = ["auto", "additive", "2x32d3+lattice", "int4/16+zero", "shared16", "int8"]


@pytest.fixture(scope="module", params=SCHEMES)
def archive(request: pytest.FixtureRequest) -> tersor.Archive:
    sized = not request.param.startswith(("int", "shared"))
    return tersor.compress(network(), tersor.Recipe(scheme=request.param, bpp=6 if sized else None))


def test_it_answers_as_torch_does(archive: tersor.Archive, tmp_path: Path) -> None:
    model = network(3)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    made = export_onnx(archive, tmp_path / "net.onnx", model, inputs())
    assert made.size == (tmp_path / "net.onnx").stat().st_size
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()), "the model given is not changed"
    onnx.checker.check_model(onnx.load(tmp_path / "net.onnx"))
    want = archive.apply_(network())(*inputs())
    for have, value in zip(run(tmp_path / "net.onnx", inputs()), want, strict=True):
        np.testing.assert_allclose(have, value.detach().numpy(), rtol=1e-4, atol=1e-5)
    coded = {archive.entries[i].name for members in archive.index.coded for i in members}
    assert set(made.coded) == coded and not made.dense


def test_codes_are_in_it_and_dense_weights_are_not(archive: tersor.Archive, tmp_path: Path) -> None:
    made = export_onnx(archive, tmp_path / "net.onnx", network(), inputs())
    proto = onnx.load(tmp_path / "net.onnx")
    held = {i.name: i for i in proto.graph.initializer}
    assert not set(made.coded) & set(held)
    assert any(i.data_type in (TensorProto.UINT8, TensorProto.INT64, TensorProto.UINT16) for i in held.values())
    floats = sum(np.prod(i.dims) for i in held.values() if i.data_type == TensorProto.FLOAT)
    assert floats < 0.2 * sum(p.numel() for p in network().parameters())
    assert made.codes == sum(g.nbytes for g in pack(archive))


def test_the_graph_costs_little(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(64, 128, 3), nn.ReLU(), nn.Conv2d(128, 128, 3), nn.Flatten(), nn.Linear(128, 512))
    archive = tersor.compress(model, tersor.Recipe(bpp=2, scheme="2x256d8", effort="draft"))
    made = export_onnx(archive, tmp_path / "net.onnx", model, [torch.randn(1, 64, 5, 5)])
    assert made.size <= 1.25 * made.codes
    assert made.size < sum(p.nbytes for p in model.parameters()) / 7.5


def test_the_same_archive_gives_the_same_bytes(archive: tersor.Archive, tmp_path: Path) -> None:
    for name in ("a", "b"):
        export_onnx(archive, tmp_path / f"{name}.onnx", network(), inputs())
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_dense_and_int8(tmp_path: Path) -> None:
    archive = tersor.compress(network(), tersor.Recipe(bpp=6))
    want = archive.apply_(network())(*inputs())
    sizes = {}
    for form, tolerance in (("dense", 1e-5), ("int8", 0.05)):
        sizes[form] = export_onnx(archive, tmp_path / f"{form}.onnx", network(), inputs(), form=form).size
        for have, value in zip(run(tmp_path / f"{form}.onnx", inputs()), want, strict=True):
            np.testing.assert_allclose(
                have, value.detach().numpy(), rtol=0, atol=tolerance * float(value.detach().abs().max())
            )
    assert sizes["int8"] < 0.5 * sizes["dense"]


def test_pruned_and_half_precision(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 64)).half()
    with torch.no_grad():
        model[0].weight[torch.rand(128, 128) < 0.9] = 0
    for scheme in ("lattice", "1x64d4"):
        archive = tersor.compress(model, tersor.Recipe(bpp=3, scheme=scheme))
        assert any(g.survivors is not None for g in archive.index.groups)
        export_onnx(archive, tmp_path / "net.onnx", model, [torch.zeros(1, 128).half()], force=True)
        x = torch.randn(4, 128).half()
        want = archive.apply_(nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 64)).half())(x[:1])
        (have,) = run(tmp_path / "net.onnx", [x[:1]])
        np.testing.assert_allclose(have, want.detach().numpy(), rtol=0.01, atol=0.01)


# ---------------------------------------------------------------------- .onnx in, .onnx out
def graph_file(path: Path, opset: int = 17) -> None:
    random = np.random.default_rng(0)
    weights = {
        "conv.w": random.normal(size=(32, 3, 3, 3)),
        "fc.w": random.normal(size=(32, 300)),
        "fc.b": random.normal(size=300),
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv.w"], ["h"]),
        helper.make_node("GlobalAveragePool", ["h"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "fc.w", "fc.b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 300])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)


@pytest.mark.parametrize("opset", [11, 17])
def test_from_onnx_to_onnx(opset: int, tmp_path: Path) -> None:
    graph_file(tmp_path / "net.onnx", opset)
    archive = tersor.compress(tmp_path / "net.onnx", tersor.Recipe(bpp=4))
    made = export_onnx(archive, tmp_path / "small.onnx", graph=tmp_path / "net.onnx")
    assert made.size < 0.5 * (tmp_path / "net.onnx").stat().st_size
    dense = onnx.load(tmp_path / "net.onnx")
    for tensor in dense.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(archive[tensor.name].numpy(), tensor.name))
    onnx.save(dense, tmp_path / "dense.onnx")
    x = [torch.randn(2, 3, 8, 8)]
    np.testing.assert_allclose(
        run(tmp_path / "small.onnx", x)[0], run(tmp_path / "dense.onnx", x)[0], rtol=1e-5, atol=1e-5
    )


def test_another_graph_and_an_old_one_are_told(tmp_path: Path) -> None:
    graph_file(tmp_path / "net.onnx")
    graph_file(tmp_path / "old.onnx", opset=10)
    archive = tersor.compress(tmp_path / "net.onnx", tersor.Recipe(bpp=4))
    with pytest.raises(TersorError, match="opset 10 is too old to decode weights in the graph"):
        export_onnx(archive, tmp_path / "out.onnx", graph=tmp_path / "old.onnx")
    other = tersor.compress(network(), tersor.Recipe(bpp=6))
    with pytest.raises(TersorError, match=r"net.onnx does not fit .*: missing or of another shape: conv.weight"):
        export_onnx(other, tmp_path / "out.onnx", graph=tmp_path / "net.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_a_half_model_of_a_float_archive(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64))
    archive, x = tersor.compress(model, tersor.Recipe(bpp=6)), [torch.randn(8, 64).half()]
    want = archive.apply_(copy.deepcopy(model).half())(*x).detach().numpy()
    for form in ("codes", "int8"):
        export_onnx(archive, tmp_path / "net.onnx", copy.deepcopy(model).half(), x, form=form, force=True)
        np.testing.assert_allclose(run(tmp_path / "net.onnx", x)[0], want, rtol=0.05, atol=0.05)


def test_names_inside_subgraphs_and_notes_stay(tmp_path: Path) -> None:
    random = np.random.default_rng(0)

    def branch(name: str, factor: float) -> onnx.GraphProto:
        constant = numpy_helper.from_array(np.array(factor, dtype=np.float32), "0")
        node = helper.make_node("Mul", ["h", "0"], ["1"])
        out = [helper.make_tensor_value_info("1", TensorProto.FLOAT, None)]
        return helper.make_graph([node], name, [], out, [constant])

    then, other = branch("then", 2.0), branch("else", -1.0)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("ReduceSum", ["h"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    weights = {"w": random.normal(size=(64, 64)).astype(np.float32), "zero": np.array(0, dtype=np.float32)}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(proto, {"classes": "cat, dog"})
    onnx.save(proto, tmp_path / "net.onnx")
    archive = tersor.compress(tmp_path / "net.onnx", tersor.Recipe(bpp=6))
    export_onnx(archive, tmp_path / "small.onnx", graph=tmp_path / "net.onnx")
    assert onnx.load(tmp_path / "small.onnx").metadata_props[0].value == "cat, dog"
    x = torch.randn(2, 64)
    h = x @ archive["w"]
    want = h * (2.0 if float(h.sum()) > 0 else -1.0)
    np.testing.assert_allclose(run(tmp_path / "small.onnx", [x])[0], want.numpy(), rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------------- bad input
class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(32, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.lstm(x)[0]
        return out


def test_an_operator_that_takes_weights_in_another_form_is_named_or_decoded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Recurrent().eval()
    archive = tersor.compress(model, tersor.Recipe(bpp=5))
    x = torch.randn(3, 1, 32)
    try:
        export_onnx(archive, tmp_path / "net.onnx", model, [x])
    except TersorError as error:
        assert "lstm" in str(error) and "--dense" in str(error)
        return
    want = archive.apply_(Recurrent())(x)
    np.testing.assert_allclose(run(tmp_path / "net.onnx", [x])[0], want.detach().numpy(), atol=1e-5)


class Cached(nn.Module):
    """Computes with a copy of its weight that is no parameter: the exporter bakes it in as a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 64)
        self.copies = [self.fc.weight.detach().clone()]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.copies[0], self.fc.bias)


def test_a_weight_that_is_baked_in_is_told(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Cached()
    archive = tersor.compress(model, tersor.Recipe(bpp=6))
    with pytest.raises(TersorError, match=r"holds a dense copy of fc.weight: .* taken by Gemm"):
        export_onnx(archive, tmp_path / "net.onnx", model, [torch.randn(1, 64)])
    assert not (tmp_path / "net.onnx").exists()


def test_wrong_calls_are_told(tmp_path: Path) -> None:
    archive = tersor.compress(network(), tersor.Recipe(bpp=6))
    with pytest.raises(TersorError, match="opset 99 is newer than this onnx knows"):
        export_onnx(archive, tmp_path / "a.onnx", network(), inputs(), opset=99)
    with pytest.raises(TersorError, match="opset 9 is too old"):
        export_onnx(archive, tmp_path / "a.onnx", network(), inputs(), opset=9)
    with pytest.raises(TersorError, match="does not fit Linear"):
        export_onnx(archive, tmp_path / "a.onnx", nn.Linear(2, 2), [torch.zeros(1, 2)])
    with pytest.raises(TersorError, match="no form 'half'; take codes, int8, dense"):
        export_onnx(archive, tmp_path / "a.onnx", network(), inputs(), form="half")
    with pytest.raises(TersorError, match="one of them"):
        export_onnx(archive, tmp_path / "a.onnx")
    with pytest.raises(TersorError, match="torch cannot export Net"):
        export_onnx(archive, tmp_path / "a.onnx", network(), [torch.zeros(1, 7, 8, 8), inputs()[1]])
    export_onnx(archive, tmp_path / "a.onnx", network(), inputs())
    with pytest.raises(TersorError, match="exists"):
        export_onnx(archive, tmp_path / "a.onnx", network(), inputs())
