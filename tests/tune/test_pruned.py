"""Networks with zeros keep them: with codes that stay and codes that move, through settling and in the file."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from torch import nn
from tunables import compressed, loaded, noise, output, sections_of, settled, shown, train

import tersor
from tersor.archive import Archive
from tersor.tune.coded import CodedGroup
from tersor.tune.tunable import Tunable

IMAGES = (noise(3, 3, 8, 8),)
CASES: dict[str, dict[str, Any]] = {
    "masks": {"ratio": 4.5},
    "zeros among the symbols": {"ratio": 12, "keep": "bf16"},
    "scales": {"ratio": 4.5, "scales": "tensor"},
    "codes": {"ratio": 5, "scheme": "2x16d4"},
    "both": {"ratio": 5, "scheme": "2x16d4+lattice", "scales": "row"},
}
cases = pytest.mark.parametrize("case", CASES)
both = pytest.mark.parametrize("moving", [False, True])


def pruned(share: float = 0.6) -> nn.Sequential:
    """Pruned in the last dimensions' order of no kind, but for a layer that is dense and one that is all zero."""
    model = settled(
        nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(),
            nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1), nn.Flatten(), nn.Linear(256, 10),
        )
    )  # fmt: skip
    with torch.no_grad():
        for i in (0, 3, 8):
            weight = model[i].weight
            weight.mul_(noise(*weight.shape, seed=i).abs() > torch.quantile(noise(*weight.shape, seed=i).abs(), share))
        model[5].weight.zero_()
        model[5].bias.fill_(0.5)
    return model  # type: ignore[return-value]


def made(case: str, moving: bool = False) -> tuple[Tunable, nn.Sequential, Archive]:
    model, archive = pruned(), _archive(case)
    return tersor.tunable(model, archive, moving=moving), model, archive


@functools.cache
def _archive(case: str) -> Archive:
    return compressed(pruned(), **CASES[case])


def lost_zeros(values: dict[str, torch.Tensor], model: nn.Module) -> list[str]:
    """Names of tensors that are not zero everywhere the model's weight is."""
    weights = {name: p for name, p in model.state_dict().items() if p.dim() > 1}
    return [name for name, p in weights.items() if (values[name][p == 0] != 0).any()]


def test_the_cases_are_what_they_say() -> None:
    counts = {case: made(case)[2].index.groups[-1].survivors for case in CASES}
    sizes = [p.numel() for name, p in pruned().state_dict().items() if p.dim() > 1 and not name.startswith("6")]
    assert all(survivors is not None for survivors in counts.values())
    whole = {case for case, survivors in counts.items() if list(survivors or ()) == sizes}
    assert "zeros among the symbols" in whole and not whole & {"masks", "codes", "both"}
    assert 0 in (counts["masks"] or ())
    model = pruned()
    dense = [record for record in made("masks")[2].index.groups if record.survivors is None]
    assert [len(record.tensors) for record in dense] == [1] and not lost_zeros(dict(model.state_dict()), model)


@cases
def test_it_computes_what_the_archive_holds(case: str) -> None:
    net, model, archive = made(case)
    assert torch.equal(output(net, IMAGES), output(loaded(model, archive), IMAGES))
    for g, group in enumerate(net.groups):
        expected = dict(archive.group(g).decode(range(len(group.shapes))))  # type: ignore[arg-type]
        assert isinstance(group, CodedGroup)
        for t, value in enumerate(group()):
            assert value.detach().numpy().tobytes() == expected[t].tobytes()


@cases
@both
def test_zeros_stay_exactly_zero(case: str, moving: bool) -> None:
    net, model, archive = made(case, moving)
    assert lost_zeros(shown(net), model) == []
    for step in range(6):
        train(net.train(), IMAGES, steps=1, lr=0.05)
        if moving and step % 2:
            net.choose(0.2)
        assert lost_zeros(shown(net), model) == []
    if moving:
        net.settle()
        assert lost_zeros(shown(net), model) == []
        train(net.train(), IMAGES, steps=3, lr=0.05)
    evaluated = output(net.round_(), IMAGES)
    streams = [sections_of(net.archive, g) for g in range(len(net.groups))]
    frozen = net.freeze()
    frozen.verify()
    state = frozen.state_dict()
    assert lost_zeros(state, model) == [] and state["8.weight"].any()
    assert torch.equal(evaluated, output(loaded(model, frozen), IMAGES))
    assert [sections_of(frozen, g) for g in range(len(net.groups))] == streams
    assert frozen.size <= max(archive.size, archive.recipe.budget(*archive.given)) + 24 * (not moving)
    survivors = [record.survivors for record in frozen.index.groups]
    assert moving or survivors == [record.survivors for record in archive.index.groups]


@both
def test_what_survives_is_trained(moving: bool) -> None:
    net, model, _ = made("masks", moving)
    before = shown(net)
    losses = train(net, IMAGES, steps=10)
    after = shown(net)
    assert losses[-1] < losses[0]
    for name in ("0.weight", "8.weight"):
        alive = model.state_dict()[name] != 0
        assert (before[name] != after[name])[alive].float().mean() > (0.1 if moving else 0.9)
    assert not after["5.weight"].any()


def test_gradients_at_zeros_go_nowhere() -> None:
    net, model, archive = made("both")
    dense = loaded(model, archive).requires_grad_()
    for network in (net.eval(), dense.eval()):
        (network(*IMAGES) - 1).square().sum().backward()
    state = dense.state_dict(keep_vars=True)
    for record, group in zip(archive.index.groups, net.groups, strict=True):
        names = [archive.index.names[i] for i in record.tensors]
        given = [state[name].grad for name in names]
        if record.survivors is not None:  # whatever there may be at a zero
            given = [g + 1e3 * (model.state_dict()[name] == 0) for name, g in zip(names, given, strict=True)]
        expected = torch.autograd.grad(group(), list(group.parameters()), given)
        for parameter, want in zip(group.parameters(), expected, strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, want, rtol=1e-3, atol=1e-4 * float(want.abs().max()))


def test_masks_are_the_archives_even_where_the_model_has_other_weights() -> None:
    _, model, archive = made("masks")
    dense = settled(copy.deepcopy(model), seed=5)  # the network before it was pruned, say
    net = tersor.tunable(dense, archive, moving=True)
    train(net, IMAGES)
    assert lost_zeros(shown(net), model) == []
    assert lost_zeros(net.freeze().state_dict(), model) == []


@both
def test_copies_and_state_dicts_keep_them_too(moving: bool) -> None:
    net, model, archive = made("masks", moving)
    train(net, IMAGES)
    twin, fresh = copy.deepcopy(net), tersor.tunable(model, archive, moving=moving)
    fresh.load_state_dict(net.state_dict())
    for other in (twin, fresh):
        assert torch.equal(output(other, IMAGES), output(net, IMAGES))
        train(other.train(), IMAGES)
        assert lost_zeros(other.freeze().state_dict(), model) == []


@both
def test_distilling_a_pruned_network(moving: bool) -> None:
    net, model, archive = made("masks", moving)
    data = [noise(8, 3, 8, 8, seed=s) for s in range(4)]
    tersor.distill(net, model, data, steps=12, share=0.5)
    frozen = net.freeze()
    assert lost_zeros(frozen.state_dict(), model) == [] and frozen.index.groups[-1].survivors is not None
    assert frozen.size <= max(archive.size, archive.recipe.budget(*archive.given)) + 24 * (not moving)
