from __future__ import annotations
from dataclasses import dataclass
@dataclass(frozen=True)
class Scheme:
    num_codebooks: int
    codebook_size: int
    vector_dim: int
    @classmethod
    def parse(cls, t): 
        import re
        return cls(*map(int, re.fullmatch(r"(\d+)x(\d+)d(\d+)", t).groups()))
    def __str__(self): return f"{self.num_codebooks}x{self.codebook_size}d{self.vector_dim}"
