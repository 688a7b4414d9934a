"""Integers trained to be so, and calibrated inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tersor.errors import TersorError
from tersor.passes.prune import Prune
from tersor.passes.quantize import Quantize, calibrated, rounded
from tersor.passes.sites import sites
from tersor.passes.work import Work
from tersor.representations import affine


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 24)).eval()


def work(told: list[str] | None = None) -> Work:
    data = [torch.randn(16, 32, generator=torch.Generator().manual_seed(i)) for i in range(6)]
    return Work(net(), net(), data, tell=(told if told is not None else []).append)


def test_weights_end_on_the_grid_that_is_handed_on() -> None:
    done = work()
    Quantize(bits=3, steps=4).run(done)
    for site in sites(done.network):
        values, grid = site.weight.detach().numpy(), done.grids[site.name]
        q = affine.quantize(values, grid, 3, -1)
        assert np.array_equal(affine.dequantize(q, grid, -1), values)
    assert not any("parametrizations" in name for name in done.network.state_dict())


def test_training_on_the_grid_beats_rounding_once() -> None:
    once, trained = work(), work()
    Quantize(bits=2).run(once)
    Quantize(bits=2, steps=60, lr=2e-3).run(trained)
    assert trained.loss_of() < 0.7 * once.loss_of()


def test_the_gradient_passes_within_the_range_and_not_beyond() -> None:
    weight = torch.tensor([[0.1, -0.2, 5.0]], requires_grad=True)
    grid = affine.Grid(np.array([0.25], dtype=np.float32), np.zeros(1, dtype=np.int32))
    out = rounded(weight, grid, 3, -1, False)
    assert out.tolist() == [[0.0, -0.25, 0.75]]
    out.sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [[1.0, 1.0, 0.0]]


def test_zeros_of_an_earlier_pass_stay() -> None:
    done = work()
    Prune(sparsity=0.6).run(done)
    Quantize(bits=4, steps=3).run(done)
    for name, keep in done.masks.items():
        assert not bool(dict(done.network.named_parameters())[name][~keep].any())


def test_calibration_takes_all_but_the_tails() -> None:
    done = work()
    found = list(sites(done.network))
    ranges = calibrated(done, found, 6)
    x = torch.cat([batch.args[0] for batch in done.batches()])
    low, high = ranges[found[0]]
    assert x.min() <= low < -2 and 2 < high <= x.max()
    assert ranges[found[1]][0] == 0  # behind a ReLU
    Quantize(bits=8, activations=8).run(done)
    assert "0.input_grid" in done.network.state_dict()
    assert done.loss_of() < 0.01


def test_rows_without_such_runs_have_a_scale_each_which_is_told() -> None:
    told: list[str] = []
    done = work(told)
    Quantize(bits=4, block=32).run(done)
    assert len(done.grids["0.weight"].scales) == 48 and len(done.grids["2.weight"].scales) == 24
    assert "2.weight" in told[0] and "no runs of 32" in told[0]


@pytest.mark.parametrize("fields", [{"bits": 1}, {"bits": 9}, {"activations": 1}, {"block": -2}, {"batches": 0}])
def test_settings_out_of_range(fields: dict[str, int]) -> None:
    with pytest.raises(TersorError, match="recipe: quantize"):
        Quantize(**fields).check()  # type: ignore[arg-type]


def test_the_scheme_it_is_coded_with() -> None:
    assert Quantize().scheme == "int8" and Quantize(bits=4, block=64, zero=True).scheme == "int4/64+zero"
    assert Quantize(bits=2, block=0).scheme == "int2/tensor"
