"""The same calls on a GPU: these tests run where there is one, but for what happens where there is none."""

from __future__ import annotations

import pytest
import torch

import tersor
from networks import error_of, network
from tersor.errors import TersorError

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
SCHEMES = ("2x16d9", "2x16d4+lattice")


@needs_gpu
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("trained", [1 << 21, 1 << 10])
def test_a_gpu_codes_as_well_as_the_cpu(scheme: str, trained: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tersor.encode.TRAINED", trained)
    state = network(width=32)
    recipe = tersor.Recipe(bpp=4, scheme=scheme)
    files = [tersor.compress(state, recipe, device=device) for device in ("cpu", "cuda")]
    errors = [error_of(f.state_dict(), state, "conv.weight", "fc.weight") for f in files]
    assert errors[1] < 1.1 * errors[0] and files[1].size <= recipe.budget(*files[1].given)


@needs_gpu
def test_nearest_codewords_are_those_of_the_cpu_and_scores_of_all_are_never_held() -> None:
    from tersor import kernels

    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(1 << 20, 8, generator=g), torch.randn(8, 1 << 12, generator=g)
    offset = torch.rand(1 << 12, generator=g)
    torch.cuda.reset_peak_memory_stats()
    codes, scores = kernels.nearest(a.cuda(), b.cuda(), offset.cuda())
    assert torch.cuda.max_memory_allocated() < 2 << 30  # all scores would be 16 GiB
    expected, best = kernels.nearest(a, b, offset)
    torch.testing.assert_close(scores.cpu(), best, rtol=1e-3, atol=1e-3)
    assert float((codes.cpu() != expected).float().mean()) < 1e-3  # ties, and sums in another order


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(TersorError, match=r"device 'cuda:99' is not to be had .*; leave it out"):
        tersor.compress(network(), tersor.Recipe(ratio=8, scheme="additive"), device="cuda:99")


def test_a_device_that_would_do_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.zeros", lambda *_, **__: None)
    with pytest.raises(TersorError, match="its trellis runs on the CPU"):
        tersor.compress(network(), tersor.Recipe(ratio=8), device="cuda")
