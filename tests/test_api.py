from __future__ import annotations

import re
from typing import Any

import pytest
import torch

import tersor
from networks import State, assert_same, error_of, nbytes, network, raw
from tersor.errors import TersorError
from tersor.recipe import Recipe

SCHEMES = ["auto", "lattice", "2x16d4+lattice"]


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def met(state: State, recipe: Recipe) -> bool:
    """The file is within the target and near it, or exact, or the error says how small it can be and that works."""
    budget = recipe.budget(nbytes(state), sum(t.numel() for t in state.values()))
    try:
        archive = tersor.compress(state, recipe)
    except TersorError as error:
        (told,) = re.findall(r"smallest possible file is about ([\d,]+) B", str(error))
        smallest = int(told.replace(",", ""))
        assert smallest > budget and "\n" not in str(error)
        fields = {k: v for k, v in recipe.as_dict().items() if k not in ("ratio", "size", "bpp")}
        assert tersor.compress(state, Recipe(size=int(1.02 * smallest) + 1, **fields)).size <= 1.02 * smallest + 1
        return False
    assert archive.size <= budget
    if archive.size < 0.98 * budget:  # nothing is left to spend bytes on
        found, peak = archive.state_dict(), max(float(t.double().abs().max()) for t in state.values())
        assert all((found[n].double() - t.double()).abs().max() <= 2e-6 * peak for n, t in state.items())
    archive.verify()
    return True


@pytest.mark.parametrize("scheme", ["auto", "lattice"])
@pytest.mark.parametrize("target", [{"ratio": r} for r in (1.05, 1.5, 2, 3, 5, 8, 12, 16, 25, 50)], ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_ratios_are_met(scheme: str, target: dict[str, Any], seed: int) -> None:
    assert met(network(seed, 16 + 8 * seed), Recipe(scheme=scheme, **target)) or target["ratio"] >= 12


@pytest.mark.parametrize("ratio", [5, 9])
@pytest.mark.parametrize("scheme", ["additive", "3x16d3", "2x16d4+lattice"])
def test_ratios_are_met_with_codebooks(scheme: str, ratio: float) -> None:
    state, recipe = network(0, 24), Recipe(ratio=ratio, scheme=scheme, effort="draft")
    archive = tersor.compress(state, recipe)
    assert archive.size <= nbytes(state) / ratio
    if archive.size < 0.98 * nbytes(state) / ratio:  # every code of a fixed scheme is in use
        assert scheme == "3x16d3"
    assert error_of(archive.state_dict(), state) < 0.3 * error_of({n: t * 0 for n, t in state.items()}, state)


@pytest.mark.parametrize("target", [{"size": s} for s in ("1kB", 1500, 2000, 3333, "5KB", 8000)], ids=str)
@pytest.mark.parametrize("effort", ["draft", "default", "best"])
def test_sizes_are_met(target: dict[str, Any], effort: str) -> None:
    met({"a": randn(30, 40), "b": randn(8, 16, 3, 3, seed=1) * 0.01, "c": randn(12)}, Recipe(effort=effort, **target))  # type: ignore[arg-type]


@pytest.mark.parametrize("bpp", [0.2, 0.5, 1, 2, 4, 8, 16, 24, 40])
@pytest.mark.parametrize("count", [3, 4])
def test_bits_per_parameter_are_met(bpp: float, count: int) -> None:
    assert met({f"w{i}": randn(64, 80 + i, seed=i) for i in range(count)}, Recipe(bpp=bpp, effort="draft")) or bpp < 0.5


def test_a_file_of_little_but_headers_is_within_its_target() -> None:
    """Between a file of zeros and the first that says more, sizes jump by some dozens of bytes."""
    for size in (300, 320, 350, 400):
        assert size - 100 < tersor.compress({"w": randn(64, 80)}, Recipe(size=size, effort="draft")).size <= size


@pytest.mark.parametrize(
    "state",
    [
        {"w": randn(16, 16)}, {"w": randn(1, 256)}, {"w": randn(20, 20).half()}, {"w": randn(20, 20).double()},
        {"w": randn(20, 20).bfloat16(), "x": torch.arange(40)}, {"w": randn(5000)}, {"x": torch.arange(100)},
        {"x": torch.tensor(1)},
        {"w": torch.zeros(50, 50)}, {"w": torch.full((50, 50), 0.3)}, {"w": torch.zeros(50, 50), "v": randn(50, 50)},
        {"w": torch.eye(60)}, {"w": randn(50, 50).sign()}, {"w": torch.linspace(0, 1, 3000).reshape(60, 50)},
    ],
    ids=lambda state: ",".join(f"{t.dtype}{list(t.shape)}" for t in state.values()),
)  # fmt: skip
@pytest.mark.parametrize("ratio", [0.5, 1.3, 2.5, 4, 10])
def test_odd_states_meet_their_target_or_say_why_not(state: State, ratio: float) -> None:
    met(state, Recipe(ratio=ratio))


def test_generous_targets_give_everything_exactly() -> None:
    assert_same(tersor.compress(network(), Recipe(ratio=0.5)).state_dict(), network())


@pytest.mark.parametrize("bpp", [1.5, 3, 6, 10, 14])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_outlier_is_not_lost(bpp: float, scheme: str) -> None:
    state = {"w": randn(60, 60)}
    state["w"][7, 9] = 1e6
    found = tersor.compress(state, Recipe(bpp=bpp, scheme=scheme, effort="draft"))["w"]
    assert abs(float(found[7, 9]) - 1e6) < 30
    assert (found - state["w"]).abs().max() < 30


@pytest.mark.parametrize("scale", [1e-35, 1e-30, 1e-12, 1e12, 1e30, 1e35])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_values_of_any_size_are_coded_alike(scale: float, scheme: str) -> None:
    def share(state: State) -> float:
        found = tersor.compress(state, Recipe(size=1500, scheme=scheme, effort="draft"))["w"]
        return float((found.double() - state["w"].double()).square().sum() / state["w"].double().square().sum())

    plain = randn(50, 50)
    assert share({"w": plain * scale}) < 1.2 * share({"w": plain})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["conv.weight", "fc.bias", "norm.weight"])
@pytest.mark.parametrize("ratio", [1.1, 8])
def test_what_is_not_finite_is_named(bad: float, name: str, ratio: float) -> None:
    state = network()
    state[name].view(-1)[-1] = bad
    with pytest.raises(TersorError, match=re.escape(name)) as caught:
        tersor.compress(state, Recipe(ratio=ratio))
    assert "\n" not in str(caught.value)
    kept = tersor.compress(state, Recipe(ratio=1.02, exclude=(name,)))
    assert raw(kept[name]) == raw(state[name])


def test_floats_that_are_kept_may_be_rounded_to_bf16() -> None:
    state = {**network(), "double": randn(9).double(), "half": randn(9).half(), "left": randn(9)}
    found = tersor.compress(state, Recipe(ratio=6, keep="bf16", exclude=("left",))).state_dict()
    for name in ("norm.weight", "fc.bias", "double"):
        assert raw(found[name]) == raw(state[name].bfloat16().to(state[name].dtype))
    for name in ("half", "left", "mask", "norm.num_batches_tracked"):
        assert raw(found[name]) == raw(state[name])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "recipe", [{"scales": "tensor"}, {"scales": "row"}, {"groups": "one"}, {"groups": "kernel"}], ids=str
)
def test_scales_and_groups(scheme: str, recipe: dict[str, Any]) -> None:
    state = network(0, 24)
    archive = tersor.compress(state, Recipe(ratio=8, scheme=scheme, effort="draft", **recipe))
    found = archive.state_dict()
    assert error_of(found, state) < 0.2 * error_of({n: t * 0 for n, t in state.items()}, state)
    if recipe.get("groups") == "one":
        assert len(archive.index.groups) == 1


def test_relative_errors_are_even_where_scales_say_so() -> None:
    state = {"a": randn(60, 60), "b": randn(60, 60, seed=1) * 1e-3}
    shares = {}
    for scales in ("none", "tensor"):
        found = tersor.compress(state, Recipe(size=2800, scales=scales)).state_dict()  # type: ignore[arg-type]
        shares[scales] = [error_of(found, state, n) / float(state[n].square().sum()) for n in state]
    assert shares["none"][1] > 0.9 and shares["tensor"][1] < 1.3 * shares["tensor"][0] < 0.5


@pytest.mark.parametrize("ratio", [8, 14])
def test_more_effort_has_less_error(ratio: float) -> None:
    state = {"a": randn(160, 160), "b": randn(60, 60, 3, 3, seed=1)}
    draft, default, best = (
        error_of(tersor.compress(state, Recipe(ratio=ratio, effort=e)).state_dict(), state)  # type: ignore[arg-type]
        for e in ("draft", "default", "best")
    )
    assert best < 1.02 * default < 1.04 * draft


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("scales", ["none", "row"])
def test_error_goes_where_importance_is_not(scheme: str, scales: str) -> None:
    state = {"a": randn(60, 60), "b": randn(60, 60, seed=1)}
    recipe = Recipe(size=3000, scheme=scheme, scales=scales, effort="draft")  # type: ignore[arg-type]
    plain = tersor.compress(state, recipe)
    weighted = tersor.compress(state, recipe, importance={"a": torch.full((60, 60), 20.0), "b": torch.ones(60, 60)})
    for archive in (plain, weighted):
        assert 2940 <= archive.size <= 3000
    assert error_of(weighted.state_dict(), state, "a") < 0.7 * error_of(plain.state_dict(), state, "a")
    assert error_of(weighted.state_dict(), state, "b") > error_of(plain.state_dict(), state, "b")


def test_only_ratios_of_importance_matter_and_what_is_not_named_weighs_the_mean() -> None:
    state = {"a": randn(60, 60), "b": randn(60, 60, seed=1)}
    importance = {"a": randn(60, 60, seed=2).exp(), "b": randn(60, 60, seed=3).exp()}
    files = [
        tersor.compress(state, Recipe(size=2000), importance={n: w * factor for n, w in importance.items()}).to_bytes()
        for factor in (1, 1024)
    ]
    assert files[0] == files[1]
    alone = tersor.compress(state, Recipe(size=2000), importance={"a": torch.full((60, 60), 7.0)}).state_dict()
    assert 0.8 < error_of(alone, state, "a") / error_of(alone, state, "b") < 1.25


@pytest.mark.parametrize(
    ("importance", "message"),
    [
        ({"nothing": torch.ones(3)}, "nothing"), ({f"x{i}": torch.ones(3) for i in range(20)}, "x0"),
        ({"a": torch.ones(3)}, "a has shape"), ({"a": torch.ones(1600)}, "a has shape"),
        ({"a": torch.ones(40, 40) * -1}, "a"),
        ({"a": torch.ones(40, 40) * float("nan")}, "a"), ({"a": torch.ones(40, 40) * float("inf")}, "a"),
        ({"a": torch.zeros(40, 40)}, "zero"),
    ],
)  # fmt: skip
def test_importance_that_does_not_fit_is_one_line(importance: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(TersorError, match=message) as caught:
        tersor.compress({"a": randn(40, 40), "b": randn(40)}, Recipe(ratio=6), importance=importance)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    tersor.compress(network(), Recipe(ratio=8), progress=lambda *step: told.append(step))
    assert told and all(isinstance(stage, str) and 0 < done <= total for stage, done, total in told)


def test_excluded_tensors_are_kept_exactly() -> None:
    found = tersor.compress(network(), Recipe(ratio=1.3, exclude=("conv.*", "*.bias"))).state_dict()
    assert raw(found["conv.weight"]) == raw(network()["conv.weight"])


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(TersorError, match="ud800"):
        tersor.compress({"a\ud800": randn(3)}, Recipe(ratio=0.01))
