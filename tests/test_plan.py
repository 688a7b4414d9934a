from __future__ import annotations

import pytest
import torch

import tersor
from networks import network
from tersor.checkpoint import count_zeros, open_checkpoint
from tersor.errors import TersorError
from tersor.index import REASONS
from tersor.plan import Plan, choose_scheme, countable, make_plan
from tersor.recipe import Recipe


def plan_of(state: dict[str, torch.Tensor], **fields: object) -> Plan:
    return make_plan(open_checkpoint(state), Recipe(**{"ratio": 8, **fields}))  # type: ignore[arg-type]


def sparse_plan(state: dict[str, torch.Tensor], **fields: object) -> Plan:
    checkpoint, recipe = open_checkpoint(state), Recipe(**{"ratio": 8, **fields})  # type: ignore[arg-type]
    return make_plan(checkpoint, recipe, zeros=count_zeros(checkpoint, countable(checkpoint, recipe)))


def thinned(zeros: float, *shape: int) -> torch.Tensor:
    """Ones, of which a share is zero."""
    tensor = torch.ones(shape)
    tensor.view(-1)[: round(zeros * tensor.numel())] = 0
    return tensor


def reasons(plan: Plan) -> dict[str, str]:
    return {plan.entries[i].name: reason for i, reason in plan.kept}


STATE = {
    "conv": torch.zeros(32, 16, 3, 3), "matrix": torch.zeros(40, 40, dtype=torch.bfloat16),
    "double": torch.zeros(40, 40, dtype=torch.float64), "bias": torch.zeros(4095), "long": torch.zeros(4096),
    "small": torch.zeros(15, 17), "just": torch.zeros(16, 16), "counter": torch.tensor(3), "mask": torch.zeros(90) > 0,
    "phase": torch.zeros(30, 30, dtype=torch.complex64), "eight": torch.zeros(30, 30, dtype=torch.float8_e4m3fn),
    "ids": torch.zeros(50, 50, dtype=torch.int8), "none": torch.zeros(0, 40), "number": torch.tensor(1.0),
}  # fmt: skip


def test_each_tensor_is_coded_or_kept_for_a_reason() -> None:
    plan = plan_of(STATE)
    kept = reasons(plan)
    assert kept == {
        "bias": "one-dimensional", "small": "small", "counter": "integers", "mask": "booleans", "phase": "complex",
        "eight": "8-bit floats", "ids": "integers", "none": "empty", "number": "one-dimensional",
    }  # fmt: skip
    assert set(kept.values()) <= set(REASONS)
    coded = [plan.entries[i].name for g in plan.groups for i in g.tensors]
    assert sorted([*coded, *kept]) == sorted(STATE)
    assert plan.coded_weights == 32 * 16 * 9 + 2 * 1600 + 4096 + 256
    assert plan.coded_bytes == 4 * (32 * 16 * 9 + 4096 + 256) + 2 * 1600 + 8 * 1600


def test_the_recipe_moves_the_line() -> None:
    assert "small" not in reasons(plan_of(STATE, min_size=200))
    assert reasons(plan_of(STATE, min_size=257))["just"] == "small"
    excluded = reasons(plan_of(STATE, exclude=("co*", "matri[x]")))
    assert excluded["conv"] == excluded["matrix"] == "excluded" and excluded["counter"] == "integers"
    with pytest.raises(TersorError, match=r"'nothing\.\*' matches no tensor"):
        plan_of(STATE, exclude=("conv", "nothing.*"))


def test_kernels_of_a_size_share_a_group() -> None:
    state = {
        "a": torch.zeros(32, 16, 3, 3), "b": torch.zeros(64, 32, 1, 1), "c": torch.zeros(16, 8, 3, 3),
        "d": torch.zeros(40, 40), "depthwise": torch.zeros(512, 1, 3, 3), "five": torch.zeros(8, 4, 5, 5),
    }  # fmt: skip
    plan = plan_of(state, scheme="lattice")
    grouped = {tuple(plan.entries[i].name for i in g.tensors): g.dim for g in plan.groups}
    assert grouped == {("a", "c"): 9, ("b", "d"): 1, ("depthwise",): 9, ("five",): 25}
    (one,) = plan_of(state, scheme="lattice", groups="one").groups
    assert len(one.tensors) == 6 and one.dim == 1 and one.scheme is None and one.lattice
    few = {**state, "depthwise": torch.zeros(32, 1, 3, 3)}
    assert [plan_of(few).entries[i].name for i in plan_of(few).groups[0].tensors] == ["a", "c", "depthwise"]


@pytest.mark.parametrize(("scheme", "lattice"), [("3x64d8", False), ("3x64d8+lattice", True)])
def test_a_scheme_is_taken_at_its_word(scheme: str, lattice: bool) -> None:
    (group,) = plan_of(network(), scheme=scheme).groups
    assert (str(group.scheme), group.dim, group.lattice) == ("3x64d8", 8, lattice)
    assert group.text.startswith("3x64d8")


@pytest.mark.parametrize("scheme", ["16x65536d2", "2x65536d64", "1x65537d4", "17x2d4", "1x16d257"])
def test_codebooks_beyond_what_a_reader_takes_are_refused(scheme: str) -> None:
    with pytest.raises(TersorError, match=scheme):
        plan_of(network(), scheme=scheme)


@pytest.mark.parametrize("kernel", [1, 4, 9, 25, 27])
@pytest.mark.parametrize("weights", [300, 10**4, 10**6, 10**8])
@pytest.mark.parametrize("bits", [0.05, 0.3, 1.0, 2.0, 4.0, 8.0])
def test_schemes_chosen_can_spend_the_budget_and_no_more(kernel: int, weights: int, bits: float) -> None:
    scheme = choose_scheme(kernel, weights, bits)
    m, k, d = scheme.num_codebooks, scheme.codebook_size, scheme.vector_dim
    assert 1 <= m <= 16 and 8 <= k <= 256 and 4 <= d <= 16
    assert m == 16 or m * k.bit_length() / d >= bits
    assert k == 8 or 8 * m * k * d <= 0.1 * bits * weights


def test_ties_are_planned_once_and_told() -> None:
    shared = torch.zeros(40, 40)
    plan = plan_of({"a": shared, "b": shared, "c": torch.zeros(3)})
    assert [g.tensors for g in plan.groups] == [(0,)]
    assert plan.as_dict()["tied"] == {"b": "a"} and plan.coverage().endswith("tied: 1")
    assert plan.nbytes == 4 * 1603 and plan.parameters == 1603


def test_coverage_is_one_line_in_bytes_with_reasons() -> None:
    plan = plan_of(network())
    assert plan.coverage().startswith(f"coded {plan.coded_bytes:,} of {plan.nbytes:,} B (")
    assert "one-dimensional" in plan.coverage() and "booleans" in plan.coverage() and "\n" not in plan.coverage()
    assert plan_of({"a": torch.zeros(40, 40)}).coverage().endswith("nothing kept")


def test_a_dry_run_is_the_plan_and_takes_values_as_they_are() -> None:
    state = {"a": torch.full((40, 40), float("nan"))}
    plan = tersor.dry_run(state, Recipe(size=500))
    assert plan.as_dict()["predicted_size"] == plan.predicted == 500
    assert plan.as_dict()["groups"] == [{"scheme": plan.groups[0].text, "tensors": ["a"]}]
    assert plan_of(STATE, ratio=0.5).predicted == plan_of(STATE).nbytes


PRUNED = {
    "much": thinned(0.8, 32, 16, 3, 3), "some": thinned(0.1, 40, 40), "none": thinned(0, 40, 40),
    "gone": thinned(1, 20, 20), "bias": thinned(0.9, 20), "ids": torch.zeros(30, 30, dtype=torch.int32),
}  # fmt: skip


def sparse_tensors(plan: Plan) -> dict[str, int]:
    """Survivors by name."""
    groups = [g for g in plan.groups if g.survivors is not None]
    return {plan.entries[i].name: n for g in groups for i, n in zip(g.tensors, g.survivors or (), strict=True)}


def test_tensors_keep_their_zeros_by_their_share_and_by_the_network_s() -> None:
    kept = {"much": 922, "gone": 0}
    assert sparse_tensors(sparse_plan(PRUNED)) == {**kept, "some": 1440}  # 52 % of the whole network is zero
    dense = {**PRUNED, "large": thinned(0, 100, 100)}
    assert sparse_tensors(sparse_plan(dense)) == kept
    assert sparse_tensors(sparse_plan(dense, sparsity="keep")) == {**kept, "some": 1440}
    for plan in (sparse_plan(dense, sparsity="ignore"), plan_of(dense), sparse_plan({"a": torch.zeros(40, 40)})):
        assert sparse_tensors(plan) == {}
    for share, sparse in ((0.4999, False), (0.5, True)):
        assert bool(sparse_tensors(sparse_plan({"a": thinned(share, 100, 100)}))) is sparse


def test_only_tensors_to_be_coded_are_counted() -> None:
    checkpoint = open_checkpoint({**PRUNED, "tied": PRUNED["some"]})
    assert countable(checkpoint, Recipe(ratio=8, exclude=("go*",))) == ["much", "some", "none"]
    assert countable(checkpoint, Recipe(ratio=8, sparsity="ignore")) == []


@pytest.mark.parametrize(
    ("scheme", "text", "dim"),
    [("auto", "sparse lattice", 1), ("2x16d4", "sparse 2x16d4", 4), ("2x16d4+lattice", "sparse 2x16d4+lattice", 4)],
)
def test_what_survives_is_one_group_and_the_rest_as_before(scheme: str, text: str, dim: int) -> None:
    plan = sparse_plan(PRUNED, scheme=scheme)
    (group,) = [g for g in plan.groups if g.survivors is not None]
    assert (group.text, group.dim, group.lattice) == (text, dim, "lattice" in text)
    assert f"  {text}: 3 tensors, 6,608 weights, 64.3% zeros kept" in plan.lines()
    assert [[plan.entries[i].name for i in g.tensors] for g in plan.groups if g.survivors is None] == [["none"]]
    assert {"scheme": text, "tensors": ["much", "some", "gone"]} in plan.as_dict()["groups"]


def test_additive_schemes_count_masks_as_spent() -> None:
    state = {"a": thinned(0.5, 200, 200)}
    (group,) = sparse_plan(state, scheme="additive", ratio=16).groups
    (dense,) = plan_of(state, scheme="additive", ratio=16).groups
    assert group.scheme is not None and dense.scheme is not None and group.survivors == (20_000,)
    assert group.scheme.bits_per_weight < 2 * dense.scheme.bits_per_weight
