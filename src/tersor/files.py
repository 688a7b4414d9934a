"""Writing a file or a folder so that it is there whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tersor.errors import TersorError


@contextmanager
def atomic_output(
    path: str | os.PathLike[str], *, force: bool = False, within: Path | None = None
) -> Iterator[BinaryIO]:
    """Give a binary file to write; `path` takes its content only when the block ends without an error.

    The bytes go to a temporary file in the same folder, are synced to the disk and then renamed over `path`. Any
    failure, an interrupt included, removes the temporary file and leaves what was at `path` as it was. A symbolic
    link at `path` is followed. What a killed process left is removed with the folder `within`, if the temporary file is
    to lie in one (of the same file system).

    Raises:
        TersorError: `path` exists and `force` is false, is a folder or a device, its folder is missing or cannot be
            written to, or an `OSError` (a full disk, say) happened inside the block.
    """
    target = Path(os.path.realpath(path))
    _check_target(path, target, force)
    name = f".tersor-{secrets.token_hex(8)}.tmp"
    temporary = target.with_name(name) if within is None else within / name
    try:
        with open(temporary, "xb") as out:  # unlike mkstemp, gives the file the user's ordinary permissions
            yield out
            out.flush()
            os.fsync(out.fileno())
        _check_target(path, target, force)  # a long run may have been overtaken by another writer
        os.replace(temporary, target)
    except OSError as error:
        raise TersorError(f"cannot write {path}: {disk_reason(error, temporary)}") from error
    finally:
        temporary.unlink(missing_ok=True)  # already renamed away after a success


def check_output(path: str | os.PathLike[str], *, force: bool) -> None:
    """Raises TersorError where `atomic_output` would refuse the path: before the work, not after it."""
    _check_target(path, Path(os.path.realpath(path)), force)


@contextmanager
def atomic_folder(path: str | os.PathLike[str], *, force: bool, ours: Callable[[str], bool]) -> Iterator[Path]:
    """Give an empty folder to fill with files; it takes the name `path` only when the block ends without an error.

    With `force` it replaces a folder of plain files whose names are all `ours`; any other is left alone.

    Raises:
        TersorError: as `atomic_output`.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".tersor-{secrets.token_hex(8)}.tmp")
    try:
        _check_folder(path, target, force, ours)
        temporary.mkdir()
        yield temporary
        for file in temporary.iterdir():
            with open(file, "rb+") as out:
                os.fsync(out.fileno())
        _check_folder(path, target, force, ours)
        _replace_folder(temporary, target)
    except OSError as error:
        raise TersorError(f"cannot write {path}: {disk_reason(error, temporary)}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace_folder(new: Path, target: Path) -> None:
    """Give `new` the name `target`; what had it is removed, or gets it back if that fails."""
    old = target.with_name(f".tersor-{secrets.token_hex(8)}.old")
    there = os.path.lexists(target)
    try:
        if there:
            os.replace(target, old)
        os.replace(new, target)
    except BaseException:
        if old.exists() and not os.path.lexists(target):
            os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def reserve(out: BinaryIO, size: int) -> None:
    """Take the space of a file that is about to be written, so that a full disk shows before the work."""
    if hasattr(os, "posix_fallocate") and size:
        try:
            os.posix_fallocate(out.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):  # file systems that cannot
                raise


def _check_folder(path: str | os.PathLike[str], target: Path, force: bool, ours: Callable[[str], bool]) -> None:
    if not os.path.isdir(target.parent):
        raise TersorError(f"cannot write {path}: the folder {target.parent} does not exist; create it first")
    if not os.path.lexists(target):
        return
    if not os.path.isdir(target):
        raise TersorError(f"cannot write {path}: it is a file, and shards need a folder; give another name")
    with os.scandir(target) as found:
        inside = sorted((e.name, ours(e.name) and e.is_file(follow_symlinks=False)) for e in found)
    if inside and not force:
        raise TersorError(f"cannot write {path}: it exists; give another name, or --force (force=True) to replace it")
    for name, replaceable in inside:
        if not replaceable:
            raise TersorError(f"cannot write {path}: it holds {name!r}, which is not replaced; give another name")


def _check_target(path: str | os.PathLike[str], target: Path, force: bool) -> None:
    if os.path.isdir(target):
        raise TersorError(f"cannot write {path}: it is a folder; give the name of a file in it")
    if os.path.exists(target) and not os.path.isfile(target):
        raise TersorError(f"cannot write {path}: it is not a regular file; give another name")
    if os.path.exists(target) and not force:
        raise TersorError(f"cannot write {path}: it exists; give another name, or --force (force=True) to replace it")
    if not os.path.isdir(target.parent):
        raise TersorError(f"cannot write {path}: the folder {target.parent} does not exist; create it first")


def disk_reason(error: OSError, temporary: Path) -> str:
    """What went wrong while a file was written, and what to do, for a message."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space or write elsewhere"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission in {temporary.parent}; write to a folder that is yours"
    reason = error.strerror or str(error)
    elsewhere = error.filename is not None and str(error.filename) != str(temporary)
    return f"{reason} ({error.filename})" if elsewhere else reason
