"""Mixed precision: what half precision loses, and that nothing of it is lost here."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from tunables import MODELS, noise, output, pair, refusal

import tersor
from tersor.tune.precision import Mixed

TINY = 2.0**-26


def one(value: float = 1.0) -> tuple[nn.Parameter, torch.optim.Optimizer]:
    parameter = nn.Parameter(torch.tensor([value]))
    return parameter, torch.optim.SGD([parameter], lr=1.0)


def test_a_thousand_small_updates_need_a_float32_master() -> None:
    small = torch.tensor(1.0, dtype=torch.bfloat16)
    for _ in range(1000):
        small -= 1e-3
    assert small.item() == 1.0, "why masters are needed"
    net, _, _ = pair()  # of which any parameter will do: all are float32
    master = net.network[0].bias  # type: ignore[index, union-attr]
    master.data.fill_(1.0)
    mixed, optimizer = Mixed("bf16", "cpu"), torch.optim.SGD([master], lr=1e-3)
    for _ in range(1000):
        with mixed.autocast():
            loss = master.sum()
        assert mixed.step(loss, optimizer)
    assert master.dtype == torch.float32 and master.abs().max() < 1e-5


def test_half_precision_and_its_range() -> None:
    assert torch.tensor(TINY).half() == 0
    assert (torch.tensor(TINY) * 2**10).half().float() / 2**10 == TINY
    assert torch.tensor(TINY).bfloat16() == TINY
    assert torch.tensor(2.0 * 65536).half() == math.inf


class Gradient(torch.autograd.Function):
    """Gives the parameter a gradient that went through half precision, as in an autocast backward pass."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor, value: float, dtype: torch.dtype) -> torch.Tensor:
        ctx.value, ctx.dtype = value, dtype  # type: ignore[attr-defined]
        return x.sum()

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        value = (gradient * ctx.value).to(ctx.dtype).float()  # type: ignore[attr-defined]
        return value.expand(1), None, None


def test_fp16_scaling_keeps_small_gradients_exactly() -> None:
    for scaled, expected in ((True, TINY), (False, 0.0)):
        parameter, optimizer = one(0.0)
        mixed = Mixed("fp16" if scaled else "fp32", "cpu")
        if scaled:
            mixed.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        assert mixed.step(Gradient.apply(parameter, TINY, torch.float16), optimizer)
        assert parameter.item() == -expected


def test_bf16_needs_no_scaling() -> None:
    parameter, optimizer = one(0.0)
    mixed = Mixed("bf16", "cpu")
    assert not mixed.scaler.is_enabled()
    assert mixed.step(Gradient.apply(parameter, TINY, torch.bfloat16), optimizer)
    assert parameter.item() == -TINY


def test_an_overflow_skips_the_step_and_halves_the_scale() -> None:
    parameter, optimizer = one()
    mixed = Mixed("fp16", "cpu")
    assert mixed.scaler.get_scale() == 65536
    assert not mixed.step(Gradient.apply(parameter, 2.0, torch.float16), optimizer)
    assert parameter.item() == 1.0 and mixed.scaler.get_scale() == 32768
    assert mixed.step(Gradient.apply(parameter, 1.0, torch.float16), optimizer)
    assert parameter.item() == 0.0


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_no_number_changes_nothing(precision: str, value: float) -> None:
    parameter, _ = one()
    optimizer = torch.optim.Adam([parameter], lr=0.1)
    mixed = Mixed(precision, "cpu")
    assert not mixed.step(Gradient.apply(parameter, value, torch.float32), optimizer)
    assert parameter.item() == 1.0
    assert mixed.step(Gradient.apply(parameter, 1.0, torch.float32), optimizer)
    assert parameter.item() == pytest.approx(0.9)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_clipping_is_in_true_units(precision: str) -> None:
    for clip, expected in ((1.0, 0.1), (100.0, 1.0), (None, 1.0)):
        parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(3))]
        optimizer = torch.optim.SGD(parameters, lr=1.0)
        loss = (parameters[0] * torch.tensor([6.0, 0.0])).sum() + 8 * parameters[1].sum()
        assert Mixed(precision, "cpu").step(loss, optimizer, clip)
        found = torch.cat([p.detach() for p in parameters])
        torch.testing.assert_close(found, -expected * torch.tensor([6.0, 0, 8, 0, 0, 0]))


def test_sparse_gradients_count() -> None:
    table = nn.Embedding(5, 2, sparse=True)
    optimizer = torch.optim.SGD(table.parameters(), lr=1.0)
    before = table.weight.detach().clone()
    loss = table(torch.tensor([1, 1, 3])).sum()
    assert Mixed("fp32", "cpu").step(loss, optimizer, clip=1.0)
    change = (before - table.weight.detach()).norm()
    assert float(change) == pytest.approx(1.0, rel=1e-5)


def test_autocast_runs_the_network_in_half_precision() -> None:
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        with Mixed(precision, "cpu").autocast():
            assert nn.Linear(3, 3)(noise(2, 3)).dtype == dtype
    assert "use one of fp32, bf16, fp16" in refusal(lambda: Mixed("fp8", "cpu"))


@pytest.mark.parametrize("moving", [False, True])
def test_training_in_half_precision_arrives_where_float32_does(moving: bool) -> None:
    unseen, left = (noise(200, 12, seed=50),), {}
    for precision in ("fp32", "bf16", "fp16"):
        net, model, _ = pair(moving=moving, ratio=5)
        before, wanted = output(net, unseen), output(model, unseen)
        data = [noise(16, 12, seed=s) for s in range(8)]
        tuned = tersor.distill(net, model, data, steps=60, precision=precision)  # type: ignore[arg-type]
        assert not tuned.failed and {p.dtype for p in net.parameters()} == {torch.float32}
        left[precision] = float((output(net, unseen) - wanted).square().mean())
        assert left[precision] < 0.95 * float((before - wanted).square().mean())
    assert left["bf16"] == pytest.approx(left["fp32"], rel=0.3)
    assert left["fp16"] == pytest.approx(left["fp32"], rel=0.3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_plain_half_precision_networks_are_not_trained(dtype: torch.dtype) -> None:
    model = nn.Linear(12, 12).to(dtype)
    data = [MODELS["mlp"][1][0].to(dtype)]
    words = refusal(lambda: tersor.distill(model, model, data, steps=1))
    assert "too coarse" in words and "net.float()" in words
