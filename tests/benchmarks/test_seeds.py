from __future__ import annotations

from typing import Any

import pytest
from benchmarks.seeds import averaged, told
from benchmarks.tuned_claims import sections
from benchmarks.tuned_figures import figures

NETWORK = "resnet20-cifar10jpeg"


def row(lost: float, **more: Any) -> dict[str, Any]:
    fixed = {
        "bytes": 100,
        "ratio": 24.0,
        "coded": None,
        "score": 90 - lost,
        "lost": lost,
        "steps": 9,
        "quick": False,
        "environment": {},
    }
    return {**fixed, "lost_low": lost - 1, "lost_high": lost + 1, "divergence": 0.1, **more}


def results(**cases: dict[str, Any]) -> dict[str, Any]:
    before = {"score": 90.0, "low": 89.0, "high": 91.0, "items": 10}
    return {NETWORK: {"before": before, "metric": "%", "cases": cases}}


def test_cases_that_differ_in_the_seed_are_one_row() -> None:
    given = {"lattice@24": row(1.0, coded=50.0), "lattice@24#1": row(2.0, coded=60.0, bytes=103), "uniform@24": row(3)}
    cases = averaged(results(**given))[NETWORK]["cases"]
    assert cases.keys() == {"lattice@24", "uniform@24"}
    mean = cases["lattice@24"]
    assert (mean["lost"], mean["score"], mean["coded"], mean["seeds"]) == (1.5, 88.5, 55.0, 2)
    assert mean["bytes"] == 102 and (mean["least"], mean["most"]) == (1.0, 2.0)
    assert mean["cases"] == "lattice@24 lattice@24#1"
    assert told(mean) == "+1.50 (+0.50 to +2.50); 2 seeds, +1.00 to +2.00"
    assert told(cases["uniform@24"]) == told(row(3)) == "+3.00 (+2.00 to +4.00)"


@pytest.mark.parametrize(("second", "met"), [(3.0, True), (6.0, False)])
def test_bars_are_met_by_means_and_not_by_the_luckiest(second: float, met: bool) -> None:
    given = {"lattice@24": row(1.0), "lattice@24#1": row(second), "uniform@24": row(3.0), "uniform@24#1": row(2.0)}
    figure = next(f for f in figures(averaged(results(**given)), {}) if "best rival" in f.name)
    assert figure.bar_met == met


def test_a_claim_has_a_table_for_each_network() -> None:
    given = results(**{"lattice:steps=0@27": row(1.0)})
    given["stories260k"] = {**given[NETWORK], "cases": {"lattice@7.2": row(0.5)}}
    page = "\n".join(sections(averaged(given)))
    assert f"--checkpoints {NETWORK} --cases lattice:steps=0@27`" in page
    assert "--checkpoints stories260k --cases lattice@7.2`" in page


def test_seeds_of_other_training_are_no_seeds() -> None:
    with pytest.raises(ValueError, match="lattice@24#1: not of the same number of steps"):
        averaged(results(**{"lattice@24": row(1.0), "lattice@24#1": row(2.0, steps=10)}))


def test_the_longest_training_stands_for_a_ratio() -> None:
    given = {
        "lattice@15.3": row(3.0),
        "lattice:steps=600@15.3": row(0.8, steps=600),
        "lattice:moving=no@15.3": row(0.1),
    }
    figure = next(f for f in figures(averaged(results(**given)), {}) if "lost at 15.3x" in f.name)
    assert f"{NETWORK} 0.80" in str(figure.measured)
