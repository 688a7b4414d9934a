from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tersor.errors import TersorError
from tersor.structure.factored import Columns, Factored, chain_like, dense, fill

Shapes = dict[str, tuple[int, ...]]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def chain_of(module: nn.Module, shapes: Shapes) -> Factored:
    """A chain in float64 with numbers in it."""
    chain = chain_like(module.double(), shapes)
    fill(chain, {name: noise(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())})
    return chain


def like(module: nn.Module, chain: Factored) -> nn.Module:
    """The dense layer that a chain stands for."""
    weight, bias = dense(chain)
    twin = copy.deepcopy(module)
    twin.weight, twin.bias = nn.Parameter(weight), None if bias is None else nn.Parameter(bias)
    return twin


LINEAR: list[Shapes] = [
    {"0.weight": (3, 12), "1.weight": (8, 3), "1.bias": (8,)},
    {"0.weight": (6, 12), "1.weight": (8, 3), "1.bias": (8,)},
    {"0.weight": (12, 12), "1.weight": (8, 3)},
]


@pytest.mark.parametrize("shapes", LINEAR)
def test_a_linear_chain_is_its_dense_layer(shapes: Shapes) -> None:
    layer = nn.Linear(12, 8)
    chain = chain_of(layer, shapes)
    assert {name: tuple(p.shape) for name, p in chain.state_dict().items()} == shapes
    assert isinstance(chain[1], Columns if shapes["0.weight"][0] > 3 else nn.Linear)
    twin = like(layer, chain)
    for x in (noise(12), noise(5, 12), noise(2, 3, 4, 12)):
        torch.testing.assert_close(chain(x), twin(x))


CONVS: list[tuple[type[nn.Module], int, dict[str, Any]]] = [
    (nn.Conv2d, 3, {}),
    (nn.Conv2d, 3, {"stride": (2, 1), "padding": (1, 2)}),
    (nn.Conv2d, (3, 5), {"dilation": 2, "padding": 3}),
    (nn.Conv2d, 3, {"padding": "same", "padding_mode": "reflect"}),
    (nn.Conv2d, 3, {"padding": 2, "padding_mode": "circular", "stride": 2}),
    (nn.Conv2d, 1, {"stride": 2}),
    (nn.Conv1d, 4, {"padding": 1, "padding_mode": "replicate"}),
    (nn.Conv3d, 2, {"padding": 1, "stride": 2}),
]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["svd", "columns", "tucker"])
@pytest.mark.parametrize("conv", CONVS, ids=str)
def test_a_convolution_chain_is_its_dense_layer(
    conv: tuple[type[nn.Module], int, dict[str, Any]], kind: str, bias: bool
) -> None:
    layer = conv[0](6, 8, conv[1], bias=bias, **conv[2])
    kernel, ones = tuple(layer.kernel_size), (1,) * len(layer.kernel_size)
    shapes: Shapes = {"0.weight": (3, 6, *kernel), "1.weight": (8, 3, *ones)}
    if kind == "columns":
        shapes["0.weight"] = (12, 6, *kernel)
    if kind == "tucker":
        shapes = {"0.weight": (3, 6, *ones), "1.weight": (4, 3, *kernel), "2.weight": (8, 4, *ones)}
    if bias:
        shapes[f"{len(shapes) - 1}.bias"] = (8,)
    chain = chain_of(layer, shapes)
    assert {name: tuple(p.shape) for name, p in chain.state_dict().items()} == shapes
    x = noise(2, 6, *(9,) * len(kernel))
    torch.testing.assert_close(chain(x), like(layer, chain)(x))


def test_a_chain_has_what_code_reads_of_the_layer() -> None:
    layer = nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False)
    chain = chain_of(layer, {"0.weight": (3, 5, 3, 3), "1.weight": (7, 3, 1, 1)})
    assert (chain.in_channels, chain.out_channels, chain.stride, chain.groups) == (5, 7, (2, 2), 1)
    assert chain.bias is None
    x = noise(2, 5, 8, 8)
    torch.testing.assert_close(F.conv2d(x, chain.weight, chain.bias, stride=2, padding=1), chain(x))
    linear = chain_of(nn.Linear(12, 8), LINEAR[1])
    assert (linear.in_features, linear.out_features) == (12, 8)
    F.linear(noise(4, 12), linear.weight, linear.bias).square().sum().backward()
    assert all(p.grad is not None for p in linear.parameters())


@pytest.mark.parametrize("name", ["self_attn.out_proj", "linear1", "linear2"])
def test_code_that_takes_the_weight_past_forward_works(name: str) -> None:
    layer = nn.TransformerEncoderLayer(12, 3, 24, dropout=0.0, batch_first=True).double().eval()
    module = layer.get_submodule(name)
    rows, cols = module.weight.shape
    chain = chain_of(module, {"0.weight": (4, cols), "1.weight": (rows, 4), "1.bias": (rows,)})
    twin = copy.deepcopy(layer)
    for model, part in ((layer, chain), (twin, like(module, chain))):
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, part)
    x = noise(2, 5, 12)
    for train in (False, True):
        torch.testing.assert_close(layer.train(train)(x), twin.train(train)(x))
    with torch.no_grad():
        torch.testing.assert_close(layer.eval()(x), twin.eval()(x))


def test_dtype_mode_and_the_random_state_are_kept() -> None:
    layer = nn.Linear(12, 8).to(torch.bfloat16).eval().requires_grad_(False)
    before = torch.get_rng_state()
    chain = chain_like(layer, LINEAR[0])
    assert torch.equal(torch.get_rng_state(), before)
    assert not chain.training and not chain[0].training
    for parameter in chain.parameters():
        assert parameter.dtype == torch.bfloat16 and not parameter.requires_grad and not parameter.any()
    assert chain_like(nn.Linear(12, 8, device="meta"), LINEAR[1])[1].weight.device.type == "meta"
    again = copy.deepcopy(chain)
    again.load_state_dict(chain.state_dict())


CONV_SHAPES: Shapes = {"0.weight": (3, 6, 3, 3), "1.weight": (8, 3, 1, 1)}
WRONG: list[tuple[nn.Module, Shapes]] = [
    (nn.Linear(12, 8), {}),
    (nn.Linear(12, 8), {"0.weight": (3, 12)}),
    (nn.Linear(12, 8), {"0.weight": (3, 12), "2.weight": (8, 3)}),
    (nn.Linear(12, 8), {"0.weight": (4, 12), "1.weight": (8, 3)}),
    (nn.Linear(12, 8), {"0.weight": (9, 12), "1.weight": (8, 3)}),
    (nn.Linear(12, 8), {"0.weight": (3, 12), "1.weight": (8, 3), "1.bias": (7,)}),
    (nn.Linear(12, 8), {"0.weight": (3, 12), "1.weight": (8, 3), "0.bias": (3,)}),
    (nn.Linear(12, 8), {"0.weight": (3, 12), "1.weight": (8, 3), "1.scale": (8,)}),
    (nn.Linear(12, 8), {"0.weight": (3, 12), "1.weight": (8, 0)}),
    (nn.Linear(12, 8), {"0.weight": (), "1.weight": (8, 3)}),
    (nn.Linear(12, 8), {"0.weight": (3, 12), "1.weight": (3, 3), "2.weight": (8, 3)}),
    (nn.Linear(12, 8), CONV_SHAPES),
    (nn.Conv2d(6, 8, 5), CONV_SHAPES),
    (nn.Conv2d(6, 8, 3, groups=2), CONV_SHAPES),
    (nn.Conv1d(6, 8, 3), CONV_SHAPES),
    (nn.ConvTranspose2d(6, 8, 3), CONV_SHAPES),
    (nn.Conv2d(6, 8, 3), {"0.weight": (3, 6, 3, 3), "1.weight": (8, 3)}),
    (nn.Conv2d(6, 8, 3), {"0.weight": (3, 6, 1, 1), "1.weight": (4, 2, 3, 3), "2.weight": (8, 4, 1, 1)}),
    (nn.Embedding(12, 8), LINEAR[0]),
    (nn.ReLU(), LINEAR[0]),
]


@pytest.mark.parametrize("module, shapes", WRONG)
def test_shapes_that_make_no_chain_are_refused(module: nn.Module, shapes: Shapes) -> None:
    with pytest.raises(TersorError, match="no factors of a"):
        chain_like(module, shapes)
