"""`tersor.passes.penalty`: groups, values, gradients and proximal steps by themselves."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tersor.passes.penalty import KINDS, are_zero, gradient, groups_of, norms, prox, value

kinds = pytest.mark.parametrize("kind", KINDS)
HAND = torch.tensor([[3.0, 0.0, 0.0], [4.0, 0.0, 12.0]])


@pytest.mark.parametrize(
    ("kind", "expected"), [("filters", 3 + 160**0.5), ("channels", 5 + 12), ("shapes", 5 + 12), ("depth", 13)]
)
def test_values_by_hand(kind: str, expected: float) -> None:
    assert value(HAND, groups_of(HAND, kind)).item() == pytest.approx(expected)


def test_gradients_by_hand() -> None:
    assert torch.allclose(gradient(HAND, groups_of(HAND, "channels")), torch.tensor([[0.6, 0.0, 0.0], [0.8, 0.0, 1.0]]))
    assert torch.allclose(gradient(HAND, groups_of(HAND, "depth")), HAND / 13)
    zero = torch.zeros(2, 3)
    assert torch.equal(gradient(zero, groups_of(zero, "filters")), zero)


def test_kernels_by_hand() -> None:
    weight = torch.zeros(2, 3, 2, 2)
    weight[0, 1, 0, 1], weight[1, 1, 0, 1], weight[1, 2, 1, 1] = 3, 4, 12
    assert value(weight, groups_of(weight, "filters")).item() == pytest.approx(3 + 160**0.5)
    assert value(weight, groups_of(weight, "channels")).item() == 5 + 12
    assert norms(weight, groups_of(weight, "shapes"))[4 + 1].item() == 5  # channel 1, row 0, column 1


shapes = st.lists(st.integers(1, 5), min_size=2, max_size=4)


@given(shapes, st.sampled_from(KINDS), st.booleans())
def test_groups_partition_the_tensor(shape: list[int], kind: str, transposed: bool) -> None:
    weight = torch.zeros(shape)
    rows = int(transposed)
    groups = groups_of(weight, kind, rows)
    assert sorted(groups.flatten().tolist()) == list(range(weight.numel()))
    outputs, inputs = shape[rows], shape[1 - rows]
    count = {"filters": outputs, "channels": inputs, "shapes": weight.numel() // outputs, "depth": 1}[kind]
    assert len(groups) == count
    if kind in ("filters", "channels"):
        dimension = rows if kind == "filters" else 1 - rows
        for number, group in enumerate(groups):
            where = torch.zeros(weight.numel(), dtype=torch.bool)
            where[group] = True
            assert where.reshape(shape).select(dimension, number).all()


@kinds
def test_gradient_is_autograd_s(kind: str) -> None:
    weight = torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    groups = groups_of(weight, kind)
    value(weight, groups).backward()
    assert torch.allclose(gradient(weight.detach(), groups), weight.grad)


@kinds
def test_prox_is_the_argmin(kind: str) -> None:
    weight = torch.randn(4, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    groups = groups_of(weight, kind)
    threshold = float(norms(weight, groups).median()) * (0.5 if kind == "depth" else 1.05)

    def loss(w: torch.Tensor) -> float:
        return float((w - weight).square().sum() / 2 + threshold * value(w, groups))

    best = prox(weight, groups, threshold)
    assert kind == "depth" or 0 < int(are_zero(best, groups).sum()) < len(groups)
    random = torch.Generator().manual_seed(1)
    for size in (1e-3, 1e-2, 0.1, 1):
        for _ in range(20):
            assert loss(best) < loss(best + size * torch.randn(weight.shape, dtype=torch.float64, generator=random))
    assert torch.allclose(norms(best, groups), (norms(weight, groups) - threshold).clamp(min=0))
    assert torch.equal(prox(weight, groups, 0.0), weight) and not prox(weight, groups, 1e9).any()
