from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tersor.passes.layer_inputs import inputs_of, rows_of
from tersor.passes.sites import sites
from tersor.tune.batches import Batch


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


IMAGES = [noise(8, 3, 16, 16, seed=s) for s in range(6)]


LAYERS: list[tuple[nn.Module, torch.Tensor]] = [
    (nn.Linear(12, 20), noise(2, 5, 12)),
    (nn.Conv2d(4, 6, 3, stride=2, padding=1), noise(2, 4, 9, 8)),
    (nn.Conv2d(4, 6, (3, 2), dilation=2, padding="same"), noise(2, 4, 9, 8)),
    (nn.Conv2d(4, 6, 3, padding=2, padding_mode="reflect"), noise(2, 4, 9, 8)),
    (nn.Conv1d(4, 6, 5, padding=2, padding_mode="circular"), noise(2, 4, 30)),
    (nn.Conv2d(4, 6, 3), noise(4, 9, 8)),
]


@pytest.mark.parametrize("module, x", LAYERS, ids=str)
def test_rows_times_the_weight_are_the_layers_outputs(module: nn.Module, x: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = rows_of(module, x, 1 << 20, generator)
    out = module(x) - module.bias.view(-1, *(1,) * (module.weight.ndim - 2))
    if isinstance(module, nn.Linear):
        wanted = out.flatten(0, -2)
    else:
        wanted = (out if x.ndim == module.weight.ndim else out[None]).movedim(1, -1).flatten(0, -2)
    torch.testing.assert_close(rows @ module.weight.flatten(1).T, wanted, rtol=1e-4, atol=1e-5)
    some = rows_of(module, x, 7, generator)
    assert len(some) == 7 and all((row == rows).all(1).any() for row in some)


def test_inputs_are_measured_and_the_network_left_alone() -> None:
    net = nn.Sequential(nn.Conv2d(3, 32, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(32, 64, 3)).eval()
    found = [s for s in sites(net) if s.path in ("0", "2")]
    batches = [Batch((x,), {}) for x in IMAGES]
    measured = {s.path: i for s, i in inputs_of(net, found, batches, seed=0, sample=True)}
    every = torch.cat([F.unfold(x, 5, padding=2, stride=2).transpose(1, 2).flatten(0, 1) for x in IMAGES]).double()
    torch.testing.assert_close(measured["0"].second, every.T @ every / len(every), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(measured["0"].mean, every.mean(0), rtol=1e-4, atol=1e-5)
    covariance = torch.from_numpy(np.cov(every.numpy().T, bias=True))
    torch.testing.assert_close(measured["0"].covariance, covariance, rtol=1e-4, atol=1e-4)
    assert measured["2"].sample is not None and measured["2"].sample.shape[1] == 288
    assert not any(m._forward_pre_hooks for m in net.modules())
