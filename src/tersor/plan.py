"""The plan: what will be done to which tensor. Follows from names, shapes and the recipe; holds no tensor data."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tersor.additive.scheme import Scheme
from tersor.checkpoint import Checkpoint, Entry
from tersor.errors import TersorError
from tersor.index import CODED, MAX_CODEWORDS, MAX_ENTRIES, coverage_line
from tersor.recipe import Recipe
from tersor.representations.vectors import kernel_size

_LONG = 4096  # one-dimensional tensors from this size on are worth coding
_DEPTHWISE_FROM = 4096  # fewer depthwise weights are not worth tables of their own
_CONTAINER = 160


@dataclass(frozen=True)
class GroupPlan:
    """Tensors that share codebooks and tables: vectors of `dim`, codebooks (None: no codes), with a lattice or not."""

    tensors: tuple[int, ...]
    dim: int
    scheme: Scheme | None
    lattice: bool

    @property
    def text(self) -> str:
        """The scheme in the field's shorthand."""
        parts = [str(self.scheme)] if self.scheme else []
        return "+".join([*parts, *([f"lattice d{self.dim}"] if self.lattice else [])])


@dataclass(frozen=True)
class Plan:
    """What becomes of each tensor.

    Attributes:
        entries: the checkpoint's tensors.
        groups: of coded tensors, by position.
        kept: position and reason of each kept tensor.
        budget: bytes the file may have.
        nbytes, parameters: of the checkpoint.
    """

    source: str
    entries: tuple[Entry, ...]
    groups: tuple[GroupPlan, ...]
    kept: tuple[tuple[int, str], ...]
    budget: int
    nbytes: int
    parameters: int

    @property
    def coded_weights(self) -> int:
        """Elements of all coded tensors."""
        return sum(self.entries[i].numel for g in self.groups for i in g.tensors)

    @property
    def coded_bytes(self) -> int:
        """Bytes, as given, of all coded tensors."""
        return sum(self.entries[i].nbytes for g in self.groups for i in g.tensors)

    @property
    def predicted(self) -> int:
        """Predicted bytes of the file: the budget, or everything exact if that is less."""
        return min(self.budget, self.nbytes)

    def lines(self) -> list[str]:
        """The plan for a person: one line per group."""
        out = [f"{self.source}: {self.nbytes:,} B, {self.parameters:,} parameters; target {self.budget:,} B"]
        for g in self.groups:
            count = sum(self.entries[i].numel for i in g.tensors)
            out.append(f"  {g.text}: {len(g.tensors)} tensors, {count:,} weights")
        return out

    def coverage(self) -> str:
        """One line: how many bytes are coded, and why the others are kept."""
        kept = [(reason, self.entries[i].nbytes) for i, reason in self.kept]
        return coverage_line(self.coded_bytes, kept, sum(e.tied_to is not None for e in self.entries))

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "source": self.source,
            "bytes": self.nbytes,
            "parameters": self.parameters,
            "predicted_size": self.predicted,
            "groups": [{"scheme": g.text, "tensors": [self.entries[i].name for i in g.tensors]} for g in self.groups],
            "kept": [{"name": self.entries[i].name, "reason": reason} for i, reason in self.kept],
            "tied": {e.name: e.tied_to for e in self.entries if e.tied_to},
            "coverage": self.coverage(),
        }


def make_plan(checkpoint: Checkpoint, recipe: Recipe, stretch: float = 1.0) -> Plan:
    """Decide tensor by tensor.

    `stretch` asks the planner for codebooks that can spend this many times the bits it would expect to need.

    Raises:
        TersorError: a pattern of `exclude` that matches nothing.
    """
    entries = checkpoint.entries
    for pattern in recipe.exclude:
        if not any(fnmatch.fnmatchcase(e.name, pattern) for e in entries):
            raise TersorError(f"recipe: exclude pattern {pattern!r} matches no tensor of {checkpoint.source}")
    kept, coded = [], []
    for i, entry in enumerate(entries):
        if entry.tied_to is not None:
            continue
        reason = _reason_to_keep(entry, recipe)
        if reason is None:
            coded.append(i)
        else:
            kept.append((i, reason))
    budget = recipe.budget(checkpoint.nbytes, checkpoint.parameters)
    rest = budget - _CONTAINER - sum(entries[i].nbytes for i, _ in kept)
    groups = _groups(entries, coded, recipe, stretch * rest)
    return Plan(
        checkpoint.source, entries, tuple(groups), tuple(kept), budget, checkpoint.nbytes, checkpoint.parameters
    )


def _reason_to_keep(entry: Entry, recipe: Recipe) -> str | None:
    dtype = entry.dtype
    if dtype == "bool":
        return "booleans"
    if dtype.startswith("complex"):
        return "complex"
    if dtype.startswith(("float8", "float4")):
        return "8-bit floats"
    if dtype not in CODED:
        return "integers"
    if any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in recipe.exclude):
        return "excluded"
    if entry.numel == 0:
        return "empty"
    if len(entry.shape) < 2 and entry.numel < _LONG:
        return "one-dimensional"
    if entry.numel < recipe.min_size:
        return "small"
    return None


def _groups(entries: Sequence[Entry], coded: list[int], recipe: Recipe, budget: float) -> list[GroupPlan]:
    """Group coded tensors and give each group its scheme."""
    name, _, suffix = recipe.scheme.partition("+")
    if not coded:
        return []
    if name not in ("auto", "lattice", "additive"):
        scheme = Scheme.parse(name)
        if scheme.num_codebooks * scheme.codebook_size > MAX_CODEWORDS or scheme.codebook_entries > MAX_ENTRIES:
            raise TersorError(
                f"recipe: the codebooks of {scheme} are too large; "
                f"use at most {MAX_CODEWORDS:,} codewords with {MAX_ENTRIES:,} entries in all"
            )
        return [GroupPlan(tuple(coded), scheme.vector_dim, scheme, bool(suffix))]
    by_kind: dict[tuple[int, bool], list[int]] = {}
    for i in coded:
        shape = entries[i].shape
        size = kernel_size(shape) if recipe.groups == "kernel" else 1
        by_kind.setdefault((size, size > 1 and shape[1] == 1), []).append(i)
    for size, depthwise in list(by_kind):
        if depthwise and sum(entries[i].numel for i in by_kind[size, True]) < _DEPTHWISE_FROM:
            by_kind[size, False] = sorted(by_kind.get((size, False), []) + by_kind.pop((size, True)))
    weights = sum(entries[i].numel for i in coded)
    bits = 8 * max(budget, 1) / weights
    groups = []
    for (size, _), members in by_kind.items():
        if name == "additive":
            numel = sum(entries[i].numel for i in members)
            scheme = choose_scheme(size, numel, bits)
            groups.append(GroupPlan(tuple(members), scheme.vector_dim, scheme, False))
        else:
            groups.append(GroupPlan(tuple(members), size, None, True))
    return groups


def choose_scheme(kernel: int, weights: int, bits: float) -> Scheme:
    """M, K and d for `weights` weights at about `bits` each, codebooks at 8 bits an entry included.

    Vectors are whole kernels where those are short, else 8 weights (4 above 2.5 bits, where 8 run out of codewords).
    Codewords: as many as cost at most a tenth of the budget. Codebooks: enough that the codes, a quarter shorter after
    entropy coding, can spend it.
    """
    dim = kernel if 2 < kernel <= 16 else (8 if bits <= 2.5 else 4)
    size = 256
    while size > 8:
        count = max(1, math.ceil(1.25 * bits * dim / math.log2(size)))
        if count <= 16 and 8 * count * size * dim <= 0.1 * bits * weights:
            break
        size //= 2
    return Scheme(min(16, max(1, math.ceil(1.25 * bits * dim / math.log2(size)))), size, dim)
