"""The inner loops: native C++ on the CPU, plain torch (`twins`) on every other device and where nothing is compiled.

Importing this package does not import torch; calling a kernel that takes tensors does.
"""

from tersor.kernels.gather import decode
from tersor.kernels.native import extension, instruction_set, instruction_sets, using_instruction_set
from tersor.kernels.nearest import beam_search, local_search, nearest
from tersor.kernels.statistics import accumulate, conjugate_refit, cooccurrence, count_codes, solve_spd
from tersor.kernels.threads import thread_count

__all__ = [
    "accumulate",
    "beam_search",
    "conjugate_refit",
    "cooccurrence",
    "count_codes",
    "decode",
    "extension",
    "instruction_set",
    "instruction_sets",
    "local_search",
    "nearest",
    "solve_spd",
    "thread_count",
    "using_instruction_set",
]
