"""Access to the compiled kernels: present or not, which instruction set, and tensors as arrays without copies."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch


@functools.cache
def extension() -> ModuleType | None:
    """The compiled module, or None (with one warning per process) when this installation lacks it."""
    try:
        return importlib.import_module("tersor.kernels._native")
    except ImportError as error:
        warnings.warn(
            f"tersor's native kernels cannot be loaded ({error}); the torch versions are used, which are slower",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


def extension_for(tensor: torch.Tensor) -> Any | None:
    """The compiled module if it serves this tensor: the tensor lies on the CPU and the module can be loaded."""
    return extension() if tensor.device.type == "cpu" else None


def instruction_set() -> str:
    """What the native kernels run on: "avx512", "avx2", "portable", or "torch" when they are missing."""
    module = extension()
    return "torch" if module is None else str(module.instruction_set())


def instruction_sets() -> list[str]:
    """The instruction sets this machine can run, slowest first; all give the same bits."""
    module = extension()
    return [] if module is None else list(module.instruction_sets())


@contextmanager
def using_instruction_set(name: str) -> Iterator[None]:
    """Runs the body on another instruction set of `instruction_sets()`, for tests and measurements.

    The environment variable TERSOR_INSTRUCTION_SET does the same for a whole process.

    Raises:
        ValueError: `name` is not available on this machine.
    """
    module = extension()
    if module is None:
        raise ValueError(f"instruction set {name!r} needs the native kernels, which are missing")
    before = module.instruction_set()
    module.set_instruction_set(name)
    try:
        yield
    finally:
        module.set_instruction_set(before)


def array(tensor: torch.Tensor | None, dtype: torch.dtype) -> np.ndarray[Any, Any] | None:
    """A CPU tensor as a C-contiguous array of `dtype`: a view where it is that already."""
    return None if tensor is None else tensor.detach().to(dtype).contiguous().numpy()
