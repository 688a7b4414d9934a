"""Archives on disk, and their pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from archives import archive_bytes, journal

from tersor.report import write

Make = Callable[..., Path]


@pytest.fixture
def stored(tmp_path: Path) -> Make:
    """Writes the archive of a kind, with the record of a search beside it if asked; gives its path."""

    def make(kind: str, *, searched: bool = False) -> Path:
        path = tmp_path / f"{kind}.tersor"
        path.write_bytes(archive_bytes(kind))
        if searched:
            (tmp_path / f"{kind}.tersor.search.json").write_bytes(journal(archive_bytes(kind)))
        return path

    return make


@pytest.fixture
def page(stored: Make, tmp_path: Path) -> Callable[..., str]:
    """The page about the archive of a kind, as text."""

    def make(kind: str, *, searched: bool = False, **keywords: object) -> str:
        out = tmp_path / f"{kind}.html"
        size = write(stored(kind, searched=searched), out, force=True, **keywords)  # type: ignore[arg-type]
        assert size == out.stat().st_size
        return out.read_text()

    return make
