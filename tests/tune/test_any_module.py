"""Whatever the user's network is made of: the same outputs, the gradients of dense weights, a file of the same kind."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from tunables import MODELS, Tied, compressed, loaded, output, pair, sections_of, settled, shown, train

import tersor
from networks import assert_same
from tersor.tune.coded import CodedGroup

schemes = pytest.mark.parametrize("scheme", ["lattice", "2x16d4+lattice"])
models = pytest.mark.parametrize("name", MODELS)


@models
@schemes
def test_it_computes_what_the_archive_holds(name: str, scheme: str) -> None:
    net, model, archive = pair(name, scheme=scheme)
    before = copy.deepcopy(model.state_dict())
    inputs = MODELS[name][1]
    if name != "bags":  # which changes its weights as it computes
        assert_same(shown(net), archive.state_dict())
    assert torch.equal(output(net, inputs), output(loaded(model, archive), inputs))
    assert_same(model.state_dict(), before)
    parameters = dict(net.named_parameters())
    coded = sum(p.numel() for n, p in parameters.items() if n.startswith("groups."))
    assert 0 < coded < sum(p.numel() for p in model.parameters()) / 2
    assert all(p.requires_grad and p.is_leaf for p in parameters.values())


@models
@schemes
def test_gradients_are_those_of_dense_weights(name: str, scheme: str) -> None:
    """Dense gradients, pulled through each group's decoding, are what the tunable network gets."""
    net, model, archive = pair(name, scheme=scheme)
    dense, inputs = loaded(model, archive), MODELS[name][1]
    state = dense.state_dict(keep_vars=True)
    for key in (archive.index.names[i] for record in archive.index.groups for i in record.tensors):
        state[key].requires_grad_()  # buffers too: coded ones change with the codebooks
    for parameter in dense.parameters():
        parameter.requires_grad_()
    for network in (net.eval(), dense.eval()):
        (network(*inputs) - 1).square().sum().backward()
    for record, group in zip(archive.index.groups, net.groups, strict=True):
        assert isinstance(group, CodedGroup)
        values, given = group(), [_gradient(state[archive.index.names[i]]) for i in record.tensors]
        own = dict(group.named_parameters())
        expected = torch.autograd.grad(values, list(own.values()), given)
        for (key, parameter), want in zip(own.items(), expected, strict=True):
            assert parameter.grad is not None, key
            torch.testing.assert_close(parameter.grad, want, rtol=1e-4, atol=1e-5)
    for key, parameter in net.network.named_parameters():
        torch.testing.assert_close(parameter.grad, state[key].grad, rtol=1e-4, atol=1e-5)


def _gradient(value: torch.Tensor) -> torch.Tensor:
    if value.grad is None:
        return torch.zeros_like(value)
    return value.grad.to_dense() if value.grad.is_sparse else value.grad


@models
@pytest.mark.parametrize("moving", [False, True])
def test_what_is_frozen_is_what_was_evaluated(name: str, moving: bool) -> None:
    net, model, archive = pair(name, moving=moving, scheme="2x16d4+lattice" if name in ("tied", "lstm") else "auto")
    inputs = MODELS[name][1]
    losses = train(net, inputs, steps=8)
    assert losses[-1] < losses[0]
    if moving:
        net.settle()
        train(net, inputs, steps=1)
    streams = [sections_of(net.archive, g) for g in range(len(net.archive.index.groups))]
    net.round_()
    evaluated = output(net, inputs)
    weights = shown(net) if name != "bags" else {}
    frozen = net.freeze()
    frozen.verify()
    assert torch.equal(evaluated, output(loaded(model, frozen), inputs))
    if weights:
        assert_same(frozen.state_dict(), weights)
    if moving:
        assert 0.9 * archive.size <= frozen.size <= max(archive.size, archive.recipe.budget(*archive.given))
    else:
        assert abs(frozen.size - archive.size) <= 0.015 * archive.size  # kept tensors compress a little, as they please
    assert [sections_of(frozen, g) for g in range(len(frozen.index.groups))] == streams
    assert frozen.recipe == archive.recipe and frozen.index.ties == archive.index.ties
    assert net.freeze().to_bytes() == frozen.to_bytes()


def test_tied_weights_stay_one() -> None:
    net, _, archive = pair("tied")
    train(net, MODELS["tied"][1])
    net.refresh()
    assert isinstance(net.network, Tied)
    assert net.network.embed.weight is net.network.head.weight
    assert net.network.mix is net.network.again
    state = net.freeze().state_dict()
    assert torch.equal(state["embed.weight"], state["head.weight"])
    assert not torch.equal(state["embed.weight"], archive["embed.weight"])


def test_kept_tensors_that_are_one_in_the_archive_are_trained_as_one() -> None:
    model = settled(nn.Sequential(nn.Linear(12, 12), nn.Linear(12, 12)))
    model[1].bias.data = model[0].bias.data  # one memory, two parameters
    archive = compressed(model)
    assert archive.index.ties
    apart = settled(nn.Sequential(nn.Linear(12, 12), nn.Linear(12, 12)))
    net = tersor.tunable(apart, archive)
    train(net, (torch.ones(2, 12),))
    state = net.freeze().state_dict()
    evaluated = shown(net)
    assert torch.equal(evaluated["0.bias"], evaluated["1.bias"])
    assert torch.equal(evaluated["0.bias"], state["1.bias"])
