"""What differs between two files of one network: tensor by tensor, and in what the network answers.

`compare` gives plain data, `told.lines` its text; the command line shows either.
"""

from __future__ import annotations

from tersor.diff.tensors import compare

__all__ = ["compare"]
