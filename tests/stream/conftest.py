from __future__ import annotations

from large import small_pieces

__all__ = ["small_pieces"]
