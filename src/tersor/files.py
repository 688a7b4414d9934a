"""Writing one file so that it is there whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tersor.errors import TersorError


@contextmanager
def atomic_output(path: str | os.PathLike[str], *, force: bool = False) -> Iterator[BinaryIO]:
    """Give a binary file to write; `path` takes its content only when the block ends without an error.

    The bytes go to a temporary file in the same folder, are synced to the disk and then renamed over `path`. Any
    failure, an interrupt included, removes the temporary file and leaves what was at `path` as it was. A symbolic
    link at `path` is followed.

    Raises:
        TersorError: `path` exists and `force` is false, is a folder or a device, its folder is missing or cannot be
            written to, or an `OSError` (a full disk, say) happened inside the block.
    """
    target = Path(os.path.realpath(path))
    _check_target(path, target, force)
    temporary = target.with_name(f".tersor-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as out:  # unlike mkstemp, gives the file the user's ordinary permissions
            yield out
            out.flush()
            os.fsync(out.fileno())
        _check_target(path, target, force)  # a long run may have been overtaken by another writer
        os.replace(temporary, target)
    except OSError as error:
        raise TersorError(f"cannot write {path}: {_reason(error, temporary)}") from error
    finally:
        temporary.unlink(missing_ok=True)  # already renamed away after a success


def _check_target(path: str | os.PathLike[str], target: Path, force: bool) -> None:
    if os.path.isdir(target):
        raise TersorError(f"cannot write {path}: it is a folder; give the name of a file in it")
    if os.path.exists(target) and not os.path.isfile(target):
        raise TersorError(f"cannot write {path}: it is not a regular file; give another name")
    if os.path.exists(target) and not force:
        raise TersorError(f"cannot write {path}: it exists; give another name, or --force (force=True) to replace it")
    if not os.path.isdir(target.parent):
        raise TersorError(f"cannot write {path}: the folder {target.parent} does not exist; create it first")


def _reason(error: OSError, temporary: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space or write elsewhere"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission in {temporary.parent}; write to a folder that is yours"
    reason = error.strerror or str(error)
    elsewhere = error.filename is not None and str(error.filename) != str(temporary)
    return f"{reason} ({error.filename})" if elsewhere else reason
