"""Processes that work together, started by torchrun: who they are, what they tell each other, whether all still live.

What coding needs to tell is little: who takes which piece of work, and a few numbers. It goes through the store of
torch.distributed, which torchrun sets up, and is waited for by asking again and again, so that a peer's end is noticed
at any moment; collectives of gloo would hang until their time is over. Results are files in a folder that all see.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec

from tersor.errors import TersorError

LOST = 20.0
"""Seconds of silence after which a process counts as lost."""

_BEAT, _POLL = 2.0, 0.02
_START = 300.0  # seconds to wait for all processes to arrive

T = TypeVar("T")
_calls = itertools.count()  # torchrun's store outlives a call: each has keys of its own


class Team:
    """One process alone; `of_environment` gives the one with others."""

    rank, size = 0, 1

    def __init__(self) -> None:
        self._lock, self._counters = threading.Lock(), dict[str, "itertools.count[int]"]()

    def gather(self, key: str, value: Any) -> list[Any]:
        """What every process gave under this key (plain data), in the order of their ranks; waits for all."""
        return [value]

    def share(self, key: str, make: Callable[[], T]) -> T:
        """What the first process makes, given to all."""
        made = make() if self.rank == 0 else None
        return self.gather(key, made)[0]

    def claim(self, key: str) -> int:
        """The next number of a common count, from 0: no two calls anywhere get the same."""
        with self._lock:
            return next(self._counters.setdefault(key, itertools.count()))

    def claims(self, key: str, count: int) -> Iterator[int]:
        """Numbers below `count` that nobody else has taken, one after the other."""
        while (i := self.claim(key)) < count:
            yield i

    def beside_first(self) -> tuple[int, int] | None:
        """Which one this is of the processes on the first one's machine, and how many; None on another machine."""
        return 0, 1

    def check(self) -> None:
        """Raises TersorError where another process has ended."""

    def close(self, failure: str = "") -> None:
        """Say goodbye; with a failure, the others stop."""


class Processes(Team):
    """One of several processes.

    Args:
        store: of torch.distributed, the same for all.
        rank, size: which one this is, of how many.
    """

    def __init__(self, store: Any, rank: int, size: int) -> None:
        super().__init__()
        self.rank, self.size, self._store = rank, size, store
        self._lost, self._closed = "", threading.Event()
        self._seen: dict[int, tuple[bytes, float]] = {}
        self._names: dict[int, str] = {}
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._set(f"beat/{rank}", b"0")
        self._names = dict(enumerate(self.gather("hosts", socket.gethostname(), _START)))
        self._watcher.start()

    def gather(self, key: str, value: Any, patience: float = float("inf")) -> list[Any]:
        """As `Team.gather`; waits so many seconds at most."""
        self._set(f"{key}/{self.rank}", msgspec.msgpack.encode(value))
        found, until = [], time.monotonic() + patience
        for rank in range(self.size):
            while (data := self._get(f"{key}/{rank}")) is None:
                self.check()
                if time.monotonic() > until:
                    raise TersorError(f"process {rank} of {self.size} has not come within {patience:.0f} s; start all")
                time.sleep(_POLL)
            found.append(msgspec.msgpack.decode(data))
        return found

    def claim(self, key: str) -> int:
        """As `Team.claim`; the count is in the store."""
        try:
            return int(self._store.add(key, 1)) - 1
        except Exception as error:
            raise self._gone() from error

    def beside_first(self) -> tuple[int, int] | None:
        """As `Team.beside_first`; machines are told apart by their names."""
        here = [rank for rank, host in self._names.items() if host == self._names[0]]
        return (here.index(self.rank), len(here)) if self.rank in here else None

    def check(self) -> None:
        """As `Team.check`; what has happened to the others is found out beside the work."""
        if self._lost:
            raise TersorError(self._lost)

    def close(self, failure: str = "") -> None:
        """As `Team.close`."""
        self._closed.set()
        if failure and not self._lost:
            self._set(f"failed/{self.rank}", failure.encode())
        elif not failure:
            self._set(f"beat/{self.rank}", b"done")
            if self.rank == 0:  # who may keep the store: leave last
                self._wait_for_others()

    def _wait_for_others(self) -> None:
        until = time.monotonic() + LOST
        while time.monotonic() < until and not self._lost:
            if all(self._get(f"beat/{rank}") == b"done" for rank in range(self.size)):
                return
            time.sleep(_POLL)

    def _watch(self) -> None:
        for beat in itertools.count(1):
            if self._closed.wait(_BEAT) or self._lost:
                return
            try:
                self._set(f"beat/{self.rank}", str(beat).encode())
                self._lost = self._missing()
            except TersorError as error:
                self._lost = str(error)

    def _missing(self) -> str:
        """What has happened to another process, if anything."""
        now = time.monotonic()
        for rank in range(self.size):
            if rank == self.rank:
                continue
            if (failure := self._get(f"failed/{rank}")) is not None:
                return f"{self._name(rank)} stopped: {failure.decode()}"
            beat = self._get(f"beat/{rank}") or b""
            before, since = self._seen.get(rank, (None, now))
            self._seen[rank] = (beat, now if beat != before else since)
            if beat != b"done" and now - self._seen[rank][1] > LOST:
                return f"{self._name(rank)} has not been heard of for {LOST:.0f} s; {GO_ON}"
        return ""

    def _name(self, rank: int) -> str:
        host = self._names.get(rank)
        return f"process {rank} of {self.size}" + (f" ({host})" if host else "")

    def _set(self, key: str, value: bytes) -> None:
        try:
            self._store.set(key, value)
        except Exception as error:
            raise self._gone() from error

    def _get(self, key: str) -> bytes | None:
        try:
            return bytes(self._store.get(key)) if self._store.check([key]) else None
        except Exception as error:
            raise self._gone() from error

    def _gone(self) -> TersorError:
        return TersorError(self._lost or f"the connection to the other processes is lost; {GO_ON}")


GO_ON = "what is finished is kept: start all again with --resume"


def of_environment() -> Team:
    """The processes that torchrun started; this one alone where it did not.

    Raises:
        TersorError: not all of them arrive.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
        return Team()
    from datetime import timedelta

    from torch.distributed import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    try:
        store, rank, size = next(iter(rendezvous("env://", timeout=timedelta(seconds=_START))))
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise TersorError(f"the processes do not find each other ({reason}); start them with torchrun") from error
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return Processes(PrefixStore(f"tersor/{attempt}/{next(_calls)}", store), rank, size)
