"""Writing a report: read everything, then the page, at once or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tersor.archive import Archive
from tersor.checkpoint import Checkpoint, open_checkpoint
from tersor.files import atomic_output, check_output

Progress = Callable[[str, int, int], None]


def write(
    archive: Archive | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    against: Any = None,
    title: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write one self-contained HTML page about an archive.

    The page holds its own style and pictures and asks nothing of the network. The same file gives the same page.
    If a search made the file, its record (`FILE.search.json`) is read from beside it.

    Args:
        archive: open, or its path.
        out: the page.
        against: the dense checkpoint it was made from, as for `compress`: errors are then measured, not taken from the
            file.
        title: of the page; else the file's name.
        force: replace `out` if it exists.
        progress: called with a stage's name, steps done and steps expected.

    Returns:
        Bytes of the page.

    Raises:
        ArchiveError: the archive is damaged; nothing is written.
        TersorError: `out` exists or cannot be written, `against` cannot be read or has no tensor that fits, or the
            record of the search is none.
    """
    from tersor.report.against import measure
    from tersor.report.facts import gather
    from tersor.report.page import page
    from tersor.report.trials import record_of

    def show(stage: str) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, total: progress(stage, done, total)

    check_output(out, force=force)
    archive = archive if isinstance(archive, Archive) else Archive(os.fspath(archive))
    dense = None
    if against is not None:
        dense = against if isinstance(against, Checkpoint) else open_checkpoint(against)
    record = record_of(archive)
    archive.verify(show("verifying"))
    measured = None if dense is None else measure(archive, dense, show("measuring"))
    facts = gather(archive)
    made = page(archive, facts, measured, record, title or Path(facts.file).stem).encode()
    with atomic_output(out, force=force) as file:
        file.write(made)
    return len(made)
