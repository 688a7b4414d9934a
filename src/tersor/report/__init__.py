"""A report of an archive: one self-contained HTML page that a person reads in a minute."""

from __future__ import annotations

from tersor.report.write import write

__all__ = ["write"]
