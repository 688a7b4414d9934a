"""The whole search, on a small network."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from scored import Closeness, small
from torch import nn

import tersor
from tersor.archive import Archive
from tersor.errors import TargetError, TersorError
from tersor.search import SearchResult, Trial, search

DRAFT = {"effort": "draft"}


def run(out: Path, model: nn.Module | None = None, evaluate: Any = None, **options: Any) -> SearchResult:
    model = model or small()
    return search(model, evaluate or Closeness(model), **{"max_drop": 2.0, "out": out, "recipe": DRAFT, **options})


def test_finds_the_smallest_file_within_the_drop(tmp_path: Path) -> None:
    out, model = tmp_path / "a.tersor", small()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    evaluate, seen = Closeness(model), []
    result = search(model, evaluate, max_drop=2.0, out=out, recipe=DRAFT, judged=seen.append)
    assert result.met and result.baseline == 100.0 and result.score >= 98.0
    assert result.path == str(out) and result.archive.size == out.stat().st_size
    assert evaluate(result.archive.apply_(small())) == result.score
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert result.trials == tuple(seen) and len(seen) <= 10
    files = [t for t in result.trials if t.bytes is not None]
    assert result.archive.size == min(t.bytes for t in files if t.feasible and t.bytes is not None)
    asked = sorted(t.asked for t in files if not t.feasible)
    best = max(t.asked for t in files if t.feasible)
    assert min(a for a in asked if a > best) <= 1.03 * best
    told = json.loads((tmp_path / "a.tersor.search.json").read_text())
    assert [t["bytes"] for t in told["trials"]] == [t.bytes for t in result.trials] and told["met"]
    assert (tmp_path / "a.tersor.search.svg").read_text().startswith("<svg")
    assert not (tmp_path / "a.tersor.search.tersor").exists()


def test_the_same_search_gives_the_same_file(tmp_path: Path) -> None:
    first, second = run(tmp_path / "a.tersor", trials=3), run(tmp_path / "b.tersor", trials=3)
    assert first.archive.to_bytes() == second.archive.to_bytes()
    assert [(t.asked, t.bytes, t.score) for t in first.trials] == [(t.asked, t.bytes, t.score) for t in second.trials]


def test_the_best_is_on_disk_after_every_trial(tmp_path: Path) -> None:
    out, model = tmp_path / "a.tersor", small()
    evaluate = Closeness(model)
    so_far: list[Trial] = []

    def judged(trial: Trial) -> None:
        so_far.append(trial)
        good = [t for t in so_far if t.feasible]
        best = min(good, key=lambda t: t.bytes or 0) if good else max(so_far, key=lambda t: t.score or -math.inf)
        archive = tersor.open(out)
        assert archive.size == best.bytes and evaluate(archive.apply_(small())) == best.score
        assert len(json.loads((tmp_path / "a.tersor.search.json").read_text())["trials"]) == len(so_far)

    run(out, model, evaluate, judged=judged)
    assert len(so_far) > 3


def test_goes_beyond_the_upper_ratio(tmp_path: Path) -> None:
    result = run(tmp_path / "a.tersor", ratios=(1.5, 2.0), max_drop=5.0)
    assert result.met and max(t.asked for t in result.trials) > 4 and result.archive.size < 30_000 / 4


def test_a_target_that_cannot_be_met_gives_the_nearest(tmp_path: Path) -> None:
    result = run(tmp_path / "a.tersor", ratios=(8.0, 64.0), max_drop=0.01)
    assert not result.met and min(t.asked for t in result.trials) == 8.0
    assert result.score == max(t.score for t in result.trials if t.score is not None)
    assert result.archive.size == (tmp_path / "a.tersor").stat().st_size
    assert json.loads((tmp_path / "a.tersor.search.json").read_text())["met"] is False


def test_scores_without_order_give_the_smallest_feasible_that_was_seen(tmp_path: Path) -> None:
    calls = iter([100.0, 99.0, 90.0, 99.5, 91.0, 99.0, 90.0])
    result = run(tmp_path / "a.tersor", evaluate=lambda model: next(calls), trials=6)
    good = [t.bytes for t in result.trials if t.feasible and t.bytes is not None]
    assert result.met and result.archive.size == min(good)


def test_what_compress_refuses_bounds_the_range(tmp_path: Path) -> None:
    result = run(tmp_path / "a.tersor", evaluate=lambda model: 1.0, max_drop=0.0, recipe={**DRAFT, "exclude": ["2.*"]})
    refused = [t for t in result.trials if t.bytes is None]
    assert result.met and refused and all("smallest possible" in t.note and not t.feasible for t in refused)
    assert min(t.asked for t in refused) > max(t.asked for t in result.trials if t.feasible)


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(TersorError, match="no file of these ratios can be made"):
        run(tmp_path / "a.tersor", recipe={"exclude": ["*"]})
    assert not (tmp_path / "a.tersor").exists()


def test_every_candidate_is_tuned_before_it_is_judged(tmp_path: Path) -> None:
    model, given = small(), []

    def tune(archive: Archive, copy: nn.Module) -> Archive:
        assert copy is not model
        with torch.no_grad():
            copy[0].weight.zero_()  # type: ignore[index,union-attr,operator]
        given.append(archive.size)
        return tersor.compress(archive.state_dict(), tersor.Recipe(ratio=3, effort="draft"))

    result = run(tmp_path / "a.tersor", model, tune=tune, trials=2)
    assert len(given) == 2 and model[0].weight.abs().sum() > 0  # type: ignore[union-attr,operator]
    assert {t.bytes for t in result.trials}.isdisjoint(given)
    assert result.archive.recipe.ratio == 3
    with pytest.raises(TersorError, match="tune returned a NoneType"):
        run(tmp_path / "b.tersor", tune=lambda archive, copy: None)


def test_a_size_that_tuning_cannot_keep_bounds_the_range_too(tmp_path: Path) -> None:
    def tune(archive: Archive, copy: nn.Module) -> Archive:
        if archive.size < 3000:
            raise TargetError("too small for these latents")
        return archive

    result = run(tmp_path / "a.tersor", tune=tune, max_drop=100.0)
    refused = [t for t in result.trials if t.bytes is None]
    assert result.met and 3000 <= result.archive.size < 3200
    assert refused and all("too small for these latents" in t.note for t in refused)


def test_evaluate_gets_a_copy_in_eval_mode(tmp_path: Path) -> None:
    model, seen = small().train(), []

    def evaluate(network: nn.Module) -> float:
        seen.append(network.training or network is model)
        return 1.0

    run(tmp_path / "a.tersor", model, evaluate, trials=1)
    assert seen == [False, False] and model.training


def test_importance_and_recipe_reach_the_coder(tmp_path: Path) -> None:
    weights = {"0.weight": torch.full((32, 128), 100.0), "2.weight": torch.ones(32, 32)}
    plain = run(tmp_path / "a.tersor", trials=1)
    weighted = run(tmp_path / "b.tersor", trials=1, importance=weights)
    assert plain.archive.to_bytes() != weighted.archive.to_bytes()
    assert weighted.archive.recipe.effort == "draft"


@pytest.mark.parametrize(
    ("answer", "told"),
    [(math.nan, "returned nan"), (math.inf, "returned inf"), ("good", "returned a str"), (None, "returned a NoneType")],
)
def test_nonsense_from_evaluate(answer: object, told: str, tmp_path: Path) -> None:
    with pytest.raises(TersorError, match=rf"the original model: evaluate {told}"):
        run(tmp_path / "a.tersor", evaluate=lambda model: answer)
    answers = iter([100.0, 99.0, answer])
    with pytest.raises(TersorError, match=rf"trial 2 \(ratio 26.91\): evaluate {told}"):
        run(tmp_path / "a.tersor", evaluate=lambda model: next(answers))
    assert tersor.open(tmp_path / "a.tersor").recipe.ratio == pytest.approx(math.sqrt(128))


def broken(model: nn.Module) -> float:
    raise ValueError("no images\nhere")


def test_evaluate_that_raises_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(TersorError, match=r"trial 1 .*: evaluate raised ValueError: no images here \(.*line") as caught:
        run(tmp_path / "a.tersor", evaluate=broken, baseline=100.0)
    assert "\n" not in str(caught.value)


def test_resume_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole.tersor")
    out, model = tmp_path / "a.tersor", small()
    evaluate, left = Closeness(model), [4]

    def stopping(network: nn.Module) -> float:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return evaluate(network)

    with pytest.raises(KeyboardInterrupt):
        run(out, model, stopping)
    assert len(json.loads((tmp_path / "a.tersor.search.json").read_text())["trials"]) == 3
    assert tersor.open(out).verify() is None
    evaluate.calls = 0
    result = run(out, model, evaluate, resume=True)
    assert evaluate.calls == len(result.trials) - 3
    assert [(t.asked, t.bytes, t.score) for t in result.trials] == [(t.asked, t.bytes, t.score) for t in whole.trials]
    assert result.archive.to_bytes() == whole.archive.to_bytes()
    again = run(out, model, evaluate, resume=True)
    assert again.trials == result.trials, "nothing is left to do"


def test_resume_refuses_another_model_or_recipe(tmp_path: Path) -> None:
    out = tmp_path / "a.tersor"
    run(out, trials=1)
    other = small()
    with torch.no_grad():
        other[0].weight[0, 0] += 1  # type: ignore[index,union-attr,operator]
    for change, told in (
        ({"model": other}, "another model"),
        ({"recipe": {}}, "recipe was"),
        ({"max_drop": 1.0}, "max_drop was 2.0 and is 1.0"),
        ({"tune": lambda archive, copy: archive}, "tuned was False and is True"),
        ({"importance": {"0.weight": torch.ones(32, 128)}}, "another importance"),
        ({"settings": {"steps": 5}}, "steps was None and is 5"),
    ):
        with pytest.raises(TersorError, match=told):
            run(out, **{**change, "resume": True})  # type: ignore[arg-type]
    assert len(run(out, resume=True, trials=2, ratios=(3.0, 30.0)).trials) == 2, "these may differ"


def test_force_begins_anew(tmp_path: Path) -> None:
    out = tmp_path / "a.tersor"
    run(out, trials=2)
    with pytest.raises(TersorError, match="exists"):
        run(out)
    with pytest.raises(TersorError, match="the original model: evaluate raised"):
        run(out, evaluate=broken, force=True)
    assert len(run(out, trials=2, resume=True).trials) == 2, "a start that failed changed nothing"
    assert len(run(out, trials=1, force=True, max_drop=1.0).trials) == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"recipe": {"ratio": 3}}, "the search finds ratio itself"),
        ({"recipe": {"effort": "huge"}}, "effort"),
        ({"recipe": {"colour": 1}}, "colour"),
        ({"ratios": (4.0, 2.0)}, "lower first"),
        ({"ratios": (0.0, 2.0)}, "above 0"),
        ({"max_drop": -1.0}, "max_drop"),
        ({"max_drop": math.nan}, "max_drop"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"trials": 0}, "trials"),
        ({"baseline": math.nan}, "baseline"),
        ({"importance": {"9.weight": torch.ones(1)}}, "9.weight"),
        ({"recipe": {"exclude": ["none*"]}}, "matches no tensor"),
    ],
)
def test_bad_calls(options: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(TersorError, match=told):
        run(tmp_path / "a.tersor", **options)
    assert not (tmp_path / "a.tersor").exists()


class Locked(nn.Linear):
    def __deepcopy__(self, memo: object) -> Locked:
        raise RuntimeError("no copies")


def test_a_model_that_cannot_be_copied(tmp_path: Path) -> None:
    with pytest.raises(TersorError, match=r"Locked cannot be copied \(RuntimeError: no copies"):
        run(tmp_path / "a.tersor", Locked(64, 64))


def test_progress_tells_the_trials(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    run(tmp_path / "a.tersor", trials=2, progress=lambda *state: seen.append(state))
    assert [s for s in seen if s[0] == "trials"] == [("trials", 0, 2), ("trials", 1, 2)]
    assert any(stage == "coding" for stage, _, _ in seen)
