"""The one error type users see: what is wrong, where, and what to do, in one line."""

from __future__ import annotations


class TersorError(Exception):
    """Bad input or an impossible request; the message is one line and says what, where and what to do.

    Everything that is the caller's to fix is raised as this type; the command line prints it and exits with 1.
    """

    def __str__(self) -> str:
        """The message on one line, whatever names and paths it quotes."""
        return " ".join(super().__str__().split("\n"))


class TargetError(TersorError):
    """The target cannot be met; the message says what the smallest possible file is."""


class ArchiveError(TersorError):
    """A file that is not a valid archive: damaged, truncated, hostile, or written by a newer version."""
