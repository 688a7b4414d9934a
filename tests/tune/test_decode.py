"""Decoding that can be differentiated: the reader's bits, and the gradients of dense weights."""

from __future__ import annotations

import functools
import itertools
from unittest import mock

import numpy as np
import pytest
import torch
from tunables import compressed, noise

import tersor
from networks import raw
from tersor.archive import Archive
from tersor.lattice import planes
from tersor.representations import scales as stored_scales
from tersor.representations.codes_stage import LIMIT
from tersor.representations.scales import MAX_LEVEL
from tersor.tune import decode, rewrite
from tersor.tune.coded import CodedGroup

SCHEMES = ("lattice", "2x16d4", "3x8d9", "2x16d4+lattice")
KINDS = ("none", "tensor", "row")
schemes = pytest.mark.parametrize("scheme", SCHEMES)
kinds = pytest.mark.parametrize("kind", KINDS)


def state(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Kernels whose weights are alike, so that a basis is worth it; a matrix; a stack; a vector with an odd end."""
    out = {
        "kernels": 0.1 * noise(40, 10, 3, 3) + 0.3 * noise(40, 10, 1, 1, seed=1),
        "matrix": 0.2 * noise(17, 13, seed=2),
        "stack": noise(2, 5, 7, seed=3),
        "vector": 0.05 * noise(4099, seed=4),
    }
    return {name: value.to(dtype) for name, value in out.items()}


@functools.cache
def archive_of(scheme: str, kind: str, dtype: torch.dtype = torch.float32) -> Archive:
    recipe = tersor.Recipe(ratio=5, effort="draft", min_size=32, scheme=scheme, scales=kind)  # type: ignore[arg-type]
    return tersor.compress(state(dtype), recipe)


def groups_of(archive: Archive) -> list[CodedGroup]:
    return [CodedGroup(archive.group(g)) for g in range(len(archive.index.groups))]


def check_bits(archive: Archive, groups: list[CodedGroup]) -> None:
    for g, group in enumerate(groups):
        expected = dict(archive.group(g).decode(range(len(group.shapes))))
        for t, value in enumerate(group()):
            assert value.dtype == torch.float32 and value.is_contiguous()
            assert value.detach().numpy().tobytes() == expected[t].tobytes()
            assert value.shape == expected[t].shape


def wander(groups: list[CodedGroup], far: float, seed: int = 0) -> None:
    """Move all parameters away from what a file can hold."""
    g = torch.Generator().manual_seed(seed)
    for group in groups:
        for parameter in group.parameters():
            scale = parameter.detach().abs().mean().clamp(min=0.1) * far
            parameter.data += scale * torch.randn(parameter.shape, generator=g)


@schemes
@kinds
def test_forward_is_what_a_reader_decodes_bit_for_bit(scheme: str, kind: str) -> None:
    with mock.patch.object(planes, "PIECE", 200), mock.patch.object(planes, "CHUNK", 900):
        archive = archive_of.__wrapped__(scheme, kind)
        groups = groups_of(archive)
        check_bits(archive, groups)
        assert any(archive.group(g).chunks > 1 for g in range(len(groups)))
        wander(groups, 0.3)
        frozen = rewrite.rewritten(archive, [group.stored() for group in groups], {})
        check_bits(frozen, groups)
        assert frozen.to_bytes() != archive.to_bytes()
        again = groups_of(frozen)
        assert rewrite.rewritten(frozen, [group.stored() for group in again], {}).to_bytes() == frozen.to_bytes()


def test_the_cases_have_what_they_are_meant_to_have() -> None:
    """All stages: codebooks, bases and lattices without, scales of tensors and rows."""
    groups = [g for s, k in itertools.product(SCHEMES, KINDS) for g in groups_of(archive_of(s, k))]
    assert {(g.codebooks is not None, g.gain is not None) for g in groups} == {(0, 1), (1, 0), (1, 1)}
    assert {g.basis is not None for g in groups if g.gain is not None and g.codebooks is None} == {False, True}
    assert {0 if g.scales is None else g.scales.numel() for g in groups} > {0, 1, 40}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("scheme", ["lattice", "2x16d4+lattice"])
def test_other_types_are_those_of_the_file_and_of_the_model(dtype: torch.dtype, scheme: str) -> None:
    archive = archive_of(scheme, "row", dtype)
    expected = archive.state_dict()
    name = str(dtype).removeprefix("torch.")
    for g, group in enumerate(groups_of(archive)):
        for i, value in zip(archive.index.groups[g].tensors, group(), strict=True):
            own = decode.Stored.apply(value, name, dtype)
            wide = decode.Stored.apply(value, name, torch.float64)
            key = archive.index.names[i]
            assert own.dtype == dtype and raw(own) == raw(expected[key])
            assert raw(wide) == raw(expected[key].double())
            (gradient,) = torch.autograd.grad(own.double().sum(), value)
            assert gradient.dtype == torch.float32 and torch.equal(gradient, torch.ones_like(value))


def test_float16_ends_at_its_largest_number() -> None:
    value = torch.tensor([1e6, -7e4, 1.0], requires_grad=True)
    assert decode.Stored.apply(value, "float16", torch.float32).tolist() == [65504.0, -65504.0, 1.0]


def dense(group: CodedGroup) -> list[torch.Tensor]:
    """The same tensors by ordinary differentiable operations, without any rounding."""
    total = torch.zeros(sum(group._sizes), group.record.dim)
    if group.codebooks is not None:
        one_hot = torch.nn.functional.one_hot(group._codes.long(), group.codebooks.shape[1]).float()
        total = total + torch.einsum("nmk,mkd->nd", one_hot, group.codebooks)
    if group.gain is not None:
        assert group.record.lattice is not None
        part = group._points * (group.record.lattice.step / 128) * group.gain.exp()
        total = total + (part if group.basis is None else part @ group.basis.T)
    if group.scales is not None:
        total = total * torch.exp2(group.scales)[group._owner][:, None]
    flat = [v.reshape(-1) for v in total.split(group._sizes)]
    return [v[: int(np.prod(s))].reshape(s) for v, s in zip(flat, group.shapes, strict=True)]


@schemes
@kinds
def test_gradients_are_those_of_autograd_through_dense_weights(scheme: str, kind: str) -> None:
    for group in groups_of(archive_of(scheme, kind)):
        given = [noise(*shape, seed=t) for t, shape in enumerate(group.shapes)]
        own = list(group.parameters())
        found = torch.autograd.grad(group(), own, given)
        expected = torch.autograd.grad(dense(group), own, given)
        for mine, want in zip(found, expected, strict=True):
            assert want.abs().max() > 0
            torch.testing.assert_close(mine, want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))


@schemes
@kinds
def test_gradients_are_finite_differences_between_storable_values(scheme: str, kind: str) -> None:
    """Stepping to the neighbouring integers changes a linear loss as the gradient says."""
    for group in groups_of(archive_of(scheme, kind)):
        given = [noise(*shape, seed=t) for t, shape in enumerate(group.shapes)]

        def loss(group: CodedGroup = group, given: list[torch.Tensor] = given) -> torch.Tensor:
            parts = [(v.double() * g).sum() for v, g in zip(group(), given, strict=True)]
            return torch.stack(parts).sum()

        gradients = torch.autograd.grad(loss(), list(group.parameters()))
        steps = {"codebooks": None, "basis": 1 / 127, "gain": 1e-3, "scales": 1 / 16}
        for (name, parameter), gradient in zip(group.named_parameters(), gradients, strict=True):
            step = steps[name]
            for k in noise(min(parameter.numel(), 6)).argsort().tolist() if parameter.numel() > 1 else [0]:
                at = np.unravel_index(k * (parameter.numel() // 6 or 1) % parameter.numel(), parameter.shape)
                width = float(group._units[at[0]]) if step is None else step
                before = parameter.detach().clone()
                values = []
                for sign in (1, -1):
                    parameter.data[at] = before[at] + sign * width
                    values.append(float(loss().detach()))
                    parameter.data.copy_(before)
                inside = abs(float(before[at])) <= (LIMIT - 1.5) * width if name in ("codebooks", "basis") else True
                if inside:
                    slope = (values[0] - values[1]) / (2 * width)
                    assert slope == pytest.approx(float(gradient[at]), rel=2e-2, abs=1e-3 * float(gradient.abs().max()))


def test_a_codeword_collects_the_gradients_of_all_vectors_that_use_it() -> None:
    codes = torch.tensor([[0, 2], [0, 1], [3, 2]], dtype=torch.int32)
    books = noise(2, 4, 5).requires_grad_()
    given = noise(3, 5, seed=1)
    decode.SumCodewords.apply(codes, books).backward(given)
    assert books.grad is not None
    nothing = torch.zeros(5)
    for found, want in zip(books.grad[0], [given[0] + given[1], nothing, nothing, given[2]], strict=True):
        assert torch.equal(found, want)
    for found, want in zip(books.grad[1], [nothing, given[1], given[0] + given[2], nothing], strict=True):
        assert torch.equal(found, want)


@kinds
def test_backward_may_come_in_parts(kind: str) -> None:
    """As under reentrant checkpointing: one tensor's gradient after the other's, nothing freed in between."""
    (group,) = groups_of(archive_of("2x16d4+lattice", kind))
    given = [noise(*shape, seed=t) for t, shape in enumerate(group.shapes)]
    own = list(group.parameters())
    at_once = torch.autograd.grad(group(), own, given)
    values = group()
    parts = [torch.autograd.grad(v, own, g) for v, g in zip(values, given, strict=True)]
    for k, want in enumerate(at_once):
        torch.testing.assert_close(sum(part[k] for part in parts), want, rtol=1e-4, atol=1e-4)


def test_sparse_gradients_become_dense() -> None:
    (group,) = groups_of(compressed(torch.nn.Embedding(40, 12)))
    (table,) = group()
    rows = torch.tensor([3, 3, 7])
    torch.nn.functional.embedding(rows, table, sparse=True).sum().backward()
    found = {name: p.grad for name, p in group.named_parameters()}
    (again,) = group()
    expected = torch.autograd.grad(torch.nn.functional.embedding(rows, again).sum(), list(group.parameters()))
    for gradient, want in zip(found.values(), expected, strict=True):
        assert gradient is not None and gradient.layout == torch.strided
        torch.testing.assert_close(gradient, want)


def test_each_tensor_has_memory_of_its_own() -> None:
    (group,) = groups_of(archive_of("2x16d4", "none"))
    values = group()
    assert len({v.untyped_storage().data_ptr() for v in values}) == len(values)
    with torch.no_grad():  # as layers do that renormalise their weights
        values[0].mul_(2)
    assert not torch.equal(values[0], group()[0]) and torch.equal(values[1], group()[1])


def test_rounding_is_idempotent() -> None:
    books, units = noise(3, 8, 4), torch.tensor([0.01, 1e-30, 0.0])
    once = decode.RoundCodebooks.apply(books, units)
    assert torch.equal(decode.RoundCodebooks.apply(once, units), once)
    assert float(once[0].abs().max()) <= LIMIT * 0.01 * 1.0001 and not once[2].any()
    basis = decode.RoundBasis.apply(noise(4, 4))
    assert torch.equal(decode.RoundBasis.apply(basis), basis) and float(basis.abs().max()) <= 1


def test_every_scale_is_that_of_the_format() -> None:
    levels = np.arange(-MAX_LEVEL, MAX_LEVEL + 1)
    logs = torch.from_numpy(levels / stored_scales.STEPS).float()
    owner = torch.arange(len(levels))
    table = torch.from_numpy(decode.scale_table())
    found = decode.Scale.apply(torch.ones(len(levels), 1), logs, table, owner)[:, 0]
    assert found.numpy().tobytes() == stored_scales.scale_of(levels).tobytes()
    beyond = decode.scale_levels(torch.tensor([1e4, -1e4, 0.49 / 16, 0.51 / 16]))
    assert beyond.tolist() == [MAX_LEVEL, -MAX_LEVEL, 0, 1]
