"""Errors of the user's own functions, told in one line."""

from __future__ import annotations

import os
import sysconfig
import traceback

_LONG = 300
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_OTHERS = tuple(sysconfig.get_paths()[name] + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def described(error: BaseException) -> str:
    """The error's type, the first words of its message, and the last line of the user's own code on the way there."""
    said = " ".join(str(error).split())
    said = f": {said[:_LONG]}{'…' if len(said) > _LONG else ''}" if said else ""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if not f.filename.startswith(_OURS)]
    theirs = [f for f in theirs if not f.filename.startswith("<")]
    own = [f for f in theirs if not f.filename.startswith(_OTHERS)] or theirs
    where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}{said}{where}"


def is_ours(error: BaseException) -> bool:
    """Whether a line of tersor raised it: then it is for us to mend."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.startswith(_OURS)
