from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.torch import save_file
from torch import nn

import tersor
from networks import network
from tersor.checkpoint import open_checkpoint, save_safetensors, stream_shards
from tersor.diff import compare, sources
from tersor.diff.gap import measured, same_bits
from tersor.diff.told import lines
from tersor.recipe import Recipe


def rows(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in found["tensors"]}


def one(a: torch.Tensor, b: torch.Tensor) -> dict[str, Any]:
    return compare({"x": a}, {"x": b})["tensors"][0]


def decibels(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return 10 * math.log10(np.square(a - b).sum() / np.square(a).sum())


# ---------------------------------------------------------------------- one pair of tensors
finite = st.floats(-(2.0**99), 2.0**99, width=32).filter(lambda x: x == 0 or abs(x) > 1e-30)
pairs = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4).flatmap(
    lambda shape: st.tuples(*[arrays.arrays(np.float32, shape, elements=finite)] * 2)
)


@given(pairs)
def test_as_numpy_says(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = pair
    gap = measured(torch.from_numpy(a), torch.from_numpy(b))
    far = np.abs(a.astype(np.float64) - b)
    assert gap.largest == far.max(initial=0) and gap.count == a.size and gap.broken == 0
    assert gap.total == pytest.approx(far.sum())
    if not far.any():
        assert gap.error_db is None
    elif not a.any():
        assert gap.error_db == math.inf
    else:
        assert gap.error_db == pytest.approx(decibels(a, b), abs=1e-9)


@given(arrays.arrays(np.float64, (5,), elements=st.floats(width=64)), st.integers(0, 4), st.floats(width=64))
def test_any_float64_has_a_finite_number_or_none(a: np.ndarray, at: int, value: float) -> None:
    b = a.copy()
    b[at] = value
    gap = measured(torch.from_numpy(a), torch.from_numpy(b))
    alike = a[at] == b[at] or (np.isnan(a[at]) and np.isnan(b[at]))
    both = np.isfinite(a[at]) and np.isfinite(b[at])
    assert gap.broken == (not alike and not both)
    assert (gap.largest > 0) == (not alike and both)
    assert gap.error_db is None or gap.error_db > -math.inf


def test_squares_beyond_float64() -> None:
    gap = measured(torch.tensor([1e300, 0.0], dtype=torch.float64), torch.tensor([1e300, 1e299], dtype=torch.float64))
    assert gap.error_db == pytest.approx(-20) and gap.largest == pytest.approx(1e299)
    gap = measured(
        torch.tensor([1e-300, 0.0], dtype=torch.float64), torch.tensor([1e-300, 1e-301], dtype=torch.float64)
    )
    assert gap.error_db == pytest.approx(-20)


def test_nan_and_infinity_are_counted_and_left_out() -> None:
    a = torch.tensor([1.0, math.nan, math.inf, -math.inf, math.nan, 2.0])
    b = torch.tensor([1.5, math.nan, math.inf, math.inf, 3.0, math.nan])
    row = one(a, b)
    assert row["nonfinite"] == 3 and row["max_difference"] == 0.5
    assert row["error_db"] == pytest.approx(10 * math.log10(0.25))
    assert one(a, a) | {"name": ""} == one(a.clone(), a) | {"name": ""} and one(a, a)["equal"]


def test_zero_of_either_sign_is_the_same_value_in_other_bits() -> None:
    row = one(torch.tensor([0.0, 1.0]), torch.tensor([-0.0, 1.0]))
    assert not row["equal"] and row["error_db"] is None and row["max_difference"] == 0
    found = compare({"x": torch.zeros(2)}, {"x": -torch.zeros(2)})
    assert found["equal_values"] == 1 and "equal values, other bits" in "\n".join(lines(found))


def test_tensors_of_zeros() -> None:
    row = one(torch.zeros(3), torch.tensor([0.0, 0.5, 0.0]))
    assert row["error_db"] == math.inf and row["max_difference"] == 0.5
    assert one(torch.tensor([0.0, 0.5]), torch.zeros(2))["error_db"] == pytest.approx(0)
    assert "A is zero" in "\n".join(lines(compare({"x": torch.zeros(3)}, {"x": torch.ones(3)})))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_narrow_floats_and_other_dtypes(dtype: torch.dtype) -> None:
    exact = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    row = one(exact, exact.to(dtype))
    assert row["dtype_a"] == "float32" and row["dtype_b"] == str(dtype).removeprefix("torch.") and not row["equal"]
    assert row["error_db"] == pytest.approx(decibels(exact.numpy(), exact.to(dtype).float().numpy()))
    row = one(exact.to(dtype).float(), exact.to(dtype))
    assert not row["equal"] and row["max_difference"] == 0, "the same values in another type"
    assert one(exact.to(dtype), exact.to(dtype))["equal"]


def test_integers_are_compared_exactly() -> None:
    low, high = torch.iinfo(torch.int64).min, torch.iinfo(torch.int64).max
    assert one(torch.tensor([2**60]), torch.tensor([2**60 + 1]))["max_difference"] == 1
    assert one(torch.tensor([low]), torch.tensor([high]))["max_difference"] == float(2**64)
    assert one(torch.tensor([3], dtype=torch.uint8), torch.tensor([250], dtype=torch.uint8))["max_difference"] == 247
    assert one(torch.tensor([True, False]), torch.tensor([True, True]))["max_difference"] == 1
    assert one(torch.tensor([-1], dtype=torch.int8), torch.tensor([3], dtype=torch.int32))["max_difference"] == 4


def test_complex_and_packed_numbers() -> None:
    a = torch.tensor([1 + 2j, 3 - 1j])
    assert one(a, a + 1j)["error_db"] == pytest.approx(10 * math.log10(2 / 15))
    assert one(torch.tensor([1.0, 2.0]), torch.tensor([1 + 1j, 2 + 0j]))["max_difference"] == 1
    packed = [torch.tensor([byte], dtype=torch.uint8).view(torch.float4_e2m1fn_x2) for byte in (0x27, 0x2F)]
    row = one(*packed)  # 6 and 1 beside -6 and 1
    assert row["max_difference"] == 12 and row["error_db"] == pytest.approx(10 * math.log10(144 / 37))


def test_scalars_and_empty_tensors() -> None:
    assert one(torch.tensor(2.0), torch.tensor(3.0))["error_db"] == pytest.approx(10 * math.log10(0.25))
    assert one(torch.empty(0, 3), torch.empty(0, 3))["equal"]
    row = one(torch.empty(0, 3), torch.empty(0, 3, dtype=torch.float16))
    assert not row["equal"] and row["max_difference"] == 0 and row["error_db"] is None


def test_parts_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(37, 11, generator=g), torch.randn(37, 11, generator=g)
    whole = measured(a, b)
    monkeypatch.setattr("tersor.diff.gap.PART", 16)
    parts = measured(a, b)
    assert parts.largest == whole.largest and parts.count == whole.count == 407
    assert parts.error_db == pytest.approx(whole.error_db)
    assert not same_bits(a, a.bfloat16()) and same_bits(a, a.clone())


# ---------------------------------------------------------------------- two sources
def test_worst_first_and_totals() -> None:
    base = torch.ones(100)
    a = dict.fromkeys(("equal", "slight", "wrong", "broken", "signs", "shape", "gone"), base)
    a |= {"zero": torch.zeros(3), "steps": torch.tensor(7), "signs": torch.zeros(2)}
    a |= {name: t.clone() for name, t in a.items()}  # of their own: nothing is tied
    b = a | {"slight": base + 0.01, "wrong": base * 2, "broken": base * math.nan, "signs": -torch.zeros(2)}
    b |= {"shape": torch.ones(10, 10), "zero": torch.ones(3), "steps": torch.tensor(9), "new": torch.ones(1)}
    del b["gone"]
    found = compare(a, b)
    names = [row["name"] for row in found["tensors"]]
    assert names == ["shape", "broken", "zero", "wrong", "steps", "slight", "signs", "equal"]
    assert found["only_a"] == [{"name": "gone", "shape": [100], "dtype": "float32"}]
    assert [entry["name"] for entry in found["only_b"]] == ["new"]
    assert (found["equal"], found["equal_values"], found["unlike_shapes"]) == (1, 1, 1)
    error, energy = 100 * 0.01**2 + 100 + 3, 300  # of the float tensors; broken ones have no finite pair
    assert found["error_db"] == pytest.approx(10 * math.log10(error / energy), abs=1e-4)
    assert found["max_difference"] == 1 and found["max_in"] == "wrong"
    text = "\n".join(lines(found))
    assert "only in A, 1: gone" in text and "only in B, 1: new" in text
    assert "shapes differ" in text and "100 / 10x10" in text and "100 NaN or infinite in one only" in text
    assert "1 of 8 tensors equal bit for bit, 1 in value only, 1 of other shapes" in text
    assert not any(line.startswith("equal ") for line in lines(found)), "listed only when all are asked for"
    assert any(line.startswith("equal ") for line in lines(found, None))


def test_ties_in_rank_keep_the_order_of_a() -> None:
    a = {name: torch.ones(4) for name in "cab"}
    assert [row["name"] for row in compare(a, {name: 2 * t for name, t in a.items()})["tensors"]] == list("cab")


def test_the_twenty_worst_and_a_count() -> None:
    a = {f"t{i}": torch.ones(2) for i in range(30)}
    b = {name: t + (i + 1) / 100 for i, (name, t) in enumerate(a.items())}
    found = compare(a, b)
    text = lines(found)
    assert [line.split()[0] for line in text[2:22]] == [f"t{i}" for i in range(29, 9, -1)]
    assert text[22] == "10 more differ, less than these; --all lists them" and len(text) == 24
    assert len(lines(found, None)) == 33


def test_no_common_names_are_told() -> None:
    found = compare({"a": torch.ones(1)}, {"b": torch.ones(1)})
    assert found["tensors"] == [] and found["error_db"] is None
    assert lines(found)[-1] == "no name is in both: nothing to compare"


def test_tied_tensors_are_measured_once() -> None:
    shared, other = torch.ones(4), 3 * torch.ones(4)
    found = compare({"x": shared, "y": shared}, {"x": 2 * shared, "y": other})
    assert rows(found)["x"]["max_difference"] == 1 and rows(found)["y"]["max_difference"] == 2
    assert rows(found)["y"]["tied_to"] is None, "in B it is not"
    found = compare({"x": shared, "y": shared}, {"x": other, "y": other})
    assert rows(found)["y"]["tied_to"] == "x" and found["error_db"] == pytest.approx(10 * math.log10(4))
    assert "(tied to x)" in "\n".join(lines(found))


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    made = network(width=16)
    return made | {"again": made["fc.weight"], "empty": torch.empty(0, 3), "half": made["conv.weight"].bfloat16() * 3}


@pytest.fixture(scope="module")
def archives(state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of one network, with other tensors coded, and so in another order."""
    folder = tmp_path_factory.mktemp("archives")
    tersor.compress(state, Recipe(bpp=6, effort="draft"), out=folder / "a.tersor")
    tersor.compress(state, Recipe(size=11000, exclude=("conv.weight",), effort="draft"), out=folder / "b.bin")
    return folder / "a.tersor", folder / "b.bin"


def expected(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {row["name"]: row for row in compare(a, b)["tensors"]}


@pytest.mark.parametrize("room", [0, 1 << 26])
def test_archives_in_any_place(
    state: dict[str, torch.Tensor], archives: tuple[Path, Path], room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "ROOM", room)
    first, second = (tersor.open(path).state_dict() for path in archives)
    assert rows(compare(*archives)) == expected(first, second), "the second is known by its first bytes"
    assert rows(compare(tersor.open(archives[0]), state)) == expected(first, state)
    found = compare(state, archives[1])
    assert rows(found) == expected(state, second) and rows(found)["conv.weight"]["equal"]
    assert rows(found)["again"]["tied_to"] == "fc.weight"
    assert found["b"]["size"] == archives[1].stat().st_size and found["a"]["size"] is None
    assert rows(found)["fc.weight"]["error_db"] == pytest.approx(
        decibels(state["fc.weight"].numpy(), second["fc.weight"].numpy())
    )
    assert compare(archives[0], archives[0])["equal"] == len(state)


def test_an_archive_is_decoded_in_one_go(archives: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    alone: list[str] = []
    real = tersor.Archive.__getitem__
    monkeypatch.setattr(tersor.Archive, "__getitem__", lambda self, name: (alone.append(name), real(self, name))[1])
    compare(*archives)
    assert alone == []
    checkpoint = sources.as_checkpoint(tersor.open(archives[0]))
    assert torch.equal(checkpoint.read("fc.bias"), checkpoint.read("fc.bias")) and alone == ["fc.bias"]


def test_files_and_their_sizes(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    plain = {name: t.clone() for name, t in state.items()}
    save_file(plain, tmp_path / "net.safetensors")
    torch.save(plain, tmp_path / "net.pt")
    checkpoint = open_checkpoint(plain)
    stream_shards(tmp_path / "shards", checkpoint.entries, plain.items(), limit=4000)
    found = compare(tmp_path / "net.safetensors", tmp_path / "net.pt")
    assert found["equal"] == len(plain) and found["a"]["bytes"] == checkpoint.nbytes
    assert found["a"]["size"] == (tmp_path / "net.safetensors").stat().st_size
    assert found["b"]["size"] == (tmp_path / "net.pt").stat().st_size
    found = compare(tmp_path / "shards", str(tmp_path / "net.pt"))
    assert found["equal"] == len(plain)
    assert found["a"]["size"] == sum(file.stat().st_size for file in (tmp_path / "shards").iterdir())


def test_bad_sources(tmp_path: Path) -> None:
    good = {"x": torch.ones(1)}
    for bad in (tmp_path / "none.tersor", tmp_path / "none.safetensors", tmp_path, 7):
        with pytest.raises(tersor.TersorError):
            compare(good, bad)  # type: ignore[arg-type]
    (tmp_path / "cut.tersor").write_bytes(tersor.compress(network(), Recipe(bpp=6, effort="draft")).to_bytes()[:-9])
    with pytest.raises(tersor.ArchiveError, match="cut"):
        compare(good, tmp_path / "cut.tersor")


# ---------------------------------------------------------------------- outputs
def classifier(weight: float = 1.0) -> nn.Module:
    net = nn.Linear(3, 3, bias=False)
    net.weight.data.copy_(weight * torch.eye(3))
    return net


def batches() -> Iterator[torch.Tensor]:
    yield torch.eye(3)
    yield 2 * torch.eye(3)[:2]


def test_outputs_against_numpy() -> None:
    other = classifier()
    other.weight.data[1] = torch.tensor([0.0, 0.5, 0.75])  # the third class now scores highest for the second input
    other.weight.data[1, 1], other.weight.data[2, 1] = 0.5, 0.75
    model = classifier(7.0)
    found = compare(classifier(), other, model=model, data=batches)["outputs"]
    inputs = np.concatenate([batch.numpy() for batch in batches()])
    x, y = inputs @ np.eye(3), inputs @ other.weight.detach().numpy().T
    row = found["tensors"][0]
    assert found["batches"] == 2 and row["name"] == "output" and row["values"] == 15 and not row["equal"]
    assert row["max_difference"] == pytest.approx(np.abs(x - y).max())
    assert row["mean_difference"] == pytest.approx(np.abs(x - y).mean())
    assert row["error_db"] == pytest.approx(decibels(x, y))
    assert found["argmax"] == {"dimension": 1, "chosen": 5, "equal": (x.argmax(1) == y.argmax(1)).mean()}
    assert 0 < found["argmax"]["equal"] < 1
    assert torch.equal(model.weight, 7 * torch.eye(3)) and model.training, "the user's model stays as it is"
    one_batch = compare(classifier(), other, model=model, data=batches, batches=1)["outputs"]
    assert one_batch["batches"] == 1 and one_batch["argmax"]["chosen"] == 3


def test_equal_outputs_and_equal_scores() -> None:
    found = compare(classifier(0.0), classifier(0.0), model=classifier(), data=[(torch.eye(3), 1)], labelled=True)
    assert found["outputs"]["tensors"][0]["equal"] and found["outputs"]["argmax"]["equal"] == 1
    text = lines(found)
    assert text[-2] == "output on 1 batch, 9 values: equal" and text[-1].endswith("100.00% of 3")


class Found(NamedTuple):
    boxes: torch.Tensor
    count: int


class Detector(nn.Module):
    """Scores of classes for images, and more than that."""

    def __init__(self, factor: float, cut: int = 4) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))
        self.register_buffer("cut", torch.tensor(cut))

    def forward(self, x: torch.Tensor, *, more: bool = True) -> dict[str, Any]:
        parts = [x[: int(self.cut)], None] if more else []
        return {"out": x * self.factor, "found": Found(self.factor / 0, 3), "parts": parts}


def test_outputs_with_parts() -> None:
    images = torch.rand(2, 5, 4, 4, generator=torch.Generator().manual_seed(0)) + 1
    found = compare(Detector(1.0), Detector(-1.0, 1), model=Detector(0.0), data=[{"x": images}])["outputs"]
    by_name = {row["name"]: row for row in found["tensors"]}
    assert list(by_name) == ["out", "found.0", "parts.0"]
    assert by_name["out"]["error_db"] == pytest.approx(10 * math.log10(4))
    assert by_name["found.0"]["nonfinite"] == 1 and by_name["found.0"]["max_difference"] is None
    assert by_name["parts.0"]["unlike"] == 1 and not by_name["parts.0"]["equal"]
    assert found["argmax"]["dimension"] == 1 and found["argmax"]["chosen"] == 32 and found["argmax"]["equal"] < 1
    text = "\n".join(lines(compare(Detector(1.0), Detector(-1.0, 1), model=Detector(0.0), data=[{"x": images}])))
    assert "found.0 on 1 batch, 1 values: 1 NaN or infinite in one only" in text
    assert "nothing to compare; 1 batch of other shapes" in text


def test_numbers_have_no_argmax() -> None:
    net = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))
    assert compare(net, net, model=net, data=[torch.ones(4, 3)])["outputs"]["argmax"] is None


def test_archives_are_loaded_with_their_structure() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 10)).eval()
    inputs = [torch.randn(16, 32) for _ in range(4)]
    recipe = Recipe(ratio=4, effort="draft", passes=("merge(share=0.5)",))
    archive = tersor.compress(model, recipe, data=inputs)
    assert archive["0.weight"].shape == (24, 32)
    found = compare(model, archive, model=model, data=inputs)
    assert found["unlike_shapes"] == 3
    want = [[net(x).detach().numpy() for x in inputs] for net in (model, archive.apply_(Copy.of(model)))]
    assert found["outputs"]["tensors"][0]["error_db"] == pytest.approx(decibels(*map(np.stack, want)), abs=1e-6)


class Copy:
    """A fresh module of the same class."""

    @staticmethod
    def of(model: nn.Module) -> nn.Module:
        fresh = nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 10)).eval()
        fresh.load_state_dict(model.state_dict())
        return fresh


def test_models_and_data_that_do_not_go() -> None:
    net = classifier()
    with pytest.raises(tersor.TersorError, match="both a model and data"):
        compare(net, net, model=net)
    with pytest.raises(tersor.TersorError, match=r"does not fit Linear.*size mismatch"):
        compare(net, nn.Linear(3, 2, bias=False), model=net, data=batches)
    with pytest.raises(tersor.TersorError, match="no batches"):
        compare(net, net, model=net, data=[])
    with pytest.raises(tersor.TersorError, match="at least 1"):
        compare(net, net, model=net, data=batches, batches=0)
    silent = nn.Module()
    silent.forward = lambda x: None  # type: ignore[method-assign]
    silent.weight = nn.Parameter(torch.ones(2))
    with pytest.raises(tersor.TersorError, match="no tensors"):
        compare({"weight": torch.ones(2)}, {"weight": torch.ones(2)}, model=silent, data=batches)


def test_saved_ties_are_known(tmp_path: Path) -> None:
    save_safetensors(tmp_path / "tied.safetensors", {"x": torch.ones(3)}, ties={"y": "x"})
    found = compare(tmp_path / "tied.safetensors", {"x": torch.ones(3), "y": torch.zeros(3)})
    assert rows(found)["x"]["equal"] and rows(found)["y"]["max_difference"] == 1
