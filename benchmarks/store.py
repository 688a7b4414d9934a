"""Where results live: one JSON file per benchmark beside this file, charts and tables in docs/."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DOCS = ROOT / "docs"
SHARED = ROOT.parent / "shared"


class MissingFile(Exception):
    """A file that a benchmark needs is not there; the text says which and what to do."""


def read(name: str) -> dict[str, Any]:
    """The stored results of one benchmark; empty when it has not run yet."""
    path = HERE / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write(name: str, results: dict[str, Any]) -> None:
    """Replace the stored results of one benchmark, atomically: an interrupted run keeps the last complete state."""
    path = HERE / f"{name}.json"
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    os.replace(partial, path)
