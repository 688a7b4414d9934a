"""Pictures: areas, scales, what is told of them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.report import bars, curve, heat, scale, treemap
from tersor.report.bars import Bar
from tersor.report.treemap import Box, Cell, squarify
from tersor.search.trial import Trial


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=60), st.floats(1, 1000), st.floats(1, 1000))
def test_areas_are_in_proportion_and_fill_the_box(weights: list[float], width: float, height: float) -> None:
    weights = sorted(weights, reverse=True)
    boxes = squarify(weights, Box(0, 0, width, height))
    area = width * height
    for weight, box in zip(weights, boxes, strict=True):
        assert box.width * box.height == pytest.approx(area * weight / sum(weights), rel=1e-6, abs=1e-9 * area)
        assert box.x >= -1e-6 and box.x + box.width <= width * (1 + 1e-6)
        assert box.y >= -1e-6 and box.y + box.height <= height * (1 + 1e-6)
    for k, a in enumerate(boxes):
        for b in boxes[k + 1 :]:
            x = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
            y = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
            assert min(x, y) <= 1e-6 * max(width, height)


def test_equal_weights_are_nearly_square() -> None:
    assert all(0.5 <= b.width / b.height <= 2 for b in squarify([1.0] * 12, Box(0, 0, 40, 30)))


def test_labels_of_a_treemap_fit_or_are_left_out() -> None:
    cells = [[Cell(90, "s1", ("layer1.conv", "…conv"), "told"), Cell(1, "s2", ("tiny.name", "…name"), "small")]]
    svg = treemap.draw(cells, "bytes")
    assert "layer1.conv" in svg and "tiny.name" not in svg and "<title>small</title>" in svg and 'class="on-s1"' in svg
    assert "<title>bytes</title>" in treemap.draw([[]], "bytes"), "nothing to draw"


def test_bars_end_where_their_values_are() -> None:
    shown = [Bar("a.one", 2.0, 2.0, 2.0, "2.00", "two"), Bar("a.two", 4.0, 3.0, 5.0, "4.00", "four", loud=True)]
    table = bars.draw(shown, (0, 8), [(0, "0"), (8, "8")], ("Layer", "Bits", "Bits"), "two rows", mark=3.0)
    assert 'width="25.00%"' in table and 'width="50.00%"' in table and 'x1="37.50%"' in table
    assert '<line class="range" x1="37.50%" x2="62.50%"' in table
    assert ">one<" in table and 'title="a.one"' in table and "<caption>two rows</caption>" in table


def test_strips_join_cells_of_one_colour() -> None:
    table = heat.draw(["a", "b"], [[0, 0, None, 7], [1, 1, 1, 1]], ["first", "second"], [(0, "0")], "map")
    assert 'd="M0 0h2v1h-2z"' in table and 'd="M3 0h1v1h-1z"' in table and 'd="M0 0h4v1h-4z"' in table
    assert "<title>first</title>" in table
    each = heat.draw(["a"], [[3, 4]], [["one", "two"]], [], "map", numbered=True)
    assert "<title>two</title>" in each and each.count("<rect") == 2


@pytest.mark.parametrize("edges", [scale.BITS, scale.EVEN, scale.SHARE, scale.OVERLAP])
def test_scales_have_eight_rising_classes(edges: tuple[float, ...]) -> None:
    assert len(edges) == 7 and list(edges) == sorted(set(edges))
    assert scale.of(0, edges) == 0 and scale.of(edges[0], edges) == 1 and scale.of(edges[-1] * 2, edges) == 7


def test_the_curve_tells_of_every_file() -> None:
    trials = [
        Trial(8, 1000, 8.0, 89.9, 0.1, True, 1.0), Trial(16, 500, 16.0, 88.0, 2.0, False, 1.0),
        Trial(64, 100, 64.0, 1.0, 89.0, False, 1.0), Trial(99, None, None, None, None, False, 1.0, note="no"),
    ]  # fmt: skip
    svg = curve.draw(trials, 90.0, 0.5)
    assert svg.count('class="yes"') == 1 and svg.count('class="no"') == 1 and svg.count('class="far"') == 1
    assert svg.count('class="ring"') == 1 and "1,000 B, score 89.9, within the drop" in svg
    places = [float(x) for x in re.findall(r'cy="([\d.]+)"', svg)]
    assert all(0 <= y <= curve.HEIGHT for y in places)
    assert curve.draw(trials[:1], 90.0, 0.0).count("<circle") == 2, "one file alone, and no drop allowed"
