"""Imports go one way: `docs/architecture.md`, "Rooms"."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src" / "tersor"
LAYERS = (
    ("errors",),
    ("files", "kernels", "user"),
    ("checkpoint", "codec"),
    ("additive", "lattice"),
    ("representations",),
    ("recipe", "index", "structure"),
    ("plan", "sections"),
    ("archive", "assemble", "keep"),
    ("values",),
    ("scalar",),
    ("encode",),
    ("stream", "whole"),
    ("usage", "tune", "packed", "diff", "int8"),
    ("passes", "lazy"),
    ("api", "export"),
    ("hf", "search"),
    ("report",),
    ("cli",),
)
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}


def imported_rooms(path: Path) -> set[str]:
    """Rooms that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "tersor":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found & set(RANK)


def test_no_room_imports_a_higher_one() -> None:
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if room in RANK:
            wrong += [f"{path.name} imports {other}" for other in imported_rooms(path) if RANK[other] > RANK[room]]
    assert not wrong


def test_every_room_has_its_place() -> None:
    rooms = {path.name.removesuffix(".py") for path in SOURCE.iterdir() if not path.name.startswith(("_", "."))}
    assert rooms - {"py.typed"} == set(RANK)
