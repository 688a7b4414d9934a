"""Integers, shared values and sixteen bits, from a recipe to a file and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tersor
from tersor.errors import ArchiveError, TargetError, TersorError
from tersor.representations import affine
from tersor.usage import describe, lines


def model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(4, 16, 3), nn.BatchNorm2d(16), nn.Flatten(), nn.Linear(64, 24)).eval()


SCHEMES = (
    "int8", "int4", "int2", "int8/tensor", "int4/12", "int4+zero", "int3/6+zero", "fp16", "bf16", "shared16",
    "shared8/uniform", "shared8/probabilistic", "shared16/entropy", "shared1", "shared300",
)  # fmt: skip


@pytest.mark.parametrize("scheme", SCHEMES)
def test_files_hold_what_they_say_and_are_the_same_each_time(scheme: str, tmp_path: Path) -> None:
    net = model()
    archive = tersor.compress(net, tersor.Recipe(scheme=scheme))
    again = tersor.compress(net, tersor.Recipe(scheme=scheme))
    assert archive.to_bytes() == again.to_bytes()
    archive.save(tmp_path / "x.tersor")
    opened = tersor.open(tmp_path / "x.tersor")
    opened.verify()
    assert opened.version == 3
    values = opened.state_dict()
    back = opened.apply_(model(1)).state_dict()
    assert all(torch.equal(values[name], back[name]) for name in values)
    assert torch.equal(values["1.running_mean"], net.state_dict()["1.running_mean"])
    text = "\n".join(lines(describe(opened)))
    assert ("kept as" in text) if scheme in ("fp16", "bf16") else (scheme.partition("/")[0].rstrip("+zero") in text)
    assert opened.recipe == tersor.Recipe(scheme=scheme)


def test_integers_are_the_grid_of_each_row() -> None:
    net = model()
    archive = tersor.compress(net, tersor.Recipe(scheme="int4"))
    weight = net[3].weight.detach().numpy()  # type: ignore[index,union-attr]
    grid = affine.fit(weight, 4, -1)
    expected = affine.dequantize(affine.quantize(weight, grid, 4, -1), grid, -1)
    assert np.array_equal(archive["3.weight"].numpy(), expected)
    assert len(np.unique(expected[0])) <= 15


def test_rows_without_such_runs_have_a_scale_each_and_the_plan_says_so() -> None:
    plan = tersor.dry_run(model(), tersor.Recipe(scheme="int4/32"))
    assert [g.text for g in plan.scalars] == ["int4/32", "int4"]
    assert "int4/32: 1 tensors" in "\n".join(plan.lines()) and "no target" in plan.lines()[0]


def test_shared_values_are_few_and_the_same_in_all_tensors_of_a_kind() -> None:
    state = {"a": torch.randn(20, 20), "b": torch.randn(30, 20), "c": torch.randn(8, 8, 3, 3)}
    one = tersor.compress(state, tersor.Recipe(scheme="shared8", groups="one"))
    assert len(torch.unique(torch.cat([one[n].flatten() for n in state]))) == 8
    kinds = tersor.compress(state, tersor.Recipe(scheme="shared8"))
    assert len(torch.unique(torch.cat([kinds["a"].flatten(), kinds["b"].flatten()]))) == 8
    own = tersor.compress(state, tersor.Recipe(scheme="shared8", groups="tensor"))
    assert len(own.index.scalars) == 3 and len(torch.unique(own["a"])) == 8
    error = [float((a["c"] - state["c"]).square().sum()) for a in (own, one)]
    assert error[0] < error[1]


def test_zeros_stay_zeros_and_are_left_out_of_the_file() -> None:
    weight = torch.randn(200, 200) * (torch.rand(200, 200) < 0.1)
    weight[::2] = 0  # a mask sees that whole rows are dead, one table for all symbols does not
    for scheme in ("int8", "shared16"):
        archive = tersor.compress({"w": weight}, tersor.Recipe(scheme=scheme))
        assert torch.equal(archive["w"] == 0, weight == 0) or scheme == "int8"
        assert bool((archive["w"][weight == 0] == 0).all())
        assert archive.size < 0.1 * weight.numel()
        assert " as mask" in "\n".join(lines(describe(archive)))


def test_sixteen_bits_are_torchs_own() -> None:
    net = model()
    for scheme, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
        archive = tersor.compress(net, tersor.Recipe(scheme=scheme))
        weight = net[3].weight.detach()  # type: ignore[index,union-attr]
        assert torch.equal(archive["3.weight"], weight.to(dtype).float())
        assert torch.equal(archive["3.bias"], net[3].bias.detach())  # type: ignore[index,union-attr]
    with pytest.raises(TersorError, match="use bf16"):
        tersor.compress({"w": torch.full((20, 20), 1e5)}, tersor.Recipe(scheme="fp16"))


def test_a_target_that_the_scheme_misses() -> None:
    with pytest.raises(TargetError, match="smallest possible file"):
        tersor.compress(model(), tersor.Recipe(scheme="int8", ratio=30))
    assert tersor.compress(model(), tersor.Recipe(scheme="int8", ratio=2)).recipe.ratio == 2


@pytest.mark.parametrize(
    "scheme", ["int9", "int1", "int8/row", "shared", "int4/0", "shared0", "shared70000", "int4/70000"]
)
def test_schemes_that_there_are_not(scheme: str) -> None:
    with pytest.raises(TersorError, match="recipe"):
        tersor.compress(model(), tersor.Recipe(scheme=scheme))


@pytest.mark.parametrize("scheme", ["int8", "int4+zero", "shared16"])
def test_tuning_leaves_the_symbols(scheme: str) -> None:
    net = model()
    archive = tersor.compress(net, tersor.Recipe(scheme=scheme))
    tuned = tersor.tunable(net, archive)
    values = archive.state_dict()
    tuned.refresh()
    assert torch.equal(tuned.network[3].weight, values["3.weight"])  # type: ignore[index,union-attr]
    data = [torch.randn(16, 4, 4, 4) for _ in range(4)]
    tersor.distill(tuned, net, data, steps=8, norm_batches=0)
    frozen = tuned.freeze()
    frozen.verify()
    tuned.refresh()
    assert torch.equal(frozen["3.weight"], tuned.network[3].weight)  # type: ignore[index,union-attr]
    assert not torch.equal(frozen["3.weight"], values["3.weight"])
    assert abs(frozen.size - archive.size) < 200
    first, second = archive.scalar_group(0), frozen.scalar_group(0)
    assert all(np.array_equal(first.symbols(t), second.symbols(t)) for t in range(len(first.shapes)))
    with pytest.raises(TersorError, match="moving=False"):
        tersor.tunable(net, archive, moving=True)


def test_the_gradient_of_a_shared_value_is_the_sum_over_its_weights() -> None:
    state = {"w": torch.randn(12, 30)}
    archive = tersor.compress(state, tersor.Recipe(scheme="shared4"))
    from tersor.tune.few import ScalarGroup

    group = ScalarGroup(archive.scalar_group(0))
    slope = torch.randn(12, 30)
    (group()[0] * slope).sum().backward()
    symbols = torch.from_numpy(archive.scalar_group(0).symbols(0)).long()
    expected = torch.zeros(4).index_add_(0, symbols.flatten(), slope.flatten())
    assert group.palette is not None and group.palette.grad is not None
    torch.testing.assert_close(group.palette.grad, expected)


def test_damage_is_found(tmp_path: Path) -> None:
    for scheme in ("int4+zero", "shared16"):
        data = bytearray(tersor.compress(model(), tersor.Recipe(scheme=scheme)).to_bytes())
        for at in range(len(data) - 400, len(data), 7):
            broken = bytearray(data)
            broken[at] ^= 0x10
            with pytest.raises(ArchiveError):
                tersor.Archive(bytes(broken)).verify()
