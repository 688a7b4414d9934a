from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from tunables import MODELS, compressed, noise, output, pair, refusal, settled, train

import tersor
from tersor.representations.group import GroupReader, GroupSpec
from tersor.tune.moving import MovingGroup, StraightThrough

SHAPES = ((24, 6, 3, 3), (10, 18))
STAGES = {
    "lattice": (None, True, 9),
    "codes": ((2, 16), False, 4),
    "both": ((2, 16), True, 4),
    "plain": (None, True, 1),
}
stages = pytest.mark.parametrize("stage", STAGES)


def group_of(stage: str, scales: str = "none") -> MovingGroup:
    codebooks, lattice, dim = STAGES[stage]
    spec = GroupSpec((0, 1), SHAPES, dim, codebooks, lattice, scales, "draft", 0)
    values = [
        noise(*shape, seed=i) + noise(shape[0], *[1] * (len(shape) - 1), seed=9) for i, shape in enumerate(SHAPES)
    ]
    return MovingGroup(spec, values)


def shown(group: MovingGroup) -> list[np.ndarray]:
    return [v.detach().numpy().copy() for v in group()]


def drift(group: MovingGroup, far: float, seed: int = 5) -> None:
    for i, latent in enumerate(group.latents):
        latent.data += far * noise(*latent.shape, seed=seed + i)


def error(group: MovingGroup) -> float:
    return sum(float((v.detach() - p.detach()).square().sum()) for v, p in zip(group(), group.latents, strict=True))


def test_gradients_go_straight_to_the_latents() -> None:
    latent, decoded = noise(3, 4).requires_grad_(), noise(3, 4, seed=1)
    seen = StraightThrough.apply(latent, decoded)
    assert torch.equal(seen, decoded) and seen.data_ptr() != decoded.data_ptr()
    given = noise(3, 4, seed=2)
    (gradient,) = torch.autograd.grad(seen, latent, given)
    assert torch.equal(gradient, given)
    table = torch.nn.functional.embedding(torch.tensor([1, 1]), StraightThrough.apply(latent, decoded), sparse=True)
    (gradient,) = torch.autograd.grad(table.sum(), latent)
    assert gradient.layout == torch.strided and gradient[1].tolist() == [2.0] * 4 and not gradient[0].any()


@stages
@pytest.mark.parametrize("scales", ["none", "tensor", "row"])
def test_what_is_seen_is_what_the_file_will_hold(stage: str, scales: str) -> None:
    group = group_of(stage, scales)
    for far in (0.0, 0.3):
        drift(group, far)
        group.choose(0.2)
        group.show()
        record, sections, _ = group.coder.finish()
        reader = GroupReader(record, SHAPES, sections.__getitem__)
        for t, values in reader.decode(range(2)):
            assert shown(group)[t].tobytes() == values.tobytes()


@stages
def test_codes_follow_the_latents_and_sizes_are_told(stage: str) -> None:
    group = group_of(stage)
    group.choose(0.2)
    group.show()
    near = error(group)
    drift(group, 1.0)
    lost = error(group)
    for _ in range(3):
        told = group.choose(0.2)
    group.show()
    assert error(group) < 0.5 * lost
    assert stage == "codes" or error(group) < 3 * near
    assert told == pytest.approx(sum(map(len, group.coder.finish()[1])), abs=24)


@stages
def test_a_share_of_the_vectors_may_change_and_the_rest_stays(stage: str) -> None:
    """Those whose latents went furthest; the codes of the others do not follow, apart from the shared parameters."""
    group = group_of(stage)
    for _ in range(4):
        group.choose(0.1)
    group.show()
    before = codes_of(group)
    seen = shown(group)
    far = [noise(*latent.shape, seed=3).abs() < 0.2 for latent in group.latents]  # a few elements run away
    for latent, mask in zip(group.latents, far, strict=True):
        latent.data += 0.02 * noise(*latent.shape, seed=4) + 5.0 * mask
    whole = copy.deepcopy(group)
    changed = {}
    for name, one, share in (("share", group, 0.05), ("whole", whole, 1.0)):
        one.choose(0.1, share)
        one.show()
        moved = [np.abs(a - b).reshape(-1) > 0.05 for a, b in zip(shown(one), seen, strict=True)]
        changed[name] = float(np.concatenate(moved).mean())
    if before is None:
        assert 0 < changed["share"] < 0.75 * changed["whole"]
    else:
        after, free = codes_of(group), codes_of(whole)
        assert after is not None and free is not None
        assert 0 < others(before, after) <= 0.15 and others(before, after) < 0.7 * others(before, free)


def codes_of(group: MovingGroup) -> np.ndarray | None:
    stage = group.coder.codes
    return None if stage is None or stage.codes is None else stage.codes.numpy().copy()


def others(before: np.ndarray, after: np.ndarray) -> float:
    """Share of the vectors with other codewords; codebooks may have been sorted meanwhile."""
    changed = np.zeros(len(before), dtype=bool)
    for m in range(before.shape[1]):
        pairs = np.zeros((16, 16), dtype=int)
        np.add.at(pairs, (before[:, m], after[:, m]), 1)
        changed |= pairs.argmax(axis=1)[before[:, m]] != after[:, m]
    return float(changed.mean())


def test_importance_says_where_errors_matter() -> None:
    spec = GroupSpec((0,), ((40, 40),), 1, None, True, "none", "draft", 0)
    value, weight = noise(40, 40), np.ones((40, 40), dtype=np.float32)
    weight[:20] = 30
    group = MovingGroup(spec, [value], [weight])
    drift(group, 0.1)
    for _ in range(2):
        group.choose(1.0)
    group.show()
    (seen,), (latent,) = group(), group.latents
    errors = (seen - latent).detach().square()
    assert float(errors[:20].mean()) < 0.5 * float(errors[20:].mean())


def test_choosing_is_the_same_every_time() -> None:
    files = []
    for _ in range(2):
        net, _, _ = pair("convs", moving=True, scheme="2x8d4+lattice")
        train(net, MODELS["convs"][1])
        files.append(net.freeze().to_bytes())
    assert files[0] == files[1]


@stages
def test_after_loading_all_codes_are_chosen_anew(stage: str) -> None:
    group, fresh, twin = group_of(stage), group_of(stage), group_of(stage)
    drift(group, 1.0)
    for one in (group, fresh, twin):
        one.choose(0.2)
        one.show()
    stale = shown(fresh)
    for one, share in ((fresh, 0.01), (twin, 1.0)):
        one.load_state_dict(group.state_dict())
        assert all(a.tobytes() == b.tobytes() for a, b in zip(shown(one), shown(group), strict=True))
        one.choose(0.2, share)  # the codes there are belong to other latents: holding them would be wrong
        one.show()
    for a, b, c in zip(shown(fresh), shown(twin), stale, strict=True):
        assert a.tobytes() == b.tobytes() != c.tobytes()
    drift(fresh, 0.5)
    twin.load_state_dict(fresh.state_dict())
    for one, share in ((fresh, 0.01), (twin, 1.0)):
        one.choose(0.2, share)
        one.show()
    assert any(a.tobytes() != b.tobytes() for a, b in zip(shown(fresh), shown(twin), strict=True)), "shares hold again"


def test_a_latent_that_is_no_number_is_told_of() -> None:
    net, _, _ = pair(moving=True)
    parameter = next(p for name, p in net.named_parameters() if "latents" in name)
    for value in (float("nan"), float("inf"), 1e30):
        parameter.data[0, 0] = value
        for call in (net.choose, net.settle, net.freeze):
            assert "NaN, infinite or absurdly large; lower the learning rate" in refusal(call)


def test_the_latents_start_at_the_original_and_end_as_parameters_of_the_file() -> None:
    net, model, archive = pair(moving=True)
    state = model.state_dict()
    names = [archive.index.names[i] for record in archive.index.groups for i in record.tensors]
    latents = [p for name, p in net.named_parameters() if "latents" in name]
    assert all(torch.equal(p, state[name]) for name, p in zip(names, latents, strict=True))
    seen = output(net, MODELS["mlp"][1])
    train(net, MODELS["mlp"][1])
    assert not torch.equal(output(net, MODELS["mlp"][1]), seen)
    net.settle()
    assert not net.moving and not any("latents" in name or "decoded" in name for name in net.state_dict())
    assert {p.requires_grad for p in net.parameters()} == {True}
    before = output(net, MODELS["mlp"][1])
    losses = train(net, MODELS["mlp"][1], steps=8)
    assert losses[-1] < losses[0] and not torch.equal(output(net, MODELS["mlp"][1]), before)


def test_a_copy_may_settle_for_the_others() -> None:
    net, _, _ = pair("convs", moving=True)
    train(net, MODELS["convs"][1])
    other = copy.deepcopy(net)
    other.settle()
    net.settle_as(other.archive)
    assert net.freeze().to_bytes() == other.freeze().to_bytes()


def test_moving_brings_the_network_closer_than_tuning_with_fixed_codes() -> None:
    """What it is for: on the same data, in the same steps, from the same file."""
    model = settled(nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 32)))
    archive, unseen = compressed(model, ratio=16, keep="bf16"), (noise(256, 32, seed=99),)
    data, left = [noise(64, 32, seed=s) for s in range(8)], {}
    for moving in (False, True):
        net = tersor.tunable(model, archive, moving=moving)
        tersor.distill(net, model, data, steps=200, loss=lambda a, b, _: (a - b).square().mean())
        left[moving] = float((output(net, unseen) - output(model, unseen)).square().mean())
        assert net.freeze().size <= max(archive.size, archive.recipe.budget(*archive.given)) + (not moving) * 16
    assert left[True] < 0.9 * left[False]
