"""The folder beside the output in which a run keeps what it has finished, so that nothing is lost when it is killed.

Files appear under their names only when they are whole, and each begins with its checksum: what a crash of the machine
left damaged is done again. A run goes on only with the same input, recipe and version.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from tersor.checkpoint.fingerprint import differences
from tersor.codec.container import checksum
from tersor.errors import TersorError
from tersor.files import disk_reason

SUFFIX = ".work"
_IDENTITY = "identity"
_PATIENCE = 30.0  # seconds in which a file that another machine wrote must have come into sight


class Work:
    """Finished pieces of a run by name."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def begin(self, identity: Mapping[str, Any], *, resume: bool, force: bool) -> bool:
        """Make the folder, or take up the one that is there; True where there is something to go on with.

        Raises:
            TersorError: what is there is of another run, or neither to go on with it nor to replace it is asked.
        """
        before = self.read(_IDENTITY)
        if before is not None:
            told = differences(msgspec.msgpack.decode(before), dict(identity))
            if resume and not told:
                for left in self.folder.glob(".*.tmp"):
                    left.unlink(missing_ok=True)
                return True
            if resume:
                raise TersorError(f"{self.folder} is of another run ({'; '.join(told)}); --force alone begins anew")
            if not force:
                raise TersorError(
                    f"{self.folder} holds an unfinished run; --resume goes on with it, --force begins anew"
                )
        elif os.path.lexists(self.folder) and not self._ours():
            raise TersorError(f"{self.folder} exists and is not of an unfinished run; remove it or give another OUT")
        self.remove()
        try:
            self.folder.mkdir()
        except OSError as error:
            raise TersorError(f"cannot write {self.folder}: {error.strerror or error}") from error
        self.write(_IDENTITY, msgspec.msgpack.encode(identity))
        return False

    def _ours(self) -> bool:
        """Whether what is there may be replaced: an empty folder, or one of a run that died while it began."""
        return self.folder.is_dir() and ((self.folder / _IDENTITY).exists() or not any(self.folder.iterdir()))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder; the system lets go of it however this process ends.

        Raises:
            TersorError: another run holds it.
        """
        try:
            import fcntl
        except ImportError:  # no such locks on this system
            yield
            return
        path = self.folder.with_name(self.folder.name + ".lock")
        try:
            lock = open(path, "wb")  # noqa: SIM115
        except OSError as error:
            raise TersorError(f"cannot write {path}: {disk_reason(error, path)}") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise TersorError(f"another run is writing {self.folder}; wait for it, or give another OUT") from error
            except OSError:  # a file system without locks
                pass
            try:
                yield
            finally:
                Path(lock.name).unlink(missing_ok=True)

    def write(self, name: str, data: bytes) -> None:
        """Keep a piece under a name; it is there whole or not at all.

        Raises:
            TersorError: the disk is full, or the folder cannot be written to.
        """
        temporary = self.folder / f".{secrets.token_hex(8)}.tmp"
        try:
            with open(temporary, "xb") as file:
                file.write(checksum(data).to_bytes(4, "little"))
                file.write(data)
            os.replace(temporary, self.folder / name)
        except OSError as error:
            reason = disk_reason(error, temporary)
            raise TersorError(f"cannot write {self.folder}: {reason}; what is finished is kept for --resume") from error
        finally:
            temporary.unlink(missing_ok=True)

    def read(self, name: str) -> bytes | None:
        """A piece, or None if there is none or it is damaged.

        Raises:
            TersorError: it is there and cannot be read.
        """
        try:
            data = (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TersorError(f"cannot read {self.folder / name}: {error.strerror or error}; try again") from error
        whole = len(data) >= 4 and int.from_bytes(data[:4], "little") == checksum(data[4:])
        return data[4:] if whole else None

    def names(self) -> set[str]:
        """Names of all pieces, damaged ones included."""
        return set(os.listdir(self.folder))

    def is_empty(self) -> bool:
        """Whether no piece is finished."""
        return self.names() <= {_IDENTITY}

    def need(self, name: str) -> bytes:
        """A piece that is known to be there; what another machine wrote may take a while to come into sight.

        Raises:
            TersorError: it is not.
        """
        until = time.monotonic() + _PATIENCE
        while (data := self.read(name)) is None:
            if time.monotonic() > until:
                where = "put OUT where all machines see it" if self.folder.exists() else "do all machines see it?"
                raise TersorError(f"{self.folder}: {name} is missing; {where}, and start again with --resume")
            time.sleep(0.1)
        return data

    def remove(self) -> None:
        """Everything away."""
        shutil.rmtree(self.folder, ignore_errors=True)
