"""The backward sweep of Optimal Brain Damage against autograd's exact Hessian diagonal."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian

from tersor.errors import TersorError
from tersor.passes.sweep import backward_sweep


def network(*sizes: int, act: type[nn.Module] = nn.Tanh, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        layers += [nn.Linear(a, b), *([act()] if i < len(sizes) - 2 else [])]
    return nn.Sequential(*layers).double()


def exact(net: nn.Module, x: torch.Tensor, d: torch.Tensor) -> dict[str, torch.Tensor]:
    parameters = dict(net.named_parameters())

    def error(values: dict[str, torch.Tensor]) -> torch.Tensor:
        return (functional_call(net, values, (x,)) - d).square().sum(1).mean()

    found = hessian(error)({n: p.detach() for n, p in parameters.items()})
    return {n: found[n][n].reshape(p.numel(), p.numel()).diagonal().reshape(p.shape) for n, p in parameters.items()}


@pytest.mark.parametrize("act", [nn.Tanh, nn.Sigmoid, nn.ReLU])
def test_one_hidden_layer_is_exact(act: type[nn.Module]) -> None:
    net = network(5, 7, 3, act=act)
    x, d = torch.randn(20, 5).double(), torch.randn(20, 3).double()
    found = backward_sweep(net, x, d)
    for name, truth in exact(net, x, d).items():
        torch.testing.assert_close(found[name], truth, rtol=1e-10, atol=1e-12)


def test_an_activation_at_the_output_is_exact_too() -> None:
    net = nn.Sequential(*network(5, 7, 3), nn.Tanh())
    x, d = torch.randn(20, 5).double(), torch.randn(20, 3).double()
    found = backward_sweep(net, x, d)
    for name, truth in exact(net, x, d).items():
        torch.testing.assert_close(found[name], truth, rtol=1e-10, atol=1e-12)


def test_before_the_last_two_layers_it_is_an_approximation() -> None:
    net = network(5, 7, 6, 3)
    x, d = torch.randn(20, 5).double(), torch.randn(20, 3).double()
    found, truth = backward_sweep(net, x, d), exact(net, x, d)
    torch.testing.assert_close(found["4.weight"], truth["4.weight"], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found["2.weight"], truth["2.weight"], rtol=1e-10, atol=1e-12)
    assert (found["0.weight"] - truth["0.weight"]).abs().max() > 1e-3


def test_the_levenberg_form_is_never_negative() -> None:
    net = network(5, 7, 6, 3)
    x, d = torch.randn(20, 5).double(), torch.randn(20, 3).double()
    assert all(bool((h >= 0).all()) for h in backward_sweep(net, x, d, levenberg=True).values())


def test_other_modules_are_refused() -> None:
    with pytest.raises(TersorError, match="knows no Conv2d"):
        backward_sweep(nn.Sequential(nn.Conv2d(1, 1, 1)), torch.zeros(1, 1, 2, 2), torch.zeros(1, 1))
    with pytest.raises(TersorError, match=r"nn\.Sequential"):
        backward_sweep(nn.Linear(2, 2), torch.zeros(1, 2), torch.zeros(1, 2))  # type: ignore[arg-type]
