"""Which of the trials is the best."""

from __future__ import annotations

from tersor.search.trial import Trial, is_feasible, leader


def trial(nbytes: int | None, score: float | None, feasible: bool) -> Trial:
    return Trial(8.0, nbytes, None, score, None, feasible, 0.0)


REFUSED = trial(None, None, False)


def test_the_smallest_feasible_leads() -> None:
    small, large, bad = trial(10, 90.0, True), trial(20, 92.0, True), trial(5, 91.0, False)
    assert leader([large, bad, small, REFUSED]) is small
    better = trial(10, 91.0, True)
    assert leader([small, better]) is better


def test_else_the_nearest() -> None:
    near, far, near_and_small = trial(20, 80.0, False), trial(5, 10.0, False), trial(15, 80.0, False)
    assert leader([far, near]) is near
    assert leader([near, near_and_small, far]) is near_and_small
    assert leader([REFUSED]) is None and leader([]) is None


def test_the_first_of_equals_stays() -> None:
    first, second = trial(10, 90.0, True), trial(10, 90.0, True)
    assert leader([first, second]) is first


def test_feasible_up_to_rounding() -> None:
    assert 90.01 - 89.71 > 0.3 and is_feasible(89.71, 90.01, 0.3)
    assert not is_feasible(89.70, 90.01, 0.3)
    assert is_feasible(92.1, 92.1, 0.0) and is_feasible(93.0, 92.1, 0.0)
