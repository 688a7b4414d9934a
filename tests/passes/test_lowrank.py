from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tersor.errors import TersorError
from tersor.passes.dictionaries import damped
from tersor.passes.lowrank import LowRank, factors_of, fitted
from tersor.passes.registry import parse
from tersor.passes.work import Work
from tersor.structure.factored import Factored, chain_like, dense, product

REAL = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are trained fastest without company, above all where other work is done beside."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def settled(model: nn.Module, decay: float = 0.3, seed: int = 0) -> nn.Module:
    """Weights with singular values that fall, as trained ones have."""
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            value = noise(*parameter.shape, seed=seed + i)
            if parameter.ndim > 1:
                u, s, v = torch.linalg.svd(value.flatten(1), full_matrices=False)
                value = (u * s * torch.exp(-decay * torch.arange(len(s)))) @ v
            parameter.copy_(value.reshape(parameter.shape))
    return model.eval()


class Net(nn.Module):
    """Every kind of layer that can be factorized, and every kind that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 16, 3, stride=2, padding=1)
        self.point = nn.Conv2d(16, 24, 1, bias=False)
        self.deep = nn.Conv2d(24, 24, 3, groups=24)
        self.up = nn.ConvTranspose2d(24, 20, 2)
        self.mix = self.again = nn.Linear(20, 20)
        self.table = nn.Embedding(20, 20)
        self.tied = nn.Linear(20, 20, bias=False)
        self.tied.weight = self.table.weight
        self.head = nn.Linear(20, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.up(self.deep(self.point(self.conv(x).relu()).relu()).relu()).mean((2, 3))
        out: torch.Tensor = self.head(self.tied(self.again(torch.tanh(self.mix(x))))).relu()
        return out


def run(step: LowRank, net: nn.Module, **more: Any) -> tuple[Work, list[str]]:
    step.check()
    told: list[str] = []
    work = Work(copy.deepcopy(net), net, tell=told.append, **more)
    step.run(work)
    return work, told


def squares(t: torch.Tensor) -> float:
    return float(t.detach().square().sum())


def test_a_network_at_a_share_of_its_parameters() -> None:
    net = settled(Net())
    work, told = run(LowRank(share=0.5), net)
    conv, point, mix = (work.network.get_submodule(name) for name in ("conv", "point", "mix"))
    assert isinstance(conv, Factored) and isinstance(point, Factored) and isinstance(mix, Factored)
    assert work.network.again is mix
    names = ("conv", "point", "mix", "head")
    before = sum(net.get_submodule(n).weight.numel() for n in names)
    after = sum(p.numel() for n in names for k, p in work.network.get_submodule(n).named_parameters() if "weight" in k)
    assert 0.45 * before < after <= 0.5 * before
    assert torch.equal(conv[-1].bias, net.get_submodule("conv").bias)
    reasons = "\n".join(told)
    for name, why in (("deep", "groups"), ("up", "transposed"), ("table", "embedding")):
        assert any(name in line and why in line for line in told), reasons
    assert f"{after:,} of {before:,}" in told[-1]
    # the file's names and shapes are enough to build it again
    again = copy.deepcopy(net)
    for name in names:
        module = work.network.get_submodule(name)
        if isinstance(module, Factored):
            shapes = {key: tuple(v.shape) for key, v in module.state_dict().items()}
            chain = chain_like(again.get_submodule(name), shapes)
            chain.load_state_dict(module.state_dict())
            setattr(again, name, chain)
    again.again = again.mix
    x = noise(4, 6, 9, 9)
    torch.testing.assert_close(again(x), work.network(x))


def test_a_byte_target_is_a_share_at_so_many_bits() -> None:
    shares = {}
    for name, step in {"share": LowRank(share=0.4), "bytes": LowRank(size="1kB", bits=8)}.items():
        net = settled(nn.Sequential(nn.Linear(50, 50, bias=False), nn.ReLU(), nn.Linear(50, 50, bias=False)))
        work, _ = run(step, net)
        shares[name] = sum(p.numel() for p in work.network.parameters())
    assert shares["share"] <= 2000 and 800 <= shares["bytes"] <= 1000
    with pytest.raises(TersorError, match="one of share"):
        LowRank(share=0.4, size=1000).check()
    with pytest.raises(TersorError, match="not a number of bytes"):
        LowRank(size="much").check()


def test_dense_layers_with_the_chains_weights_answer_the_same() -> None:
    net = settled(Net())
    work, _ = run(LowRank(share=0.4), net)
    twin = copy.deepcopy(net)
    with torch.no_grad():
        for name, module in twin.named_modules():
            chain = work.network.get_submodule(name)
            if isinstance(chain, Factored):
                module.weight.copy_(dense(chain)[0])
    x = noise(4, 6, 9, 9)
    torch.testing.assert_close(work.network(x), twin(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["auto", "svd", "tucker"])
def test_energy_is_kept_in_every_layer(method: str) -> None:
    net = settled(Net())
    work, _ = run(LowRank(energy=0.9, method=method), net)
    seen = 0
    for name, module in work.network.named_modules():
        if isinstance(module, Factored):
            w = net.get_submodule(name).weight
            seen += 1
            assert squares(module.weight - w) <= 0.1001 * squares(w)
            assert len(module) == 2 + (method == "tucker" and name == "conv") or method == "auto"
    assert seen >= 3


def test_weights_that_are_no_numbers_are_left() -> None:
    net = settled(Net())
    with torch.no_grad():
        net.point.weight[0, 0] = torch.nan
    work, told = run(LowRank(rank=2), net)
    assert isinstance(work.network.point, nn.Conv2d) and isinstance(work.network.conv, Factored)
    assert any("no numbers: point" in line for line in told)


def test_one_rank_for_all() -> None:
    net = settled(Net())
    work, told = run(LowRank(rank=4), net)
    shapes = {name: tuple(p.shape) for name, p in work.network.named_parameters()}
    assert shapes["conv.0.weight"] == (4, 6, 3, 3) and shapes["head.0.weight"] == (4, 20)
    work, _ = run(LowRank(rank=4, method="tucker"), net)
    shapes = {name: tuple(p.shape) for name, p in work.network.named_parameters()}
    assert shapes["conv.1.weight"] == (4, 4, 3, 3) and shapes["point.0.weight"] == (4, 16, 1, 1)
    work, told = run(LowRank(rank=7), net)
    assert isinstance(work.network.head, nn.Linear)
    assert any("head" in line and "not be smaller" in line for line in told)


def test_layers_by_name_and_excluded_ones() -> None:
    net = settled(Net())
    work, _ = run(LowRank(rank=2, layers=("p*", "conv")), net, exclude=("conv.*",))
    assert [n for n, m in work.network.named_modules() if isinstance(m, Factored)] == ["point"]
    with pytest.raises(TersorError, match="no layer to factorize"):
        run(LowRank(rank=2, layers=("nothing",)), net)
    with pytest.raises(TersorError, match="one layer"):
        run(LowRank(rank=2), settled(nn.Linear(20, 20)))
    with pytest.raises(TersorError, match="lowest ranks"):
        run(LowRank(share=0.01), net)


def test_a_factorized_layer_is_left_by_the_next_pass() -> None:
    net = settled(Net())
    work, told = run(LowRank(rank=4, layers=("point",)), net)
    LowRank(rank=1).run(work)
    assert any("a factor already: point.0, point.1" in line for line in told)
    assert work.network.get_parameter("point.0.weight").shape == (4, 16, 1, 1)
    assert isinstance(work.network.conv, Factored)


def test_what_was_said_of_a_bias_follows_it() -> None:
    net = settled(Net())
    mask = torch.ones(16, dtype=torch.bool)
    work, _ = run(LowRank(rank=2), net, masks={"conv.bias": mask}, fixed={"mix.bias", "point.weight"})
    assert set(work.masks) == {"conv.1.bias"} and work.fixed == {"mix.1.bias", "point.weight"}
    assert isinstance(work.network.point, nn.Conv2d)
    work.hold()


@pytest.mark.parametrize("method", ["svd", "tucker"])
def test_with_data_the_layers_outputs_are_fitted(method: str) -> None:
    net = settled(Net(), 0.1)
    data = [noise(8, 6, 9, 9, seed=s).relu() + 1 for s in range(4)]
    step = LowRank(share=0.4, method=method)
    blind, _ = run(step, net)
    seeing, _ = run(step, net, data=data)
    again, _ = run(LowRank(share=0.4, method=method, batches=0), net, data=data)
    x = torch.cat(data)
    errors = [squares(w.network.get_submodule("conv")(x) - net.get_submodule("conv")(x)) for w in (seeing, blind)]
    assert errors[0] < 0.8 * errors[1]
    for key, value in blind.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[key])
        assert value.shape == seeing.network.state_dict()[key].shape


def test_a_fit_is_the_best_last_factor() -> None:
    w, x = noise(8, 6, 3, 3).double(), noise(400, 54, seed=1).double() @ noise(54, 54, seed=2).double()
    second = x.T @ x / 400
    for ranks in ((4,), (4, 3)):
        before = factors_of(w, ranks)
        after = fitted(before, w, second)
        assert all(torch.equal(p, q) for p, q in zip(before[:-1], after[:-1], strict=True))
        basis = product((*before[:-1], torch.eye(4).double()[..., None, None])).flatten(1)
        metric = damped(second)
        slope = (product(after).flatten(1) - w.flatten(1)) @ metric @ basis.T
        torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-3 * float(metric.diagonal().mean()), rtol=0)


def test_training_brings_factors_back_towards_the_original() -> None:
    net = settled(nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 8)), 0.1)
    data = [noise(64, 16, seed=s) for s in range(8)]
    before, _ = run(LowRank(share=0.4), net, data=data)
    after, _ = run(LowRank(share=0.4, steps=60), net, data=data)
    assert after.loss_of() < 0.7 * before.loss_of()
    assert {n: p.shape for n, p in after.network.named_parameters()} == {
        n: p.shape for n, p in before.network.named_parameters()
    }
    again, _ = run(LowRank(share=0.4, steps=60), net, data=data)
    assert all(torch.equal(p, q) for p, q in zip(after.network.parameters(), again.network.parameters(), strict=True))


def test_recipes() -> None:
    step = parse("lowrank(share=0.5, method=tucker, layers=['a.*'], steps=10)")
    assert step == LowRank(share=0.5, method="tucker", layers=("a.*",), steps=10) and step.needs_data
    assert parse(str(step)) == step
    for text in ("lowrank()", "lowrank(share=1)", "lowrank(share=0.5, rank=3)", "lowrank(rank=0)", "lowrank(energy=0)",
                 "lowrank(share=0.5, method=qr)"):  # fmt: skip
        with pytest.raises(TersorError, match="lowrank"):
            parse(text)
