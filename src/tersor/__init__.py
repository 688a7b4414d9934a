"""tersor: any trained neural network as one compact file, and back.

archive = tersor.compress(model, tersor.Recipe(ratio=16))
archive.save("model.tersor")
tersor.open("model.tersor").apply_(model)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "Archive", "ArchiveError", "Recipe", "TersorError", "compress", "distill", "dry_run", "importance", "lazy",
    "open", "search", "tunable",
]  # fmt: skip

if TYPE_CHECKING:
    from tersor.api import compress, dry_run, open
    from tersor.archive import Archive
    from tersor.errors import ArchiveError, TersorError
    from tersor.lazy.network import lazy
    from tersor.recipe import Recipe
    from tersor.search.bisect import search
    from tersor.tune.distill import distill
    from tersor.tune.importance import importance
    from tersor.tune.tunable import tunable

_HOME = {
    "Archive": "archive", "ArchiveError": "errors", "Recipe": "recipe", "TersorError": "errors",
    "compress": "api", "distill": "tune.distill", "dry_run": "api", "importance": "tune.importance",
    "lazy": "lazy.network", "open": "api", "search": "search.bisect", "tunable": "tune.tunable",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load the public names when first used: `import tersor` itself imports nothing heavy."""
    if name not in _HOME:
        raise AttributeError(f"module 'tersor' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"tersor.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
