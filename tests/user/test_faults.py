"""Errors of the user's own functions in one line."""

from __future__ import annotations

import json

import tersor
from tersor.user.faults import described, is_ours


def caught(call: object) -> Exception:
    try:
        call()  # type: ignore[operator]
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_names_the_last_line_of_the_users_own_code() -> None:
    text = described(caught(lambda: json.loads("{")))
    assert text.startswith("JSONDecodeError: Expecting") and __file__ in text and "decoder.py" not in text


def test_is_one_short_line() -> None:
    def fail() -> None:
        raise ValueError("a\nb" + "c" * 1000)

    text = described(caught(fail))
    assert text.startswith("ValueError: a b") and "\n" not in text and len(text) < 600
    assert described(ValueError()) == "ValueError"


def test_tells_ours_from_theirs() -> None:
    assert is_ours(caught(lambda: tersor.open("missing.tersor")))
    assert not is_ours(caught(lambda: json.loads("{")))
    assert not is_ours(ValueError())
