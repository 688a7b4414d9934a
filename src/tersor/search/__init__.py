"""The smallest file that loses at most so much accuracy: `search`, with the whole curve of what was tried."""

from __future__ import annotations

import sys
from types import ModuleType

from tersor.search.bisect import search
from tersor.search.trial import SearchResult, Trial

__all__ = ["SearchResult", "Trial", "search"]


class _Room(ModuleType):
    """This room, callable: it and its function are both `tersor.search`, and which one is found depends on imports."""

    __call__ = staticmethod(search)


sys.modules[__name__].__class__ = _Room
