"""Versions and machine, written beside every measurement."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

PACKAGES = ("tersor", "torch", "numpy", "faiss-cpu", "constriction", "zstandard")


def environment() -> dict[str, str | int]:
    """Python, package versions, processor model and the number of cores this process may use."""
    found: dict[str, str | int] = {"python": platform.python_version(), "cpu": cpu_model(), "cores": cores()}
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}


def cores() -> int:
    """Cores this process may use, which in a container is fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    """The processor's name as Linux gives it, else as Python does."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
