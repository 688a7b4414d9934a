from __future__ import annotations

import math
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from masks import made

from tersor.lattice import planes
from tersor.representations.group import GroupCoder, GroupReader, GroupSpec, section_count
from tersor.representations.sparse import ends

Shapes = tuple[tuple[int, ...], ...]
SHAPES: list[Shapes] = [
    ((6, 5, 3, 3), (40, 6, 3, 3)), ((10, 33),), ((700,), (7, 8), (9, 9)), ((3, 4, 5), (20, 1, 3, 3)),
]  # fmt: skip
MASKED = mock.patch.object(GroupCoder, "_choose", lambda self, step: None)  # what is tried first stays
KINDS = {"lattice": (None, True, 1), "codes": ((2, 8), False, 4), "both": ((1, 8), True, 3)}


def spec_of(shapes: Shapes, kind: str = "lattice", scales: str = "none") -> GroupSpec:
    codebooks, lattice, dim = KINDS[kind]
    return GroupSpec(tuple(range(len(shapes))), shapes, dim, codebooks, lattice, scales, "draft", 0, True)


def tensors_of(shapes: Shapes, share: float = 0.4, seed: int = 0) -> list[np.ndarray]:
    """Pruned tensors; with a share of 0 the last one is all zero and the others are not."""
    rng = np.random.default_rng(seed)
    out = []
    for i, shape in enumerate(shapes):
        keep = made(shape, "plain", share or (0.5 if i < len(shapes) - 1 or i == 0 else 0.0), seed + i)
        keep.flat[0] |= i == 0
        out.append((10.0**-i * rng.laplace(size=shape) * keep).astype(np.float32))
    return out


def coded(spec: GroupSpec, tensors: list[np.ndarray], step: float, **more: object) -> tuple[GroupCoder, GroupReader]:
    coder = GroupCoder(spec, [lambda t=t: t for t in tensors], **more)  # type: ignore[arg-type, misc]
    coder.at(step)
    predicted = coder.at(step)
    record, sections, errors = coder.finish()
    assert abs(sum(map(len, sections)) - predicted) < 32 + 12 * len(sections)
    assert len(sections) == section_count(record, len(coder.planes.chunk_starts) - 1)
    assert len(errors) == len(tensors)
    return coder, GroupReader(record, spec.shapes, sections.__getitem__)


@settings(max_examples=40)
@given(
    st.sampled_from(SHAPES), st.sampled_from(list(KINDS)), st.sampled_from(["none", "tensor", "row"]),
    st.sampled_from([0.01, 0.3, 4.0]), st.sampled_from([0.0, 0.05, 0.5, 0.95]), st.booleans(), st.booleans(),
)  # fmt: skip
def test_zeros_stay_zero_and_the_rest_is_near(
    shapes: Shapes, kind: str, scales: str, step: float, share: float, weighed: bool, small: bool
) -> None:
    tensors = tensors_of(shapes, share)
    more = {"importance": [None, *(np.abs(t) + 1 for t in tensors[1:])]} if weighed else {}
    with mock.patch.object(planes, "PIECE", 100 if small else 1 << 19), mock.patch.object(planes, "CHUNK", 150):
        coder, reader = coded(spec_of(shapes, kind, scales), tensors, step, **more)
    found = dict(reader.decode(range(len(shapes))))
    assert sorted(found) == list(range(len(shapes)))
    for i, tensor in enumerate(tensors):
        assert (found[i].shape, found[i].dtype) == (tensor.shape, np.float32)
        assert not found[i][tensor == 0].any()
        assert not np.signbit(found[i][tensor == 0]).any()
        assert found[i].tobytes() == coder.decoded()[i].tobytes()
        (alone,) = reader.decode([i])
        assert alone[0] == i and alone[1].tobytes() == found[i].tobytes()
        if kind == "lattice" and scales == "none" and not weighed:
            assert np.abs(found[i] - tensor).max() < 6 * step
    assert reader.record.scales == (1 if scales != "none" or weighed else 0)
    assert len(list(reader.check())) > 0


@settings(max_examples=20)
@given(st.sampled_from(SHAPES), st.sampled_from(list(KINDS)), st.booleans())
def test_masks_are_those_of_the_tensors(shapes: Shapes, kind: str, small: bool) -> None:
    tensors = tensors_of(shapes)
    with mock.patch.object(planes, "CHUNK", 150 if small else 1 << 17), MASKED:
        _, reader = coded(spec_of(shapes, kind), tensors, 0.1)
    assert reader.masks is not None and reader.record.survivors == tuple(np.count_nonzero(t) for t in tensors)
    for i in (*range(len(shapes)), 0):
        assert reader.masks[i].dtype == np.bool_ and np.array_equal(reader.masks[i], tensors[i] != 0)
    assert reader.planes.symbols <= sum(map(np.count_nonzero, tensors)) + len(shapes) * (reader.record.dim - 1)


def test_coarse_steps_leave_zeros_among_the_symbols_and_fine_ones_mask_them() -> None:
    shapes: Shapes = ((64, 32, 3, 3), (40, 50))
    tensors = tensors_of(shapes, 0.2)
    coarse, fine = (coded(spec_of(shapes), tensors, step)[1] for step in (3.0, 1e-3))
    assert coarse.record.survivors == (64 * 32 * 9, 2000) and all(m.all() for m in coarse.masks or [])
    assert fine.record.survivors == tuple(np.count_nonzero(t) for t in tensors)
    for reader in (coarse, fine):
        for i, values in reader.decode([0, 1]):
            assert not values[tensors[i] == 0].any()


def test_what_was_chosen_stays_when_settled() -> None:
    shapes: Shapes = ((40, 50),)
    tensors = tensors_of(shapes, 0.2)
    for settled in (False, True):
        coder = GroupCoder(spec_of(shapes), [lambda: tensors[0]])
        coder.at(3.0)
        if settled:
            coder.settle()
        coder.at(1e-3)
        assert (coder.finish()[0].survivors == (2000,)) is settled


def test_row_scales_become_one_per_tensor() -> None:
    shapes: Shapes = ((30, 20), (10, 12))
    _, reader = coded(spec_of(shapes, scales="row"), tensors_of(shapes), 0.05)
    assert reader.record.scales == 1 and reader.scales is not None and [s.size for s in reader.scales] == [1, 1]


@pytest.mark.parametrize("kind", ["lattice", "both"])
def test_errors_are_told_in_half_decibels(kind: str) -> None:
    shapes: Shapes = ((30, 40), (20, 20), (5, 5, 3, 3))
    tensors = tensors_of(shapes)
    for step in (0.5, 0.01):
        coder = GroupCoder(spec_of(shapes, kind), [lambda t=t: t for t in tensors])  # type: ignore[misc]
        coder.at(step)
        coder.at(step)
        record, sections, told = coder.finish()
        for i, values in GroupReader(record, shapes, sections.__getitem__).decode(range(3)):
            share = np.square(values.astype(float) - tensors[i]).sum() / np.square(tensors[i].astype(float)).sum()
            assert abs(told[i] + 20 * np.log10(share)) < 1.5


@pytest.mark.parametrize("step", [0.01, 2.0])
def test_nothing_left_in_one_tensor_or_in_all(step: float) -> None:
    shapes: Shapes = ((8, 9), (12, 4), (3, 5))
    for left in (0, 1, 72):
        tensors = [np.zeros(s, dtype=np.float32) for s in shapes]
        tensors[1].flat[:left] = 1.5
        _, reader = coded(spec_of(shapes), tensors, step)
        found = dict(reader.decode([2, 0, 1]))
        assert [found[i].shape for i in range(3)] == list(shapes)
        assert not found[0].any() and not found[2].any() and not found[1].flat[left:].any()


def test_a_tensor_without_zeros_needs_no_mask() -> None:
    shapes: Shapes = ((20, 30), (6, 5))
    tensors = [np.ones((20, 30), dtype=np.float32), tensors_of(((6, 5),))[0]]
    with MASKED:
        _, reader = coded(spec_of(shapes), tensors, 0.1)
    assert reader.record.survivors is not None and reader.record.survivors[0] == 600
    assert reader.sparse is not None and reader.sparse.read(0)[0].all() and reader.sparse.bits[0] == 0
    assert reader.planes.shapes[0] == (20, 30, 1)


def test_masks_stand_where_their_tensors_end() -> None:
    shapes: Shapes = ((30, 10), (4, 4), (30, 10))
    tensors = [np.ones(s, dtype=np.float32) for s in shapes]
    for t in tensors:
        t.flat[0] = 0
    with mock.patch.object(planes, "PIECE", 64), mock.patch.object(planes, "CHUNK", 64):
        coder = GroupCoder(spec_of(shapes), [lambda t=t: t for t in tensors])  # type: ignore[misc]
    assert sorted(t for chunk in ends(coder.planes) for t in chunk) == [0, 1, 2]
    assert len(ends(coder.planes)) == len(coder.planes.chunk_starts) - 1


def test_values_taken_later_are_held_to_the_zeros_too() -> None:
    shapes: Shapes = ((30, 40),)
    tensors = tensors_of(shapes)
    for step in (1.0, 1e-3):
        coder = GroupCoder(spec_of(shapes), [lambda: tensors[0]])
        coder.at(step)
        moved = tensors[0] + np.float32(0.3)
        for share in (1.0, 0.5):
            coder.renew([lambda moved=moved: moved], share)  # type: ignore[misc]
            coder.at(step)
            assert not coder.decoded()[0][tensors[0] == 0].any() and coder.decoded()[0].any()


def test_a_survivor_pads_at_most_a_vector() -> None:
    for count in (1, 5, 1023, 65536, 65537, 200_001):
        for dim in (1, 4):
            from tersor.representations.vectors import run

            rows, cols, _ = run(count, dim)
            assert 0 <= rows * cols * dim - count < dim * (1 + rows) and cols <= 1 << 16
            assert math.ceil(count / dim) <= rows * cols
    assert run(0, 3).size == 0
