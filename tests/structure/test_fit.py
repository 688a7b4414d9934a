"""A fresh module of the original class takes the names and shapes of what passes made of another one."""

from __future__ import annotations

import torch
from torch import nn

from tersor.structure.fit import fit_
from tersor.structure.inputs import grid_of, quantize_inputs


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))).relu()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.head = nn.Conv2d(3, 8, 3, padding=1), Block(), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(self.stem(x)).mean((2, 3)))


def fitted(change: dict[str, tuple[int, ...] | None]) -> nn.Module:
    """A fresh network with some tensors' shapes changed, added or gone, and random values."""
    torch.manual_seed(0)
    net = Net().eval()
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    for name, shape in change.items():
        shapes.pop(name) if shape is None else shapes.update({name: shape})
    assert fit_(net, shapes)
    assert {name: tuple(value.shape) for name, value in net.state_dict().items()} == shapes
    net.load_state_dict({name: torch.rand(shape) for name, shape in shapes.items()})
    return net


def test_a_network_that_fits_is_left() -> None:
    net = Net()
    before = dict(net.named_modules())
    assert not fit_(net, {name: tuple(value.shape) for name, value in net.state_dict().items()})
    assert all(before[name] is module for name, module in net.named_modules())


def test_nothing_is_changed_that_no_pass_did() -> None:
    net = Net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    fewer = {name: shape for name, shape in shapes.items() if not name.startswith("head")}
    smaller = {**shapes, "head.weight": (4, 8), "head.bias": (4,)}
    for wanted, passes in ((fewer, {"prune", "tune"}), (smaller, {"lowrank"}), (fewer, {"lowrank", "merge"})):
        assert not fit_(net, wanted, passes)
    half = {**smaller, "stem.weight": (8, 3, 5, 5)}  # the head could be made to fit, the stem not
    assert not fit_(net, half, {"merge"})
    assert net.head.out_features == 5 and all(torch.equal(before[n], v) for n, v in net.state_dict().items())


def test_fewer_channels_inside_a_block() -> None:
    net = fitted(
        {"block.conv1.weight": (5, 8, 3, 3), "block.conv2.weight": (8, 5, 3, 3),
         **{f"block.bn1.{leaf}": (5,) for leaf in ("weight", "bias", "running_mean", "running_var")}}
    )  # fmt: skip
    assert net.block.conv1.out_channels == net.block.bn1.num_features == net.block.conv2.in_channels == 5  # type: ignore[union-attr]
    assert net(torch.randn(2, 3, 6, 6)).shape == (2, 5)


def test_factors_in_place_of_layers() -> None:
    net = fitted(
        {"head.weight": None, "head.bias": None, "head.0.weight": (2, 8), "head.1.weight": (5, 2), "head.1.bias": (5,),
         "block.conv1.weight": None, "block.conv1.0.weight": (3, 8, 3, 3), "block.conv1.1.weight": (8, 3, 1, 1)}
    )  # fmt: skip
    x = torch.randn(2, 8)
    head = net.head
    dense = head[1].weight @ head[0].weight  # type: ignore[index,operator]
    torch.testing.assert_close(head(x), x @ dense.T + head[1].bias)  # type: ignore[index,operator]
    assert net(torch.randn(2, 3, 6, 6)).shape == (2, 5)


def test_a_branch_that_is_gone_leaves_the_shortcut() -> None:
    names = [name for name in Net().state_dict() if name.startswith("block.")]
    net = fitted(dict.fromkeys(names))
    x = torch.randn(2, 8, 6, 6)
    assert torch.equal(net.block(x), x.relu())  # type: ignore[operator]


def test_a_norm_that_was_folded_into_a_layer() -> None:
    norm = {
        f"block.bn1.{leaf}": None for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    net = fitted({**norm, "block.conv1.bias": (8,)})
    x = torch.randn(2, 8, 6, 6)
    assert torch.equal(net.block.bn1(x), x)  # type: ignore[operator,union-attr]
    assert net.block.conv1.bias is not None  # type: ignore[union-attr]


def test_inputs_on_a_grid() -> None:
    net = fitted({"head.input_grid": (3,)})
    net.head.input_grid.copy_(torch.tensor([0.5, 1.0, 2.0]))  # type: ignore[operator,union-attr]
    x = torch.randn(4, 8)
    rounded = torch.clamp((x / 0.5).round() + 1, 0, 3) - 1
    plain = nn.functional.linear(rounded * 0.5, net.head.weight, net.head.bias)  # type: ignore[arg-type,union-attr]
    torch.testing.assert_close(net.head(x), plain)  # type: ignore[operator]


def test_a_grid_of_inputs_has_zero_and_its_gradient_passes_within() -> None:
    for low, high in ((-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0), (0.0, 0.0)):
        scale, zero, bits = grid_of(low, high, 4).tolist()
        assert scale > 0 and zero == int(zero) and 0 <= zero <= 15 and bits == 4
    layer = nn.Linear(2, 1, bias=False)
    nn.init.ones_(layer.weight)
    quantize_inputs(layer, grid_of(-1, 1, 8))
    x = torch.tensor([[0.3, 5.0]], requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[1.0, 0.0]]
    quantize_inputs(layer, grid_of(-1, 1, 2))
    assert len(layer._forward_pre_hooks) == 1  # another grid, not another rounding
