"""Inference from codes: a network whose weights are decoded when a layer uses them, and dropped after."""

from __future__ import annotations

import sys
from types import ModuleType

from tersor.lazy.network import lazy

__all__ = ["lazy"]


class _Room(ModuleType):
    """This room, callable: it and its function are both `tersor.lazy`, and which one is found depends on imports."""

    __call__ = staticmethod(lazy)


sys.modules[__name__].__class__ = _Room
