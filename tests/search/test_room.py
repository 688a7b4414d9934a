"""`tersor.search` is a room and a function."""

from __future__ import annotations

import subprocess
import sys

import pytest

AS_FUNCTION = "assert callable(tersor.search)"
AS_ROOM = "from tersor.search import Trial; from tersor.search.trial import leader"


@pytest.mark.parametrize("steps", [(AS_FUNCTION, AS_ROOM), (AS_ROOM, AS_FUNCTION)])
def test_in_any_order(steps: tuple[str, str]) -> None:
    code = f"""
import tersor
{steps[0]}
{steps[1]}
{steps[0]}
try:
    tersor.search(None, None, max_drop=-1, out="x")
except tersor.TersorError as error:
    assert "max_drop" in str(error)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
