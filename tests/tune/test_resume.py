from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from tunables import compressed, mlp, noise, output, pair, refusal, settled

import tersor
from networks import assert_same
from tersor.tune import run as runs
from tersor.tune.distill import distill
from tersor.tune.settings import Tuned
from tersor.tune.tunable import Tunable

DATA = [noise(16, 12, seed=s) for s in range(6)]
HELD = [noise(64, 12, seed=50)]


class Interrupted(Exception):
    pass


def tune(net: nn.Module, model: nn.Module, path: Path | None, stop: int = 0, **more: Any) -> Tuned:
    """A run that an interrupt ends after some steps, or that comes to its end."""

    def after(step: int) -> None:
        if step == stop:
            raise Interrupted

    given: dict[str, Any] = {"steps": 20, "checks": 10, "held_out": HELD, "after_step": after, "checkpoint": path}
    return distill(net, model, DATA, **{**given, **more})


def interrupted(path: Path, stop: int, **more: Any) -> None:
    net, model, _ = pair(ratio=5, moving=more.pop("moving", False))
    with pytest.raises(Interrupted):
        tune(net, model, path, stop, **more)


@pytest.mark.parametrize("stop", [3, 7, 19])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_run_that_goes_on_repeats_the_one_that_was_not_interrupted(stop: int, precision: str, tmp_path: Path) -> None:
    interrupted(tmp_path / "run.pt", stop, precision=precision)
    net, model, _ = pair(ratio=5)
    steps: list[int] = []
    tuned = tune(net, model, tmp_path / "run.pt", precision=precision, resume=True, after_step=steps.append)
    assert steps == list(range(stop // 2 * 2 + 1, 21))
    whole, model, _ = pair(ratio=5)
    assert tune(whole, model, None, precision=precision) == tuned
    assert net.freeze().to_bytes() == whole.freeze().to_bytes()


def test_once_codes_have_settled_it_repeats_too(tmp_path: Path) -> None:
    settling = 20 - round(runs.SETTLED * 20)
    stop = settling + 3
    interrupted(tmp_path / "run.pt", stop, moving=True)
    net, model, archive = pair(ratio=5, moving=True)
    tuned = tune(net, model, tmp_path / "run.pt", resume=True)
    whole, model, _ = pair(ratio=5, moving=True)
    assert tune(whole, model, None) == tuned
    assert net.freeze().to_bytes() == whole.freeze().to_bytes()
    assert archive.size > 0


@pytest.mark.parametrize("scheme", ["lattice", "2x8d4+lattice"])
def test_while_codes_move_it_ends_within_the_size_and_about_as_well(scheme: str, tmp_path: Path) -> None:
    """Coder tables are not saved: another file, as good and as small."""
    recipe: dict[str, Any] = {"ratio": 5 if scheme == "lattice" else 3, "scheme": scheme}
    net, model, _ = pair(moving=True, **recipe)
    with pytest.raises(Interrupted):
        tune(net, model, tmp_path / "run.pt", 9)
    net, model, archive = pair(moving=True, **recipe)
    tuned = tune(net, model, tmp_path / "run.pt", resume=True)
    frozen = net.freeze()
    frozen.verify()
    assert frozen.size <= max(archive.size, archive.recipe.budget(*archive.given))
    whole, model, _ = pair(moving=True, **recipe)
    other = tune(whole, model, None)
    assert tuned.held_out is not None and other.held_out is not None
    assert tuned.held_out < 1.5 * other.held_out and tuned.step > 0
    assert whole.freeze().size == pytest.approx(frozen.size, rel=0.05)


def test_the_network_is_at_once_what_it_was(tmp_path: Path) -> None:
    """Also while codes move: outputs before the next step are those of the state that was saved."""
    for moving in (False, True):
        saved: list[torch.Tensor] = []
        net, model, _ = pair(ratio=5, moving=moving)

        def after(step: int, net: Tunable = net, saved: list[torch.Tensor] = saved) -> None:
            if step == 8:
                saved.append(output(net, (HELD[0],)))
            if step == 9:
                raise Interrupted

        with pytest.raises(Interrupted):
            tune(net, model, tmp_path / f"{moving}.pt", after_step=after)
        fresh, model, _ = pair(ratio=5, moving=moving)
        run = runs.Run(fresh, model, DATA, runs.Objective(), settings(tmp_path / f"{moving}.pt"))
        run.restore()
        assert run.step == 8 and fresh.moving == moving
        assert torch.equal(output(fresh, (HELD[0],)), saved[0])


def settings(path: Path) -> runs.Settings:
    return runs.Settings(
        20, 2e-3, False, 1.0, 1, torch.optim.Adam, None, "fp32", 0, HELD, None, None, 2, None, path, None
    )


def test_any_module_may_go_on(tmp_path: Path) -> None:
    results = []
    for path in (tmp_path / "run.pt", None):
        student, teacher = settled(mlp(), seed=1), settled(mlp())
        if path is not None:
            with pytest.raises(Interrupted):
                tune(student, teacher, path, 6)
            student = settled(mlp(), seed=2)
        tune(student, teacher, path, resume=path is not None)
        results.append(student.state_dict())
    assert_same(results[0], results[1])


def test_a_run_that_has_ended_is_only_finished_again(tmp_path: Path) -> None:
    net, model, _ = pair(ratio=5)
    first = tune(net, model, tmp_path / "run.pt")
    again, model, _ = pair(ratio=5)
    steps: list[int] = []
    second = tune(again, model, tmp_path / "run.pt", resume=True, after_step=steps.append)
    assert steps == [] and second == first
    assert again.freeze().to_bytes() == net.freeze().to_bytes()


def test_without_a_file_the_run_starts_anew(tmp_path: Path) -> None:
    net, model, _ = pair(ratio=5)
    tune(net, model, tmp_path / "run.pt", resume=True)
    whole, model, _ = pair(ratio=5)
    tune(whole, model, None)
    assert net.freeze().to_bytes() == whole.freeze().to_bytes()
    assert (tmp_path / "run.pt").exists()


# ---------------------------------------------------------------------- other files
class Harmful:
    """A pickle that would leave a trace when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_no_pickle_is_executed(tmp_path: Path) -> None:
    torch.save({"tersor tuning": 1, "net": Harmful(tmp_path / "trace")}, tmp_path / "run.pt")
    net, model, _ = pair()
    words = refusal(lambda: tune(net, model, tmp_path / "run.pt", resume=True))
    assert "run.pt: not a checkpoint of a tuning run" in words
    assert not (tmp_path / "trace").exists()
    torch.load(tmp_path / "run.pt", weights_only=False)
    assert (tmp_path / "trace").exists(), "the file would have done it"


@pytest.mark.parametrize(
    "content", [b"", b"nothing of the kind", None, {"tersor tuning": 99}, [1, 2], {"tersor tuning": 1}]
)
def test_files_of_another_kind_are_refused(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    net, model, archive = pair()
    words = refusal(lambda: tune(net, model, path, resume=True))
    assert str(path) in words and "remove it to start anew" in words
    assert net.freeze().to_bytes() == tersor.tunable(model, archive).freeze().to_bytes()


def other_network() -> tuple[Tunable, nn.Module]:
    model = settled(nn.Sequential(nn.Linear(12, 30), nn.Tanh(), nn.Linear(30, 10)))
    return tersor.tunable(model, compressed(model, ratio=3)), model


def other_archive() -> tuple[Tunable, nn.Module]:
    """Of the same shapes and size, so that only its codes differ."""
    model = settled(mlp(), seed=3)
    return tersor.tunable(model, compressed(model, ratio=5)), model


def codes_that_move() -> tuple[Tunable, nn.Module]:
    net, model, _ = pair(ratio=5, moving=True)
    return net, model


@pytest.mark.parametrize("make", [other_network, other_archive, codes_that_move])
def test_runs_of_others_are_refused(make: Any, tmp_path: Path) -> None:
    interrupted(tmp_path / "run.pt", 9)
    net, model = make()
    before = output(net, (HELD[0],))
    words = refusal(lambda: tune(net, model, tmp_path / "run.pt", resume=True))
    assert "run.pt: a run of another archive, or one in which codes stay" in words
    assert torch.equal(output(net, (HELD[0],)), before)


def test_another_number_of_steps_is_another_run(tmp_path: Path) -> None:
    interrupted(tmp_path / "run.pt", 9)
    net, model, _ = pair(ratio=5)
    assert "a run of 20 steps, not 30" in refusal(lambda: tune(net, model, tmp_path / "run.pt", resume=True, steps=30))


def test_another_plain_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        tune(settled(mlp()), mlp(), tmp_path / "run.pt", 9)
    narrow = nn.Linear(12, 10)
    assert "of another network" in refusal(lambda: tune(narrow, mlp(), tmp_path / "run.pt", resume=True))


def test_an_interrupt_while_saving_leaves_the_file_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(tmp_path / "run.pt", 5)
    before = (tmp_path / "run.pt").read_bytes()

    def broken(state: Any, file: Any) -> None:
        file.write(b"half a file")
        raise Interrupted

    monkeypatch.setattr(torch, "save", broken)
    net, model, _ = pair(ratio=5)
    with pytest.raises(Interrupted):
        tune(net, model, tmp_path / "run.pt")
    assert (tmp_path / "run.pt").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


def test_a_run_that_gave_up_has_ended(tmp_path: Path) -> None:
    net, model, _ = pair(ratio=5)

    def spoil(step: int) -> None:
        for p in net.parameters():
            p.data.mul_(1.1)

    first = tune(net, model, tmp_path / "run.pt", after_step=spoil, patience=2)
    assert first.stopped is not None
    again, model, _ = pair(ratio=5)
    steps: list[int] = []
    assert tune(again, model, tmp_path / "run.pt", resume=True, patience=2, after_step=steps.append) == first
    assert steps == []
