"""The laws of `DESIGN.md` that hold for every archive, whatever goes in."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tersor
from networks import State, assert_same, error_of, nbytes, network, raw
from tersor.codec import container
from tersor.errors import TersorError
from tersor.recipe import Recipe

DTYPES = [
    torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool, torch.complex64, torch.complex128,
    torch.float8_e4m3fn, torch.float8_e5m2,
]  # fmt: skip
CODED = DTYPES[:4]
SHAPES = [
    (), (0,), (1,), (0, 5), (3, 0, 2), (7,), (5000,), (40, 30), (1, 300), (300, 1), (64, 32, 1, 1), (8, 4, 3, 3),
    (8, 4, 5, 5),
    (2, 3, 7, 7), (32, 8, 3), (4, 4, 3, 3, 3), (96, 1, 3, 3), (3, 20, 16), (1, 1, 1, 1), (2, 2, 2, 2, 2, 2, 2, 2, 2),
]  # fmt: skip
SCHEMES = ["auto", "lattice", "2x16d4", "2x16d4+lattice"]
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def filled(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Values like weights in floats, anything small in the rest."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if dtype == torch.bool:
        return values > 0
    if dtype.is_floating_point or dtype.is_complex:
        return (0.1 * values).to(dtype)
    return (40 * values).abs().to(torch.int64).to(dtype)


@st.composite
def states(draw: st.DrawFn) -> State:
    """Tensors of any name, shape and type, contiguous or not, some of them tied."""
    state: State = {}
    for name in draw(st.lists(names, min_size=1, max_size=8, unique=True)):
        if state and draw(st.integers(0, 4)) == 0:
            state[name] = draw(st.sampled_from(list(state.values())))
            continue
        tensor = filled(draw(st.sampled_from(SHAPES)), draw(st.sampled_from(DTYPES)), draw(st.integers(0, 99)))
        state[name] = tensor.movedim(0, -1) if tensor.dim() > 1 and draw(st.booleans()) else tensor
    return state


def roomy(state: State) -> int:
    """Bytes that are enough for whatever a few small tensors may be, and fewer than would keep a large one exact."""
    floats = sum(t.numel() for t in state.values() if t.dtype in CODED)
    rest = nbytes({n: t for n, t in state.items() if t.dtype not in CODED or t.numel() < 256 or t.dim() < 2})
    return 2000 + rest + floats // 2 + 60 * len(state)


@settings(max_examples=60)
@given(states(), st.sampled_from(SCHEMES), st.sampled_from(["none", "tensor", "row"]))
def test_every_tensor_comes_back_as_it_was_or_nearly(state: State, scheme: str, scales: str) -> None:
    recipe = Recipe(size=roomy(state), scheme=scheme, scales=scales, effort="draft")  # type: ignore[arg-type]
    archive = tersor.compress(state, recipe)
    plan = tersor.dry_run(state, recipe)
    found, kept = archive.state_dict(), [state[plan.entries[i].name] for i, _ in plan.kept]
    assert list(found) == list(state) == list(archive) and archive.size <= roomy(state)
    for name, tensor in state.items():
        assert (found[name].shape, found[name].dtype) == (tensor.shape, tensor.dtype)
        if any(tensor is k for k in kept):
            assert raw(found[name]) == raw(tensor)
        else:
            assert (found[name].double() - tensor.double()).abs().max() < 0.5 * tensor.double().abs().max()
        twins = [n for n in state if state[n] is tensor and tensor.numel()]
        assert len({found[n].data_ptr() for n in twins}) <= 1


@settings(max_examples=30)
@given(states(), st.sampled_from(SCHEMES))
def test_decoding_is_exact_for_what_is_stored(state: State, scheme: str) -> None:
    archive = tersor.compress(state, Recipe(size=roomy(state), scheme=scheme, effort="draft"))
    found = archive.state_dict()
    assert_same(tersor.Archive(archive.to_bytes()).state_dict(), found)
    assert_same({name: archive[name] for name in archive}, found)
    archive.verify()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "recipe", [{"ratio": 6}, {"ratio": 1.01}, {"bpp": 5, "scales": "row", "keep": "bf16"}], ids=str
)
def test_every_byte_of_the_file_is_accounted_for(scheme: str, recipe: dict[str, object]) -> None:
    archive = tersor.compress(network(), Recipe(scheme=scheme, effort="draft", **recipe))  # type: ignore[arg-type]
    data = archive.to_bytes()
    index_length = len(data) - sum(archive.index.lengths) - len(container.header(9999, 9999))
    head = container.header(index_length, sum(archive.index.lengths))
    assert data.startswith(head)
    assert archive.size == len(data) == len(head) + index_length + sum(archive.index.lengths)
    assert b"".join(archive.section(i) for i in range(len(archive.index.lengths))) == data[len(head) + index_length :]


@pytest.mark.parametrize("share", [0.0, 0.8])
@pytest.mark.parametrize(
    ("scheme", "effort"), [("lattice", "draft"), ("auto", "default"), ("2x16d4", "draft"), ("2x16d4+lattice", "draft")]
)
def test_the_same_bytes_at_any_thread_count_and_the_random_state_is_left_alone(
    scheme: str, effort: str, share: float
) -> None:
    state = network(3, 24)
    if "x" not in scheme:  # enough for several chunks
        state |= {name: filled((300, 500), torch.float32, i) for i, name in enumerate(["large", "more"])}
    for name, t in state.items() if share else ():
        state[name] = t * (filled(t.shape, torch.float64, 7).abs() > 0.13) if t.is_floating_point() else t
    files, tensors, threads = set(), set(), torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            torch.manual_seed(count), np.random.seed(count), random.seed(count)  # noqa: NPY002
            before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
            archive = tersor.compress(state, Recipe(ratio=20, scheme=scheme, effort=effort))  # type: ignore[arg-type]
            files.add(archive.to_bytes())
            tensors.add(b"".join(raw(t) for t in archive.state_dict().values()))
            after = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
            assert torch.equal(before[0], after[0]) and before[2] == after[2]
            assert all(np.array_equal(a, b) for a, b in zip(before[1], after[1], strict=True))
    finally:
        torch.set_num_threads(threads)
    assert len(files) == len(tensors) == 1


LARGE = [(40, 30), (24, 16, 3, 3), (5000,), (3, 20, 16), (64, 32, 1, 1), (96, 1, 3, 3), (2, 2, 2, 2, 2, 2, 2, 2, 2)]


@st.composite
def pruned_states(draw: st.DrawFn) -> State:
    """Floats of which some elements, channels or nothing at all is zero; some of them tied."""
    state: State = {}
    for i in range(draw(st.integers(1, 5))):
        tensor = filled(draw(st.sampled_from(LARGE)), draw(st.sampled_from(CODED)), i)
        g = torch.Generator().manual_seed(draw(st.integers(0, 99)))
        share, channels = draw(st.sampled_from([0.0, 0.02, 0.3, 0.8, 0.99, 1.0])), draw(st.booleans())
        where = (tensor.shape[0], *[1] * (tensor.dim() - 1)) if channels else tensor.shape
        state[f"t{i}"] = tensor * (torch.rand(where, generator=g) >= share)
    if draw(st.booleans()):
        state["tied"] = state["t0"]
    return state


@settings(max_examples=60)
@given(
    pruned_states(), st.sampled_from(SCHEMES), st.sampled_from(["none", "tensor", "row"]),
    st.sampled_from(["auto", "keep"]), st.sampled_from([2.5, 6, 25]),
)  # fmt: skip
def test_zeros_are_kept_exactly(state: State, scheme: str, scales: str, sparsity: str, ratio: float) -> None:
    recipe = Recipe(ratio=ratio, scheme=scheme, scales=scales, sparsity=sparsity, effort="draft")  # type: ignore[arg-type]
    try:
        archive = tersor.compress(state, recipe)
    except TersorError as error:
        assert "smallest possible" in str(error)
        assume(False)
    archive.verify()
    found, plan = archive.state_dict(), tersor.dry_run(state, recipe)
    sparse = {archive.index.names[i] for r in archive.index.groups if r.survivors is not None for i in r.tensors}
    planned = {plan.entries[i].name for p in plan.groups if p.survivors is not None for i in p.tensors}
    assert sparse == (planned if archive.index.groups else set())  # all of it may fit exactly
    assert archive.size <= plan.budget and archive.version == (2 if sparse else 1)
    for name in sparse:
        assert not found[name][state[name] == 0].any()
        assert raw(archive[name]) == raw(found[name])
    assert_same(tersor.Archive(archive.to_bytes()).state_dict(), found)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_source_is_not_written_to_and_its_order_of_memory_does_not_matter(scheme: str) -> None:
    state = network()
    before = {name: t.clone() for name, t in state.items()}
    files = {tersor.compress(state, Recipe(ratio=8, scheme=scheme, effort="draft")).to_bytes()}
    assert_same(state, before)
    state["conv.weight"] = state["conv.weight"].to(memory_format=torch.channels_last)
    state["fc.weight"] = state["fc.weight"].t().contiguous().t()
    files.add(tersor.compress(state, Recipe(ratio=8, scheme=scheme, effort="draft")).to_bytes())
    assert len(files) == 1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_compressing_what_came_out_again_loses_little(scheme: str) -> None:
    state, recipe = network(), Recipe(ratio=8, scheme=scheme, effort="draft")
    once = tersor.compress(state, recipe).state_dict()
    again = tersor.compress(once, recipe).state_dict()
    assert error_of(again, once) < error_of(once, state)
