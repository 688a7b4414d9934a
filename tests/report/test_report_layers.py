"""Rows of figures."""

from __future__ import annotations

import pytest
from archives import gpt

from tersor.report.layers import module, order, rows, short, stem


def covered(found: list, count: int) -> bool:
    return sorted(i for row in found for i in row.members) == list(range(count))


def test_modules_are_rows() -> None:
    names = ["conv1.weight", "conv1.bias", "layer1.0.conv.weight", "layer1.0.conv.bias", "scale"]
    found = rows(names, [1] * 5)
    assert [row.label for row in found] == ["conv1", "layer1.0.conv", "scale"] and covered(found, 5)
    assert (
        module("a.b.weight") == ("a", "b")
        and module("a.b.other") == ("a", "b", "other")
        and module("weight") == ("weight",)
    )


def test_numbers_are_in_order_where_a_file_sorted_them_as_text() -> None:
    names = ["h.0.w", "h.1.w", "h.10.w", "h.2.w"]
    assert order(names) == [0, 1, 3, 2]
    assert order(names[::-1]) == [0, 1, 2, 3], "any other order is the network's own"


@pytest.mark.parametrize("blocks", [4, 12, 48, 200])
def test_blocks_of_a_language_model(blocks: int) -> None:
    names = list(gpt(blocks))
    found = rows(names, [1.0] * len(names))
    assert covered(found, len(names)) and 3 <= len(found) <= 36
    labels = [row.label for row in found]
    assert {"lm_head", "transformer.wte"} <= set(labels)
    if blocks == 48:
        assert labels[1:4] == ["transformer.h.0–1", "transformer.h.2–3", "transformer.h.4–5"]


def test_flat_names_leave_a_told_rest() -> None:
    names = [f"tensor{chr(97 + k % 26)}{k}" for k in range(300)]
    found = rows(names, [float(k) for k in range(300)], most=10)
    assert len(found) == 10 and found[-1].label == "and 291 others" and covered(found, 300)
    assert {row.label for row in found[:-1]} == {names[k] for k in range(291, 300)}, "the heaviest are shown"


def test_hostile_names() -> None:
    names = ["." * 50, "9" * 6000, "a" * 100_000, "\u00b2.weight", "", "x..y"]
    found = rows(names, [1.0] * len(names))
    assert covered(found, len(names)) and all(len(row.label) <= 100 for row in found)


def test_stems_and_short_labels() -> None:
    assert stem(["model.a.b", "model.a.c"]) == "model.a." and stem(["ab", "ac"]) == "" and stem(["one.two"]) == ""
    assert stem(["model.layer1", "model.layer2"]) == "model."
    assert (
        short("layers.0.feed_forward.w1", 18) == "…0.feed_forward.w1"
        or len(short("layers.0.feed_forward.w1", 18)) <= 18
    )
    assert short("layers.0.feed_forward.w1", 20) == "…0.feed_forward.w1"
    assert short("abcdefgh", 4) == "…fgh" and short("abc", 4) == "abc"
