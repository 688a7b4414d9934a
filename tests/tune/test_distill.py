from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from tunables import compressed, loaded, mlp, noise, output, pair, refusal, settled, shown

import tersor
from networks import assert_same
from tersor.tune import run as runs
from tersor.tune.distill import distill
from tersor.tune.settings import Status

DATA = [noise(16, 12, seed=s) for s in range(6)]
IMAGES = [noise(6, 3, 6, 6, seed=s) for s in range(4)]
UNSEEN = (noise(200, 12, seed=50),)
both = pytest.mark.parametrize("moving", [False, True])


def error(net: nn.Module, model: nn.Module) -> float:
    return float((output(net, UNSEEN) - output(model, UNSEEN)).square().mean())


def squares(mine: torch.Tensor, theirs: torch.Tensor, batch: Any) -> torch.Tensor:
    return (mine - theirs).square().mean()


# ---------------------------------------------------------------------- what it is for
@both
def test_the_network_learns_to_answer_as_the_original(moving: bool) -> None:
    net, model, archive = pair(moving=moving, ratio=5)
    before = error(net, model)
    tuned = distill(net, model, DATA, steps=100)
    assert error(net, model) < 0.95 * before
    assert (tuned.step, tuned.failed, tuned.stopped, tuned.held_out, tuned.score) == (100, False, None, None, None)
    assert not net.training and not net.moving and not model.training
    evaluated, frozen = output(net, UNSEEN), net.freeze()
    assert torch.equal(evaluated, output(loaded(model, frozen), UNSEEN))
    assert frozen.size <= max(archive.size, archive.recipe.budget(*archive.given)) + 8 * (not moving)


def test_any_module_can_learn_from_any_other() -> None:
    student, teacher = settled(mlp(), seed=1), settled(mlp())
    before = error(student, teacher)
    distill(student, teacher, DATA, steps=60, lr=1e-2, loss=squares)
    assert error(student, teacher) < 0.5 * before


def test_labels_alone_suffice() -> None:
    net, _, _ = pair()
    labels = [torch.arange(16) % 10 for _ in DATA]
    data = list(zip(DATA, labels, strict=True))
    tuned = distill(net, None, data, steps=40, labelled=True, label_weight=1.0, lr=1e-2)
    assert tuned.loss < float(nn.functional.cross_entropy(output(pair()[0], (DATA[0],)), labels[0]))


@pytest.mark.parametrize("form", ["loader", "function", "mappings", "labelled", "iterator"])
def test_data_comes_in_many_forms(form: str) -> None:
    labels = torch.zeros(96, dtype=torch.long)
    data: dict[str, Any] = {
        "loader": DataLoader(TensorDataset(torch.cat(DATA)), batch_size=16),
        "function": lambda: iter(DATA),
        "mappings": [{"input": x} for x in DATA],
        "labelled": DataLoader(TensorDataset(torch.cat(DATA), labels), batch_size=16),
        "iterator": iter(DATA),  # as many as there are steps
    }
    files = []
    for given in (DATA, data[form]):
        net, model, _ = pair()
        distill(net, model, given, steps=6, labelled=form == "labelled" and given is not DATA, norm_batches=0)
        files.append(net.freeze().to_bytes())
    assert files[0] == files[1]


# ---------------------------------------------------------------------- the run
def test_rates_warm_up_and_fall_along_a_cosine() -> None:
    net, model, _ = pair()
    made: list[torch.optim.Optimizer] = []

    def optimizer(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        made.append(torch.optim.SGD(groups))
        return made[-1]

    rates: list[float] = []
    distill(
        net, model, DATA, steps=100, lr=0.5, optimizer=optimizer,
        after_step=lambda _: rates.append(made[-1].param_groups[0]["lr"]),
    )  # fmt: skip
    assert rates[:3] == pytest.approx([0.5 / 3, 1.0 / 3, 0.5], rel=2e-3) and max(rates) == rates[2]
    assert rates[50] == pytest.approx(0.25) and 0 < rates[-1] < 1e-3
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_progress_tells_loss_and_scores() -> None:
    net, model, _ = pair()
    seen: list[Status] = []
    tuned = distill(
        net, model, DATA, steps=20, checks=4, held_out=[UNSEEN[0]], evaluate=lambda n: -error(n, model),
        progress=seen.append,
    )  # fmt: skip
    assert [s.step for s in seen] == list(range(1, 21)) and {s.steps for s in seen} == {20}
    assert all(math.isfinite(s.loss) and s.seconds > 0 for s in seen)
    assert [s.seconds for s in seen] == sorted(s.seconds for s in seen)
    assert all(s.held_out is not None for s in seen), "there is one to beat from the start"
    assert [s.score is None for s in seen] == [s.step <= 5 for s in seen]
    assert len({s.score for s in seen if s.score is not None}) > 1
    assert tuned.score == -error(net, model) and tuned.held_out is not None


def test_clipping_holds_steps_short() -> None:
    lengths: dict[float | None, float] = {}
    for clip in (None, 1e-3):
        net, model, _ = pair()
        before = {name: p.detach().clone() for name, p in net.named_parameters()}
        distill(
            net, model, DATA, steps=1, lr=1.0, clip=clip, loss=lambda a, b, _: 1e4 * squares(a, b, _),
            optimizer=lambda groups: torch.optim.SGD([p for g in groups for p in g["params"]], lr=1.0),
        )  # fmt: skip
        lengths[clip] = math.sqrt(
            sum(float((p.detach() - before[n]).square().sum()) for n, p in net.named_parameters())
        )
    assert lengths[1e-3] < 1.01e-3 < lengths[None]


def test_codes_move_until_the_last_part_and_only_every_so_often(monkeypatch: pytest.MonkeyPatch) -> None:
    net, model, _ = pair(moving=True)
    chosen: list[tuple[int, float]] = []
    step, choose = [0], type(net).choose
    monkeypatch.setattr(type(net), "choose", lambda self, share: chosen.append((step[0], share)) or choose(self, share))
    still: list[bool] = []

    def after(done: int) -> None:
        step[0] = done
        still.append(net.moving)

    distill(net, model, DATA, steps=20, share=0.2, every=3, after_step=after)
    settling = 20 - math.ceil(runs.SETTLED * 20)
    assert still == [True] * settling + [False] * (20 - settling)
    assert [share for _, share in chosen] == [0.2] * (settling // 3)
    assert [done + 1 for done, _ in chosen] == list(range(3, settling + 1, 3))


@both
def test_the_same_call_gives_the_same_file(moving: bool) -> None:
    files = []
    for _ in range(2):
        net, model, _ = pair("convs", moving=moving)
        distill(net, model, IMAGES, steps=10)
        files.append(net.freeze().to_bytes())
    assert files[0] == files[1]


def test_a_compiled_network_is_trained_as_what_it_is() -> None:
    torch._dynamo.reset()
    files = []
    for compiled in (False, True):
        net, model, _ = pair(moving=True)
        student = torch.compile(net, backend="eager") if compiled else net
        distill(student, model, DATA, steps=8)  # type: ignore[arg-type]
        assert not net.moving
        files.append(net.freeze().to_bytes())
    assert files[0] == files[1]


# ---------------------------------------------------------------------- the best state
def test_the_best_state_on_the_held_out_part_is_kept() -> None:
    """Steps that do harm, later on: what was best before them is what comes back."""
    net, model, _ = pair(ratio=5)
    states: dict[int, dict[str, torch.Tensor]] = {}

    def spoil(step: int) -> None:
        if step > 10:
            for p in net.parameters():
                p.data.mul_(1.3)
        states[step] = shown(net)

    seen: list[Status] = []
    tuned = distill(
        net, model, DATA, steps=20, checks=10, held_out=[UNSEEN[0]], after_step=spoil, progress=seen.append
    )  # fmt: skip
    measured = {status.step - 1: status.held_out for status in seen if status.step % 2}  # told one step later
    best = min(measured, key=lambda step: measured[step] or 0.0)
    assert tuned.step == best and 0 < best <= 10 and not tuned.failed and tuned.stopped is None
    assert_same(shown(net), states[best])
    assert tuned.held_out == measured[best]


def test_a_network_that_only_gets_worse_stays_as_it_was() -> None:
    net, model, archive = pair()
    tuned = distill(net, model, DATA, steps=6, held_out=[UNSEEN[0]], lr=1e-9, loss=lambda a, b, _: 1 - squares(a, b, _))
    assert tuned.step == 0
    assert_same(shown(net), archive.state_dict())


def test_training_ends_when_nothing_better_comes() -> None:
    net, model, _ = pair(ratio=5)
    calls: list[int] = []

    def spoil(step: int) -> None:
        calls.append(step)
        if step > 4:
            for p in net.parameters():
                p.data.mul_(1.2)

    tuned = distill(net, model, DATA, steps=40, checks=20, held_out=[UNSEEN[0]], patience=3, after_step=spoil)
    assert calls[-1] == 10 and tuned.step == 4 and not tuned.failed
    assert tuned.stopped == "no better held-out loss in 3 checks; ended at step 10"


def test_statistics_are_estimated_again_where_that_is_better() -> None:
    net, model, archive = pair("convs")
    model.eval()
    with torch.no_grad():
        for batch in IMAGES * 30:  # the original's statistics, as training would have left them
            model[1].train()  # type: ignore[index]
            model(batch)
    archive = compressed(model)
    left = {}
    for count in (0, 4):
        net = tersor.tunable(model, archive)
        net.network[1].running_mean.add_(3.0)  # type: ignore[index, operator, union-attr]
        net.network[1].momentum = 1e-6  # type: ignore[index, union-attr, assignment]
        distill(net, model, IMAGES, steps=2, norm_batches=count, lr=1e-6)
        left[count] = float((output(net, (IMAGES[0],)) - output(model, (IMAGES[0],))).square().mean())
        assert torch.equal(output(net, (IMAGES[0],)), output(loaded(model, net.freeze()), (IMAGES[0],)))
    assert left[4] < 0.1 * left[0]


def test_data_that_serves_once_leaves_the_statistics_of_training() -> None:
    net, model, _ = pair("convs")
    tuned = distill(net, model, iter(IMAGES), steps=4)
    assert tuned.step == 4 and net.freeze().verify() is None


# ---------------------------------------------------------------------- what goes wrong
class Breaking:
    """A loss that is no number in one step; it is told of steps by `after_step`."""

    def __init__(self, at: int) -> None:
        self.at, self.done = at, 0

    def __call__(self, mine: torch.Tensor, theirs: torch.Tensor, batch: Any) -> torch.Tensor:
        value = squares(mine, theirs, batch)
        return value * float("nan") if self.done == self.at - 1 and mine.requires_grad else value

    def after(self, step: int) -> None:
        self.done = step


@both
@pytest.mark.parametrize("held_out", [None, [UNSEEN[0]]])
@pytest.mark.parametrize(("at", "best"), [(1, 0), (7, 6), (12, 10), (19, 18)])
def test_a_loss_that_is_no_number_ends_training_with_the_best_state(
    at: int, best: int, held_out: Any, moving: bool
) -> None:
    net, model, archive = pair(moving=moving)
    loss = Breaking(at)
    tuned = distill(net, model, DATA, steps=20, checks=10, loss=loss, after_step=loss.after, held_out=held_out)
    assert tuned.failed and tuned.stopped is not None and "\n" not in tuned.stopped
    assert f"NaN or infinite at step {at}; the best state, of step {tuned.step}, was kept" in tuned.stopped
    assert tuned.step == best or (held_out is not None and tuned.step < best)
    frozen = net.freeze()
    frozen.verify()
    assert torch.equal(output(net, UNSEEN), output(loaded(model, frozen), UNSEEN))
    assert frozen.size <= max(archive.size, archive.recipe.budget(*archive.given)) + 8 * (not moving)
    if tuned.step == 0 and not moving:
        assert_same(shown(net), archive.state_dict())


@both
def test_rates_that_are_far_too_high_leave_a_sound_network(moving: bool) -> None:
    net, model, _ = pair(moving=moving)
    tuned = distill(net, model, DATA, steps=10, lr=1e30, loss=squares)
    assert tuned.failed
    assert all(value.isfinite().all() for value in net.freeze().state_dict().values())


def test_parameters_that_the_last_step_spoilt_are_not_kept() -> None:
    net, model, _ = pair()

    def spoil(step: int) -> None:
        if step == 6:
            next(net.parameters()).data.fill_(float("inf"))

    tuned = distill(net, model, DATA, steps=6, after_step=spoil)
    assert tuned.failed and tuned.stopped is not None and "step 6" in tuned.stopped
    assert net.freeze().verify() is None


def test_an_overflow_in_half_precision_is_no_failure() -> None:
    net, model, _ = pair()
    tuned = distill(net, model, DATA, steps=30, precision="fp16", loss=lambda a, b, _: 30 * squares(a, b, _))
    assert not tuned.failed and tuned.step == 30


def nothing() -> Iterator[torch.Tensor]:
    yield from ()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"data": []}, "no batches"),
        ({"data": nothing}, "no batches"),
        ({"data": iter(DATA[:2]), "steps": 3}, "ran dry"),
        ({"data": DATA[0]}, "not an iterable of batches"),
        ({"held_out": []}, "no batches"),
        ({"held_out": iter(DATA)}, "serves only once"),
        ({"steps": 0}, "give 1 or more"),
        ({"labelled": True}, "labels"),
        ({"data": [(DATA[0], DATA[0])]}, "labelled=True"),
        ({"label_weight": 2.0}, "label_weight 2.0"),
        ({"label_weight": 0.5}, "labelled=True"),
        ({"temperature": 0.0}, "temperature 0.0"),
        ({"share": 0.0}, "share 0.0"),
        ({"precision": "fp8"}, "use one of"),
        ({"features": ["none"]}, "no submodule 'none'"),
        ({"resume": True}, "checkpoint="),
        ({"teacher": None}, "label_weight=1"),
    ],
)
def test_bad_input_is_one_line(arguments: dict[str, Any], words: str) -> None:
    net, model, _ = pair()
    given: dict[str, Any] = {"teacher": model, "data": DATA, "steps": 2} | arguments
    assert words in refusal(lambda: distill(net, **given))


def test_a_network_without_parameters_cannot_learn() -> None:
    for net in (nn.Tanh(), mlp().requires_grad_(False)):
        assert "no parameters to train" in refusal(lambda net=net: distill(net, mlp(), DATA, steps=1))


def test_a_buffer_and_a_mode_of_the_users_survive() -> None:
    """Evaluation in the user's function, whatever it does to modes, does not leak into training."""
    net, model, _ = pair("convs")
    modes: list[bool] = []
    net.network.register_forward_hook(lambda module, *_: modes.append(module.training))

    def evaluate(network: nn.Module) -> float:
        assert not network.training
        network.train()
        return 1.0

    distill(net, model, IMAGES, steps=4, checks=2, evaluate=evaluate, norm_batches=0)
    assert modes == [True, True, False, True, True, False], "two steps and a check, twice"
