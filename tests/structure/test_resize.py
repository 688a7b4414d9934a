"""`tersor.structure.resize` and `tersor.structure.gone`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tersor.errors import TersorError
from tersor.structure.gone import Gone, gone
from tersor.structure.resize import resize_

CASES = [
    (nn.Linear(5, 4), {"weight": (3, 2), "bias": (3,)}, {"in_features": 2, "out_features": 3}, (7, 2)),
    (nn.Linear(5, 4, bias=False), {"weight": (3, 5), "bias": (3,)}, {"out_features": 3}, (7, 5)),
    (nn.Conv1d(5, 4, 3), {"weight": (2, 3, 3)}, {"in_channels": 3, "out_channels": 2}, (1, 3, 9)),
    (nn.Conv2d(6, 4, 3, groups=2), {"weight": (2, 2, 3, 3), "bias": (2,)}, {"in_channels": 4}, (1, 4, 5, 5)),
    (nn.Conv2d(6, 6, 3, groups=6), {"weight": (4, 1, 3, 3)}, {"in_channels": 4, "groups": 4}, (1, 4, 5, 5)),
    (nn.Conv2d(3, 6, 3, groups=3), {"weight": (4, 1, 3, 3)}, {"in_channels": 2, "groups": 2}, (1, 2, 5, 5)),
    (nn.Conv3d(2, 3, 1, bias=False), {"weight": (1, 2, 1, 1, 1)}, {"out_channels": 1}, (1, 2, 3, 3, 3)),
    (nn.ConvTranspose1d(4, 3, 2), {"weight": (2, 5, 2)}, {"in_channels": 2, "out_channels": 5}, (1, 2, 4)),
    (nn.ConvTranspose2d(4, 4, 2, groups=4), {"weight": (3, 1, 2, 2)}, {"in_channels": 3, "groups": 3}, (1, 3, 4, 4)),
    (nn.ConvTranspose3d(4, 6, 1, groups=2), {"weight": (2, 2, 1, 1, 1)}, {"out_channels": 4}, (1, 2, 2, 2, 2)),
    (nn.BatchNorm1d(4), {"running_mean": (2,)}, {"num_features": 2}, (5, 2)),
    (nn.BatchNorm2d(4), {"weight": (6,), "bias": (6,), "num_batches_tracked": ()}, {"num_features": 6}, (2, 6, 3, 3)),
    (nn.BatchNorm3d(4, affine=False), {"running_var": (1,)}, {"num_features": 1}, (2, 1, 3, 3, 3)),
    (nn.GroupNorm(2, 4), {"weight": (6,)}, {"num_channels": 6, "num_groups": 2}, (2, 6, 3)),
    (nn.LayerNorm(4), {"weight": (3,), "bias": (3,)}, {"normalized_shape": (3,)}, (2, 3)),
    (nn.PReLU(4), {"weight": (2,)}, {"num_parameters": 2}, (3, 2, 5)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[str(case[0]) for case in CASES])
def test_tensors_and_attributes_follow_and_the_layer_works(case: tuple) -> None:
    module, shapes, attributes, takes = case
    ids = {leaf: id(p) for leaf, p in module.named_parameters()}
    resize_(module, shapes)
    state = module.state_dict()
    assert {leaf: tuple(state[leaf].shape) for leaf in shapes} == shapes
    assert {name: getattr(module, name) for name in attributes} == attributes
    assert all(id(p) == ids.get(leaf, id(p)) for leaf, p in module.named_parameters())
    result = module.eval()(torch.randn(takes))
    assert torch.isfinite(result).all()
    state = module.state_dict()
    resize_(module, {leaf: tuple(t.shape) for leaf, t in state.items()})
    assert all(torch.equal(module.state_dict()[leaf], t) for leaf, t in state.items())


def test_embedding() -> None:
    table = nn.Embedding(9, 4, padding_idx=7)
    resize_(table, {"weight": (8, 3)})
    assert table(torch.tensor([1, 7])).shape == (2, 3) and (table.num_embeddings, table.embedding_dim) == (8, 3)
    with pytest.raises(TersorError, match="padding is row 7"):
        resize_(table, {"weight": (7, 3)})


def test_types_devices_ties_and_frozen_parameters_stay() -> None:
    one, two = nn.Linear(4, 4).to(torch.float64), nn.Linear(4, 4)
    two.weight = one.weight
    one.weight.requires_grad_(False)
    for layer in (one, two):
        resize_(layer, {"weight": (2, 3)})
    assert one.weight is two.weight and one.weight.dtype == torch.float64 and not one.weight.requires_grad
    assert two.in_features == 3 and one.bias.shape == two.bias.shape == (2,)
    away = nn.Linear(4, 4, bias=False, device="meta")
    resize_(away, {"weight": (2, 4), "bias": (2,)})
    assert away.bias.is_meta and away.bias.shape == (2,)


def test_values_stay_where_shapes_do() -> None:
    layer = nn.Linear(4, 4, bias=False)
    before = layer.weight.detach().clone()
    resize_(layer, {"weight": (4, 4), "bias": (4,)})
    assert torch.equal(layer.weight, before) and torch.equal(layer.bias, torch.zeros(4))


@pytest.mark.parametrize(
    ("module", "shapes", "said"),
    [
        (nn.Linear(4, 4), {"weight": (2, 3, 1)}, "weight of shape"),
        (nn.Linear(4, 4), {"weight": (2, 3), "bias": (3,)}, "bias of shape"),
        (nn.Linear(4, 4), {"weight": (0, 3)}, "weight of shape"),
        (nn.Linear(4, 4), {"scale": (2,)}, "scale"),
        (nn.Conv2d(4, 4, 3), {"weight": (4, 4, 5, 5)}, "kernel is"),
        (nn.Conv2d(4, 4, 3, groups=2), {"weight": (3, 2, 3, 3)}, "2 groups"),
        (nn.Conv2d(4, 8, 3, groups=4), {"weight": (3, 1, 3, 3)}, "4 groups"),
        (nn.BatchNorm2d(4), {"weight": (3,), "bias": (2,)}, "bias of shape"),
        (nn.BatchNorm2d(4, affine=False), {"weight": (4,)}, "weight"),
        (nn.GroupNorm(2, 4), {"weight": (3,)}, "2 groups"),
        (nn.LSTM(4, 4), {"weight_ih_l0": (8, 4)}, "LSTM has no known way"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), {"weight": (3, 4)}, "computes its weight"),
    ],
)
def test_shapes_that_a_module_cannot_have(module: nn.Module, shapes: dict, said: str) -> None:
    before = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    with pytest.raises(TersorError, match=said):
        resize_(module, shapes)
    assert {name: tuple(t.shape) for name, t in module.state_dict().items()} == before


def test_unknown_modules_may_keep_their_shapes() -> None:
    lstm = nn.LSTM(4, 4)
    resize_(lstm, {name: tuple(t.shape) for name, t in lstm.state_dict().items()})


def test_a_block_whose_layers_are_gone_is_its_shortcut() -> None:
    branch = nn.Sequential(nn.Conv2d(4, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.PReLU(8), nn.Conv2d(8, 4, 3, 1, 1))
    branch = nn.Sequential(*[gone(module) for module in branch], gone(nn.BatchNorm2d(4)), gone(nn.Linear(4, 4)))
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(x + branch(x), x) and not branch.state_dict()


def test_a_folded_norm_is_an_identity_and_the_rest_is_refused() -> None:
    assert isinstance(gone(nn.BatchNorm2d(4)), nn.Identity) and isinstance(gone(nn.Linear(2, 2)), Gone)
    assert isinstance(gone(Gone()), Gone)
    with pytest.raises(TersorError, match="LSTM has no tensors"):
        gone(nn.LSTM(2, 2))
