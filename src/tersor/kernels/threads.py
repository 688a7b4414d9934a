"""How many threads the native kernels use. Their results never depend on it."""

from __future__ import annotations

import os
import sys


def thread_count() -> int:
    """Torch's setting if torch is loaded (`torch.set_num_threads`), else `OMP_NUM_THREADS`, else every core."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    setting = os.environ.get("OMP_NUM_THREADS", "")
    return int(setting) if setting.isdecimal() and int(setting) > 0 else os.cpu_count() or 1
