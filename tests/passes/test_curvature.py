"""Second derivatives of the divergence from the network's own outputs, against the exact Hessian."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian

from tersor.errors import TersorError
from tersor.passes.curvature import second_derivatives
from tersor.tune.batches import Batch


def setting() -> tuple[nn.Module, list[Batch], torch.Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).eval()
    x = torch.randn(16, 4)
    return net, [Batch((x[:10],), {}), Batch((x[10:],), {})], x


def exact(net: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        target = net(x).softmax(-1)

    def error(values: dict[str, torch.Tensor]) -> torch.Tensor:
        return -(functional_call(net, values, (x,)).log_softmax(-1) * target).sum(-1).mean()

    parameters = {n: p.detach() for n, p in net.named_parameters()}
    found = hessian(error)(parameters)
    return {n: found[n][n].reshape(p.numel(), p.numel()).diagonal().reshape(p.shape) for n, p in parameters.items()}


def test_gauss_newton_is_the_exact_diagonal() -> None:
    net, batches, x = setting()
    found = second_derivatives(net, ["0.weight", "2.weight", "2.bias"], iter(batches), "gauss-newton")
    truth = exact(net, x)
    for name, h in found.items():
        torch.testing.assert_close(h, truth[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["fisher", "hutchinson"])
def test_estimates_have_it_as_their_mean(kind: str) -> None:
    net, batches, x = setting()
    found = second_derivatives(net, ["0.weight", "2.weight"], iter(batches), kind, samples=600)  # type: ignore[arg-type]
    truth = exact(net, x)
    for name, h in found.items():
        assert float((h - truth[name]).detach().norm() / truth[name].norm()) < 0.15


def test_a_layer_without_batching_over_items_gives_the_same() -> None:
    """A model that asks for values cannot be batched by vmap: items are taken one after the other."""

    class Asking(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) if float(x.sum()) < 1e9 else x

    net, batches, _ = setting()
    plain = second_derivatives(net, ["0.weight"], iter(batches), "gauss-newton")
    asking = second_derivatives(Asking(net), ["inner.0.weight"], iter(batches), "gauss-newton")
    torch.testing.assert_close(plain["0.weight"], asking["inner.0.weight"])


def test_nothing_to_measure_on() -> None:
    net, _, _ = setting()
    for kind in ("fisher", "gauss-newton", "hutchinson"):
        with pytest.raises(TersorError, match="no batches"):
            second_derivatives(net, ["0.weight"], iter([]), kind)  # type: ignore[arg-type]


def test_global_random_state_is_left_alone() -> None:
    net, batches, _ = setting()
    before = torch.random.get_rng_state()
    second_derivatives(net, ["0.weight"], iter(batches), "hutchinson")
    assert torch.equal(before, torch.random.get_rng_state())
