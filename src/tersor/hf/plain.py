"""An archive decoded to a plain safetensors file for a moment: tensor by tensor, and without waiting for the disk."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tersor.archive import Archive
from tersor.checkpoint.layout import layout_of
from tersor.checkpoint.writer import fill
from tersor.errors import TersorError
from tersor.files import disk_reason, reserve


def decode_aside(archive: Archive) -> Path:
    """Write all tensors, tied ones under each of their names, to a file in a new folder of its own; returns the file.

    The folder is in the system's for temporary files (TMPDIR), and the caller's to remove.

    Raises:
        TersorError: the file, which takes the bytes of the plain weights, cannot be written.
        ArchiveError: the archive is damaged.
    """
    folder = None
    layout = layout_of(archive.name, archive.entries)
    try:
        folder = Path(tempfile.mkdtemp(prefix="tersor-"))
        path = folder / "model.safetensors"
        with open(path, "xb") as out:
            reserve(out, layout.size)
            out.write(layout.header)
            fill(path, archive.entries, dict.fromkeys(layout.starts, (out, layout)), archive.tensors())
    except BaseException as error:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            reason = disk_reason(error, folder or Path(tempfile.gettempprefix()))
            raise TersorError(f"cannot decode {archive.name} ({layout.size:,} B): {reason} (TMPDIR)") from error
        raise
    return path
