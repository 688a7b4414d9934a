"""Threads of this process, and the other processes, at one list of work."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from tersor.kernels.threads import limited, thread_count
from tersor.representations.control import Progress
from tersor.stream.team import Team

T = TypeVar("T")


class Crew:
    """Spreads work.

    Args:
        team: the processes.
        progress: called with a stage, steps done and steps expected.
        threads: of this process; all that the settings give, by default.
    """

    def __init__(self, team: Team, progress: Progress | None = None, threads: int | None = None) -> None:
        self.team, self.threads = team, threads or thread_count()
        self.progress: Progress = progress if progress is not None else lambda stage, done, total: None

    def each(self, stage: str, items: Sequence[T], work: Callable[[T], Any]) -> list[Any]:
        """Results (plain data) for all items, in order, on every process; each process does its share."""
        mine = items[self.team.rank :: self.team.size]
        out: list[Any] = [None] * len(mine)
        done = itertools.count(1)

        def do(i: int) -> None:
            self.team.check()
            out[i] = work(mine[i])
            self.progress(stage, next(done), len(mine))

        self.run(do, iter(range(len(mine))))
        shares = self.team.gather(stage, out)
        return [shares[i % self.team.size][i // self.team.size] for i in range(len(items))]

    def run(self, work: Callable[[int], None], numbers: Iterable[int]) -> None:
        """Call `work` with every number, on all threads, until the numbers end or a call fails; raises what it did."""
        coming: Iterator[int] = iter(numbers)
        lock, stop = threading.Lock(), threading.Event()

        def take() -> int | None:
            with lock:
                return None if stop.is_set() else next(coming, None)

        def loop() -> None:
            with limited(1):
                try:
                    while (i := take()) is not None:
                        work(i)
                except BaseException:
                    stop.set()
                    raise

        with ThreadPoolExecutor(self.threads) as pool:
            futures = [pool.submit(loop) for _ in range(self.threads)]
            try:
                for future in futures:
                    future.result()
            finally:
                stop.set()
