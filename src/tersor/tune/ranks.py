"""Processes that tune or measure together: each sees its share of the batches, and all end with the same numbers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from tersor.errors import TersorError

T = TypeVar("T")


class Ranks:
    """The process group there is, or this process alone.

    Args:
        distributed: whether to work with the others of torch.distributed's default group.

    Raises:
        TersorError: there is no such group.
    """

    def __init__(self, distributed: bool = False) -> None:
        if distributed and not (dist.is_available() and dist.is_initialized()):
            raise TersorError("distributed needs a process group: start with torchrun, call init_process_group first")
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)

    def share(self, batches: Iterable[T], start: int = 0) -> Iterator[T]:
        """Every batch of this process's, of those from the `start`-th round on."""
        return islice(batches, start * self.size + self.rank, None, self.size)

    def add_(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace tensors by their sums over all processes; all get the same bits."""
        if self.size > 1:
            with _peers():
                for tensor in tensors:
                    dist.all_reduce(tensor)

    def average_(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their means; where one process has none, it counts as zero."""
        if self.size == 1:
            return
        for p in parameters:
            if p.requires_grad:
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
                self.add_([p.grad])
                p.grad /= self.size

    def mean(self, value: float) -> float:
        """The mean of a number."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        self.add_([total])
        return float(total) / self.size

    def gather(self, value: Any) -> list[Any]:
        """What each process gave, in the order of their ranks."""
        if self.size == 1:
            return [value]
        out: list[Any] = [None] * self.size
        with _peers():
            dist.all_gather_object(out, value)
        return out

    def same_(self, net: nn.Module) -> None:
        """Give all processes the first one's running statistics: each saw other batches."""
        if self.size > 1:
            with _peers():
                for buffer in net.buffers():
                    if buffer.is_floating_point():
                        dist.broadcast(buffer, 0)


@contextmanager
def _peers() -> Iterator[None]:
    """A lost process as one clear line."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise TersorError(
            f"the connection to the other processes is lost ({reason}); start all again, with --resume"
        ) from error


@contextmanager
def started() -> Iterator[Ranks]:
    """The processes that torchrun started, if it did: gloo on CPUs, nccl where there is a GPU for each."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size < 2 or "RANK" not in os.environ:
        yield Ranks()
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    with _peers():
        if torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", size)):
            torch.cuda.set_device(local)
            dist.init_process_group("cpu:gloo,cuda:nccl")  # by where the user's network is
        else:
            dist.init_process_group("gloo")
    try:
        yield Ranks(True)
    finally:
        dist.destroy_process_group()
