"""A group of coded tensors: vectors cut, scaled, and stored as a sum of codewords, a lattice point, or both.

`x = scale * (C_1[i_1] + ... + C_M[i_M] + basis @ (step * z))`, added in this order in float32.
Sections of a group, in order: scales, codebooks, code tables, basis, energies, lattice tables (each only if there),
then for every chunk its codes, its lattice symbols, and (in a sparse group) the masks of the tensors that end in it.
"""

from tersor.representations.group_coder import GroupCoder
from tersor.representations.group_reader import GroupReader
from tersor.representations.group_spec import (
    MEMORY,
    SCALES,
    GroupSpec,
    chunk_sections,
    head_count,
    head_names,
    section_count,
)

__all__ = [
    "MEMORY", "SCALES", "GroupCoder", "GroupReader", "GroupSpec", "chunk_sections", "head_count", "head_names",
    "section_count",
]  # fmt: skip
