from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from tunables import (
    MODELS,
    Functional,
    Tied,
    compressed,
    convs,
    loaded,
    mlp,
    noise,
    output,
    pair,
    refusal,
    settled,
    shown,
    train,
)

import tersor
from networks import assert_same, raw
from tersor.errors import TersorError
from tersor.tune.coded import CodedGroup
from tersor.tune.tunable import Tunable

X = MODELS["mlp"][1]


# ---------------------------------------------------------------------- what does not fit
def test_names_and_shapes_that_differ_are_listed_at_most_ten_of_each() -> None:
    archive = compressed(settled(mlp()))
    wide = nn.Sequential(*[nn.Linear(12, 13) for _ in range(12)])
    words = refusal(lambda: tersor.tunable(wide, archive))
    missing = sorted(set(wide.state_dict()) - set(archive))
    assert f"missing in the archive: {', '.join(missing[:10])} …" in words and missing[10] not in words
    assert "of another shape: 0.weight, 0.bias, 2.weight, 2.bias, 4.weight, 4.bias" in words
    short = nn.Sequential(*mlp()[:3])  # type: ignore[index]
    assert "not in the model: 4.bias, 4.weight" in refusal(lambda: tersor.tunable(short, archive))


def test_an_archive_that_keeps_everything_has_nothing_to_tune() -> None:
    model = settled(mlp())
    words = refusal(lambda: tersor.tunable(model, tersor.compress(model, tersor.Recipe(ratio=0.5))))
    assert "all are kept exactly" in words


def test_a_model_without_trainable_parameters_is_refused() -> None:
    model = settled(mlp())
    archive = compressed(model)
    assert "requires_grad_()" in refusal(lambda: tersor.tunable(model.requires_grad_(False), archive))


def test_one_tensor_in_the_model_is_one_in_the_archive() -> None:
    model = settled(Tied())
    apart = {name: value.clone() for name, value in model.state_dict().items()}
    archive = tersor.compress(apart, tersor.Recipe(ratio=2.5, effort="draft", min_size=64))
    words = refusal(lambda: tersor.tunable(model, archive))
    assert "mix.weight and again.weight are one tensor in Tied, but two in" in words


def test_a_model_that_torch_cannot_copy_is_told_of() -> None:
    model = settled(mlp())
    archive = compressed(model)
    model[0].cache = model(noise(2, 12))  # type: ignore[index, assignment]
    words = refusal(lambda: tersor.tunable(model, archive))
    assert "Sequential cannot be copied" in words and "drop tensors that are kept from a forward pass" in words


@pytest.mark.parametrize(
    "change",
    [lambda n: n.half(), lambda n: n.double(), lambda n: n.to(torch.bfloat16), lambda n: nn.Sequential(n).half()],
)
def test_types_stay(change: Callable[[nn.Module], Any]) -> None:
    net, _, _ = pair()
    before = copy.deepcopy(net.state_dict())
    assert "float32" in refusal(lambda: change(net))
    assert_same(net.state_dict(), before)


def test_devices_and_memory_may_change() -> None:
    net, model, archive = pair("convs")
    same = net.to("cpu").to(memory_format=torch.channels_last).float().requires_grad_(True)
    assert same is net
    torch.testing.assert_close(output(net, MODELS["convs"][1]), output(loaded(model, archive), MODELS["convs"][1]))
    with pytest.raises(TersorError, match="DistributedDataParallel"):
        net._replicate_for_data_parallel()


def test_groups_follow_the_model_to_its_device() -> None:
    """On no device at all, which shows that nothing is read back on the way: placing is all."""
    model = settled(mlp())
    archive = compressed(model)
    net = tersor.tunable(model, archive)
    places = {p.device.type for p in net.to("meta").parameters()} | {b.device.type for b in net.buffers()}
    assert places == {"meta"}


def test_codes_that_stay_are_not_chosen() -> None:
    net, _, _ = pair()
    assert not net.moving
    for call in (net.choose, net.settle):
        assert "moving=True" in refusal(call)


# ---------------------------------------------------------------------- what is trained
def test_what_the_owner_froze_is_not_trained() -> None:
    model = settled(convs())
    model[1].weight.requires_grad_(False)  # type: ignore[union-attr]
    for conv in (model[0], model[3]):
        conv.weight.requires_grad_(False)  # type: ignore[union-attr]
    archive = compressed(model)
    names = [[archive.index.names[i] for i in record.tensors] for record in archive.index.groups]
    frozen = [all(name in ("0.weight", "3.weight") for name in group) for group in names]
    assert sorted(frozen) == [False] * (len(frozen) - 1) + [True]
    net = tersor.tunable(model, archive)
    for group, still in zip(net.groups, frozen, strict=True):
        assert {p.requires_grad for p in group.parameters()} == {not still}
    before = shown(net)
    train(net, MODELS["convs"][1])
    after = net.freeze().state_dict()
    for name, value in before.items():
        if name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            continue
        assert torch.equal(value, after[name]) == (name in ("0.weight", "3.weight", "1.weight")), name


def test_latents_of_frozen_weights_and_of_buffers_stay() -> None:
    model = settled(Functional())
    model.weight.requires_grad_(False)
    net = tersor.tunable(model, compressed(model), moving=True)
    order = [net.archive.index.names[i] for record in net.archive.index.groups for i in record.tensors]
    latents = [p for name, p in net.named_parameters() if "latents" in name]
    still = {name for name, p in zip(order, latents, strict=True) if not p.requires_grad}
    assert still == {"weight", "table"}
    train(net, MODELS["functional"][1])
    for name, latent in zip(order, latents, strict=True):
        assert torch.equal(latent, model.state_dict()[name]) == (name in still), name


def test_parameter_groups_hold_every_parameter_once() -> None:
    for moving in (False, True):
        net, _, _ = pair("convs", moving=moving, scheme="2x16d9+lattice", scales="tensor")
        groups = net.parameter_groups(0.1)
        listed = [id(p) for group in groups for p in group["params"]]
        assert sorted(listed) == sorted(id(p) for p in net.parameters())
        assert all(group["lr"] > 0 for group in groups)


def test_latents_learn_by_the_scaled_step_of_their_tensor() -> None:
    model = settled(MODELS["convs"][0]())
    weights = {n: torch.full_like(p, 4.0**i) for i, (n, p) in enumerate(model.named_parameters()) if p.dim() > 1}
    archive = compressed(model)
    net = tersor.tunable(model, archive, moving=True, importance=weights)
    rates = {id(p): group["lr"] for group in net.parameter_groups(1.0) for p in group["params"]}
    names = [archive.index.names[i] for record in archive.index.groups for i in record.tensors]
    latents = [p for group in net.groups for p in group.latents]
    found = dict(zip(names, (rates[id(p)] for p in latents), strict=True))
    coded = [name for name in weights if name in found]
    assert len(coded) > 1
    for name in coded[1:]:  # importance w asks for steps smaller by its root
        ratio = found[name] / found[coded[0]]
        assert ratio == pytest.approx((weights[coded[0]].max() / weights[name].max()).sqrt().item(), rel=0.05)


def test_what_matters_little_does_not_race_away() -> None:
    model = settled(mlp())
    weights = {n: torch.full_like(p, 1e-8 if n.startswith("0") else 1.0) for n, p in model.named_parameters()}
    net = tersor.tunable(model, compressed(model), moving=True, importance=weights)
    rates = {id(p): group["lr"] for group in net.parameter_groups(1e-3) for p in group["params"]}
    for group in net.groups:
        for latent in group.latents:
            assert rates[id(latent)] < 1.01 * 2e-3 * max(
                latent.detach().square().mean().sqrt().item(), net.steering.step
            )


def test_half_precision_trains_float32_masters() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        model = settled(nn.Sequential(nn.Linear(12, 24), nn.LayerNorm(24), nn.Linear(24, 12))).to(dtype)
        archive = compressed(model, ratio=1.2)
        net = tersor.tunable(model, archive)
        assert {p.dtype for p in net.parameters()} == {torch.float32}
        assert {key for key in net.state_dict() if key.startswith("masters")} == {f"masters.{i}" for i in range(4)}
        x = (noise(4, 12).to(dtype),)
        assert output(net, x).dtype == dtype
        assert torch.equal(output(net, x), output(loaded(model, archive), x))
        master = net.masters[0]
        with torch.no_grad():
            start = master.clone()
            for _ in range(1000):
                master.sub_(start.abs().clamp(min=0.1) * 1e-4)  # each far below half precision's resolution
        assert (start - master > 0.09 * start.abs()).all()
        train(net, x)
        net.round_()
        evaluated, frozen = output(net, x), net.freeze()
        assert torch.equal(evaluated, output(loaded(model, frozen), x))
        assert_same(frozen.state_dict(), shown(net))


def test_a_frozen_half_precision_network_keeps_what_it_keeps() -> None:
    model = settled(nn.Sequential(nn.Linear(12, 24), nn.Linear(24, 12))).to(torch.bfloat16)
    model[0].bias.requires_grad_(False)  # type: ignore[union-attr]
    net = tersor.tunable(model, compressed(model, ratio=1.2))
    assert len(net.masters) == 1 and not dict(net.network.named_parameters())["0.bias"].requires_grad
    train(net, (noise(4, 12).bfloat16(),))
    assert raw(net.freeze()["0.bias"]) == raw(model.state_dict()["0.bias"])


def test_the_model_may_be_of_another_type_than_the_archive() -> None:
    model = settled(mlp())
    archive = compressed(model)
    half = copy.deepcopy(model).to(torch.bfloat16)
    net, x = tersor.tunable(half, archive), (X[0].bfloat16(),)
    assert torch.equal(output(net, x), output(loaded(half, archive), x))
    train(net, x)
    evaluated, frozen = output(net.round_(), x), net.freeze()
    assert torch.equal(evaluated, output(loaded(half, frozen), x))
    assert frozen["0.weight"].dtype == torch.float32


# ---------------------------------------------------------------------- back to a file
@pytest.mark.parametrize("keep", ["lossless", "bf16"])
def test_kept_tensors_are_rounded_to_their_stored_form(keep: str) -> None:
    net, model, archive = pair("convs", keep=keep)
    train(net, MODELS["convs"][1])
    exact = output(net, MODELS["convs"][1])
    evaluated = output(net.round_(), MODELS["convs"][1])
    assert torch.equal(exact, evaluated) == (keep == "lossless")
    frozen = net.freeze()
    assert torch.equal(evaluated, output(loaded(model, frozen), MODELS["convs"][1]))
    assert abs(frozen.size - archive.size) <= 0.01 * archive.size
    assert frozen["1.num_batches_tracked"] == archive["1.num_batches_tracked"] + 4


def test_the_file_may_change_meanwhile(tmp_path: Path) -> None:
    model = settled(mlp())
    compressed(model).save(tmp_path / "net.tersor")
    net = tersor.tunable(model, tersor.open(tmp_path / "net.tersor"))
    train(net, X)
    net.freeze().save(tmp_path / "net.tersor", force=True)
    train(net, X)
    assert net.freeze().verify() is None
    again = tersor.tunable(model, tersor.open(tmp_path / "net.tersor"))
    assert not torch.equal(output(again, X), output(net, X))
    assert again.freeze().to_bytes() == (tmp_path / "net.tersor").read_bytes()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["codebooks", "gain", "scales", "kept"])
def test_what_is_no_number_is_not_stored(name: str, value: float) -> None:
    net, _, _ = pair(scheme="2x16d4+lattice", scales="tensor")
    (group,) = net.groups
    assert isinstance(group, CodedGroup)
    parameter = next(net.network.parameters()) if name == "kept" else dict(group.named_parameters())[name]
    parameter.data.view(-1)[0] = value
    assert "lower the learning rate" in refusal(net.freeze)


def test_steps_stay_within_what_a_file_can_hold() -> None:
    net, _, _ = pair()
    (group,) = net.groups
    assert isinstance(group, CodedGroup) and group.gain is not None
    for value in (-200.0, 60.0):
        group.gain.data.fill_(value)
        frozen = net.freeze()
        assert_same(frozen.state_dict(), shown(net))


def test_refresh_serves_other_methods_of_the_network() -> None:
    net, model, archive = pair()
    net.refresh()
    assert torch.equal(net.network[0](X[0]).detach(), loaded(model, archive)[0](X[0]))  # type: ignore[index, operator]


def test_tunable_is_a_module_of_its_own_class() -> None:
    net, _, _ = pair()
    assert type(net) is Tunable and isinstance(net, nn.Module)
