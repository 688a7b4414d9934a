"""How many threads the native kernels use. Their results never depend on it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_here = threading.local()


def thread_count() -> int:
    """Torch's setting if torch is loaded (`torch.set_num_threads`), else `OMP_NUM_THREADS`, else every core."""
    limit = getattr(_here, "limit", None)
    if limit is not None:
        return int(limit)
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    setting = os.environ.get("OMP_NUM_THREADS", "")
    return int(setting) if setting.isdecimal() and int(setting) > 0 else os.cpu_count() or 1


@contextmanager
def limited(count: int) -> Iterator[None]:
    """Let kernels that this thread calls use so many threads: one, where many threads work side by side."""
    before = getattr(_here, "limit", None)
    _here.limit = count
    try:
        yield
    finally:
        _here.limit = before
