"""The shape of an additive code: how many codebooks, of how many codewords, over vectors of which length."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from tersor.errors import TersorError

_SHORTHAND = re.compile(r"(\d{1,6})x(\d{1,6})d(\d{1,6})")
_LIMITS = {"num_codebooks": (1, 16), "codebook_size": (2, 65536), "vector_dim": (1, 256)}


@dataclass(frozen=True)
class Scheme:
    """A vector of `vector_dim` weights is a sum of codewords, one of `codebook_size` from each of `num_codebooks`.

    Written `4x128d9`: 4 codebooks of 128 codewords over vectors of 9.

    Raises:
        TersorError: a number is outside its limits (1..16 codebooks, 2..65536 codewords, 1..256 dimensions).
    """

    num_codebooks: int
    codebook_size: int
    vector_dim: int

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise TersorError(f"scheme {self}: {name} is {value}; use {low} to {high}")

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """The scheme written as `4x128d9`.

        Raises:
            TersorError: `text` is not of that form, or a number is outside its limits.
        """
        match = _SHORTHAND.fullmatch(text.strip())
        if match is None:
            raise TersorError(f"scheme {text!r}: write codebooks, codewords and vector length like '4x128d9'")
        return cls(*(int(group) for group in match.groups()))

    def __str__(self) -> str:
        return f"{self.num_codebooks}x{self.codebook_size}d{self.vector_dim}"

    @property
    def bits_per_vector(self) -> float:
        """Bits of a vector's codes at a fixed rate, `M * log2(K)`: no entropy coding, no codebooks."""
        return self.num_codebooks * math.log2(self.codebook_size)

    @property
    def bits_per_weight(self) -> float:
        """`bits_per_vector` over the vector's length."""
        return self.bits_per_vector / self.vector_dim

    @property
    def codebook_entries(self) -> int:
        """Numbers in all codebooks together, `M * K * d`."""
        return self.num_codebooks * self.codebook_size * self.vector_dim
