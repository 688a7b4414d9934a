"""The chart of a search."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

import pytest

from tersor.search.curve import HEIGHT, WIDTH, draw
from tersor.search.trial import Trial, is_feasible

SVG = "{http://www.w3.org/2000/svg}"


def trial(nbytes: int | None, score: float | None, baseline: float = 91.73, max_drop: float = 0.5) -> Trial:
    if nbytes is None or score is None:
        return Trial(64.0, None, None, None, None, False, 1.0, note="too small & <impossible>")
    return Trial(
        16.0, nbytes, 1e6 / nbytes, score, baseline - score, is_feasible(score, baseline, max_drop), 1.0, f"{nbytes}"
    )


TRIALS = [trial(96_000, 91.65), trial(40_000, 88.2), trial(62_000, 91.31), trial(17_000, 10.0), trial(None, None)]


def parsed(trials: Sequence[Trial], baseline: float = 91.73, max_drop: float = 0.5) -> ET.Element:
    return ET.fromstring(draw(trials, baseline, max_drop))


def texts(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def test_shows_every_file_and_marks_the_best() -> None:
    root = parsed(TRIALS)
    kinds = [element.get("class") for element in root.iter() if element.tag in (f"{SVG}circle", f"{SVG}path")]
    assert sorted(filter(None, kinds)) == ["best", "no", "no", "yes", "yes"]
    assert "best: 62,000 B, 91.31" in texts(root)
    assert "score against bytes: 4 files, 2 within the drop of 0.5" in texts(root)
    assert {"original 91.73", "limit 91.23", "score", "bytes of the file (logarithmic)"} <= set(texts(root))
    titles = [element.text or "" for element in root.iter(f"{SVG}title")]
    assert any("40,000 B, score 88.2, drop 3.53" in title for title in titles)


def test_axes_have_ticks() -> None:
    found = texts(parsed(TRIALS))
    assert {"86", "88", "90", "92"} <= set(found)
    assert {"20 kB", "50 kB", "100 kB"} <= set(found)


def test_a_score_far_below_is_an_arrow_at_the_edge() -> None:
    root = parsed(TRIALS)
    (arrow,) = root.iter(f"{SVG}path")
    assert arrow.get("class") == "no" and "10" in texts(root)


def test_the_nearest_is_marked_where_none_is_feasible() -> None:
    assert "nearest: 96,000 B, 60" in texts(parsed([trial(96_000, 60.0), trial(40_000, 12.0)]))


@pytest.mark.parametrize(
    "trials", [[], [trial(None, None)], TRIALS[:1], [trial(50_000, 91.73)] * 2, [trial(1, 91.73), trial(10**12, -1e9)]]
)
@pytest.mark.parametrize("max_drop", [0.0, 0.5, 1e6])
def test_everything_lies_in_the_picture(trials: list[Trial], max_drop: float) -> None:
    root = parsed(trials, max_drop=max_drop)
    for element in root.iter():
        for key in ("x", "x1", "x2", "cx"):
            assert 0 <= float(element.get(key, 0)) <= WIDTH
        for key in ("y", "y1", "y2", "cy"):
            assert 0 <= float(element.get(key, 0)) <= HEIGHT


def test_light_and_dark_and_by_itself() -> None:
    text = draw(TRIALS, 91.73, 0.5)
    assert "currentColor" in text and "prefers-color-scheme: dark" in text
    assert "href" not in text and "<script" not in text and text.count("http") == 1, "nothing from outside"


def test_the_same_trials_give_the_same_bytes_in_any_order() -> None:
    assert draw(TRIALS, 91.73, 0.5) == draw(TRIALS[::-1], 91.73, 0.5)
