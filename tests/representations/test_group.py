from __future__ import annotations

import itertools
import math
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tersor
from tersor.lattice import fit, kernels, planes
from tersor.lattice.trellis import TRELLISES
from tersor.representations import scales
from tersor.representations.group import GroupCoder, GroupReader, GroupSpec, head_count, section_count

SHAPES = [((6, 5, 3, 3), (40, 6, 3, 3)), ((10, 33),), ((5000,), (7, 8)), ((3, 4, 5), (9, 2, 3)), ((20, 1, 3, 3),)]
shapes = st.sampled_from(SHAPES)


def spec_of(
    given_shapes: tuple[tuple[int, ...], ...], dim: int, kind: str = "none", effort: str = "default"
) -> GroupSpec:
    return GroupSpec(tuple(range(len(given_shapes))), given_shapes, dim, None, True, kind, effort, 0)


def tensors_of(given_shapes: tuple[tuple[int, ...], ...], seed: int = 0) -> list[np.ndarray]:
    """Tensors of different spread whose neighbours are alike, so that a basis is worth it."""
    rng = np.random.default_rng(seed)
    return [
        (10.0**-i * (rng.laplace(size=s) + 3 * rng.laplace(size=(*s[:-1], 1)))).astype(np.float32)
        for i, s in enumerate(given_shapes)
    ]


def coded(spec: GroupSpec, tensors: list[np.ndarray], step: float, **more: object) -> tuple[GroupCoder, GroupReader]:
    coder = GroupCoder(spec, [lambda t=t: t for t in tensors], **more)  # type: ignore[arg-type, misc]
    coder.at(step)
    predicted = coder.at(step)
    record, sections, errors = coder.finish()
    assert abs(sum(map(len, sections)) - predicted) < 32 + 12 * len(sections)
    assert len(sections) == section_count(record, len(coder.planes.chunk_starts) - 1)
    assert len(errors) == len(tensors)
    return coder, GroupReader(record, spec.shapes, sections.__getitem__)


def by_definition(coder: GroupCoder, reader: GroupReader) -> list[np.ndarray]:
    """Values from levels, one float32 operation at a time, by the words of the format."""
    assert coder.lattice is not None and coder.lattice.coded is not None and reader.lattice is not None
    lattice = coder.lattice.coded.lattice
    trellis = TRELLISES[lattice.memory]
    levels = iter(kernels.levels_of(coder.lattice.coded.symbols, coder.planes.chunk_starts, trellis).tolist())
    record, dim = reader.record.lattice, coder.spec.dim
    assert record is not None
    grid = [np.zeros(s, dtype=np.int64) for s in coder.planes.shapes]
    for piece in coder.planes.pieces:
        cols = coder.planes.shapes[piece.tensor].cols
        for j, row, col in itertools.product(range(dim), range(piece.first, piece.last), range(cols)):
            grid[piece.tensor][row, col, j] = next(levels)
    step = np.float32(record.step / 128)
    out = []
    for t, level in enumerate(grid):
        shift = np.array([0, *record.shifts])[np.minimum(abs(level), 3)]
        value = (128 * level - np.sign(level) * shift).astype(np.float32) * step
        if reader.lattice.basis is not None:
            basis = reader.lattice.basis.astype(np.float32) / np.float32(127)
            total = basis[:, 0] * value[..., :1]
            for j in range(1, dim):
                total = total + basis[:, j] * value[..., j : j + 1]
            value = total
        if coder.scale_levels:
            value = value * scales.scale_of(coder.scale_levels[t]).reshape(-1, 1, 1)
        out.append(value.ravel()[: math.prod(coder.spec.shapes[t])].reshape(coder.spec.shapes[t]))
    return out


@settings(max_examples=24)
@given(shapes, st.sampled_from(["none", "tensor", "row"]), st.sampled_from([0.002, 0.1, 3.0]), st.booleans(), st.data())
def test_what_is_read_is_what_the_levels_stand_for(
    given_shapes: tuple[tuple[int, ...], ...], kind: str, step: float, small: bool, data: st.DataObject
) -> None:
    dim = data.draw(st.sampled_from([1, 4, 9]))
    with mock.patch.object(planes, "PIECE", 100 if small else 1 << 19), mock.patch.object(planes, "CHUNK", 150):
        coder, reader = coded(spec_of(given_shapes, dim, kind), tensors_of(given_shapes), step)
    expected = by_definition(coder, reader)
    found = dict(reader.decode(range(len(given_shapes))))
    assert sorted(found) == list(range(len(given_shapes)))
    for i, values in enumerate(expected):
        assert found[i].dtype == np.float32 and found[i].tobytes() == values.tobytes()
        (alone,) = reader.decode([i])
        assert alone[0] == i and alone[1].tobytes() == values.tobytes()
    assert list(reader.check()) != []


@pytest.mark.parametrize("effort", ["draft", "default", "best"])
@pytest.mark.parametrize("given_shapes", SHAPES, ids=str)
def test_the_error_is_about_that_of_the_step(given_shapes: tuple[tuple[int, ...], ...], effort: str) -> None:
    tensors = tensors_of(given_shapes)
    _, reader = coded(spec_of(given_shapes, 1, effort=effort), tensors, 0.01)
    for i, values in reader.decode(range(len(tensors))):
        assert np.square(values - tensors[i]).mean() < 0.01**2
        assert np.abs(values - tensors[i]).max() < 0.06


def test_a_basis_is_stored_where_it_is_worth_it() -> None:
    correlated = tensors_of(((60, 40, 3, 3),))
    white = [np.random.default_rng(0).normal(size=(60, 40, 3, 3)).astype(np.float32)]
    found = [coded(spec_of(((60, 40, 3, 3),), 9), t, 0.1)[1].record for t in (correlated, white)]
    assert [r.lattice is not None and r.lattice.basis for r in found] == [True, False]
    assert [head_count(r) for r in found] == [3, 2]


def test_importance_moves_error_within_a_tensor() -> None:
    tensors = tensors_of(((40, 40),))
    weight = np.ones((40, 40), dtype=np.float32)
    weight[:20] = 100
    _, reader = coded(spec_of(((40, 40),), 1), tensors, 1.0, importance=[weight])
    ((_, values),) = reader.decode([0])
    error = np.square(values - tensors[0])
    assert error[:20].mean() < 0.3 * error[20:].mean()


def test_errors_are_told_in_half_decibels() -> None:
    tensors = tensors_of(((30, 40),))
    coder = GroupCoder(spec_of(((30, 40),), 1), [lambda: tensors[0]])
    for step in (1.0, 0.1, 0.01):
        coder.at(step)
        coder.at(step)
        record, sections, (told,) = coder.finish()
        ((_, values),) = GroupReader(record, ((30, 40),), sections.__getitem__).decode([0])
        share = np.square(values.astype(float) - tensors[0]).sum() / np.square(tensors[0].astype(float)).sum()
        assert abs(told + 20 * np.log10(share)) < 1.5


def test_the_finest_step_still_has_a_token_for_the_largest_value() -> None:
    tensors = [np.array([[1e6] + [1.0] * 63] * 3, dtype=np.float32)]
    coder = GroupCoder(spec_of(((3, 64),), 1), [lambda: tensors[0]])
    coder.at(coder.finest)
    coder.at(coder.finest)
    record, sections, _ = coder.finish()
    ((_, values),) = GroupReader(record, ((3, 64),), sections.__getitem__).decode([0])
    assert np.abs(values - tensors[0]).max() < 4 * coder.finest


def test_no_effort_leaves_a_memory_without_a_trellis() -> None:
    from tersor.representations.group import MEMORY

    assert set(MEMORY.values()) <= set(TRELLISES)
    assert fit.LAMBDA > 0


def test_errors_are_those_of_the_tensor_as_a_whole_also_with_row_scales() -> None:
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 40, generator=g) * torch.logspace(-2, 1, 64)[:, None]
    archive = tersor.compress({"w": weight}, tersor.Recipe(bpp=3, scales="row", effort="draft"))
    true = 10 * torch.log10((archive["w"] - weight).square().sum() / weight.square().sum())
    assert abs(-archive.index.errors[0] / 2 - float(true)) <= 0.3
