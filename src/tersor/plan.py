"""The plan: what will be done to which tensor. Follows from names, shapes, the recipe and numbers of zeros."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tersor.additive.scheme import Scheme
from tersor.checkpoint import Checkpoint, Entry
from tersor.errors import TersorError
from tersor.index import CODED, MAX_CODEWORDS, MAX_ENTRIES, coverage_line
from tersor.recipe import SCALARS, Recipe
from tersor.representations import affine
from tersor.representations.made import Made
from tersor.representations.vectors import kernel_size

_LONG = 4096  # one-dimensional tensors from this size on are worth coding
_DEPTHWISE_FROM = 4096  # fewer depthwise weights are not worth tables of their own
_CONTAINER = 160
SPARSE = 0.5
"""The share of zeros from which on "auto" keeps them, of a tensor or of a whole network. Below, kernels lose more by
doing without a basis than they gain, unless at high rates: `docs/architecture.md`, "Zeros are kept"."""


@dataclass(frozen=True)
class GroupPlan:
    """Tensors that share codebooks and tables: vectors of `dim`, codebooks (None: no codes), with a lattice or not.

    `survivors` is None, or how many elements of each tensor are not zero where zeros are to be kept.
    """

    tensors: tuple[int, ...]
    dim: int
    scheme: Scheme | None
    lattice: bool
    survivors: tuple[int, ...] | None = None

    @property
    def text(self) -> str:
        """The scheme in the field's shorthand."""
        parts = [str(self.scheme)] if self.scheme else []
        lattice = "lattice" if self.survivors is not None else f"lattice d{self.dim}"
        return "sparse " * (self.survivors is not None) + "+".join([*parts, *([lattice] if self.lattice else [])])


@dataclass(frozen=True)
class ScalarPlan:
    """Tensors of integers of `bits` (0: of `size` shared values, found by `quantizer`), with a scale per `block`."""

    tensors: tuple[int, ...]
    bits: int
    block: int = affine.PER_ROW
    zero: bool = False
    size: int = 0
    quantizer: str = "kmeans"

    @property
    def text(self) -> str:
        """The scheme in the recipe's words."""
        if not self.bits:
            return f"shared{self.size}/{self.quantizer}"
        return affine.scheme(self.bits, self.block, self.zero)


@dataclass(frozen=True)
class Plan:
    """What becomes of each tensor.

    Attributes:
        entries: the checkpoint's tensors.
        groups: of coded tensors, by position.
        scalars: of tensors whose weights are each one of few values.
        made: tensors that follow from a rule.
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
    scalars: tuple[ScalarPlan, ...] = ()
    made: tuple[tuple[int, Made], ...] = ()

    @property
    def coded_weights(self) -> int:
        """Elements of all tensors in groups."""
        return sum(self.entries[i].numel for g in self.groups for i in g.tensors)

    @property
    def coded_bytes(self) -> int:
        """Bytes, as given, of all tensors that are not kept."""
        coded = [i for members, _ in self.coded for i in members] + [i for i, _ in self.made]
        return sum(self.entries[i].nbytes for i in coded)

    @property
    def coded(self) -> list[tuple[tuple[int, ...], str]]:
        """Tensors and scheme of each group, then of each scalar group."""
        return [(g.tensors, g.text) for g in self.groups] + [(g.tensors, g.text) for g in self.scalars]

    @property
    def predicted(self) -> int:
        """Predicted bytes of the file: the budget, or everything exact if that is less."""
        half = sum(self.entries[i].numel * 2 for i, reason in self.kept if reason == "precision")
        if half:
            return half + sum(self.entries[i].nbytes for i, reason in self.kept if reason != "precision")
        if not self.scalars:
            return min(self.budget, self.nbytes)
        bits = [(g, g.bits or math.log2(max(g.size, 2))) for g in self.scalars]
        coded = sum(self.entries[i].numel * b / 8 for g, b in bits for i in g.tensors)
        return int(coded) + sum(self.entries[i].nbytes for i, _ in self.kept)

    def lines(self) -> list[str]:
        """The plan for a person: one line per group."""
        target = f"target {self.budget:,} B" if self.budget < 1 << 61 else "no target"
        out = [f"{self.source}: {self.nbytes:,} B, {self.parameters:,} parameters; {target}"]
        for g in self.groups:
            count = sum(self.entries[i].numel for i in g.tensors)
            zeros = "" if g.survivors is None else f", {1 - sum(g.survivors) / count:.1%} zeros kept"
            out.append(f"  {g.text}: {len(g.tensors)} tensors, {count:,} weights{zeros}")
        for scalar in self.scalars:
            count = sum(self.entries[i].numel for i in scalar.tensors)
            out.append(f"  {scalar.text}: {len(scalar.tensors)} tensors, {count:,} weights")
        if self.made:
            out.append(f"  from rules: {len(self.made)} tensors")
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
            "groups": [
                {"scheme": text, "tensors": [self.entries[i].name for i in members]} for members, text in self.coded
            ],
            "made": [self.entries[i].name for i, _ in self.made],
            "kept": [{"name": self.entries[i].name, "reason": reason} for i, reason in self.kept],
            "tied": {e.name: e.tied_to for e in self.entries if e.tied_to},
            "coverage": self.coverage(),
        }


def make_plan(
    checkpoint: Checkpoint,
    recipe: Recipe,
    stretch: float = 1.0,
    zeros: Mapping[str, int] | None = None,
    made: Mapping[str, Made] | None = None,
) -> Plan:
    """Decide tensor by tensor.

    Args:
        checkpoint: the tensors.
        recipe: what is wanted.
        stretch: asks for codebooks that can spend this many times the bits one would expect to need.
        zeros: how many elements of a tensor are zero, for those of `countable` tensors that have any.
        made: rules of tensors that follow from one.

    Raises:
        TersorError: a pattern of `exclude` that matches nothing.
    """
    entries = checkpoint.entries
    for pattern in recipe.exclude:
        if not any(fnmatch.fnmatchcase(e.name, pattern) for e in entries):
            raise TersorError(f"recipe: exclude pattern {pattern!r} matches no tensor of {checkpoint.source}")
    kept, coded, rules = [], [], []
    for i, entry in enumerate(entries):
        if entry.tied_to is not None:
            continue
        if made and entry.name in made:
            rules.append((i, made[entry.name]))
            continue
        reason = _reason_to_keep(entry, recipe)
        if reason is None and recipe.scheme in ("fp16", "bf16"):
            reason = "precision"
        if reason is None:
            coded.append(i)
        else:
            kept.append((i, reason))
    budget = recipe.budget(checkpoint.nbytes, checkpoint.parameters)
    if recipe.sized:
        return Plan(
            checkpoint.source, entries, (), tuple(kept), budget, checkpoint.nbytes, checkpoint.parameters,
            _scalars(entries, coded, recipe), tuple(rules),
        )  # fmt: skip
    rest = budget - _CONTAINER - sum(entries[i].nbytes for i, _ in kept)
    sparse = _sparse(entries, coded, recipe, zeros or {})
    groups = _groups(entries, [i for i in coded if i not in sparse], sparse, recipe, stretch * rest)
    return Plan(
        checkpoint.source, entries, tuple(groups), tuple(kept), budget, checkpoint.nbytes, checkpoint.parameters,
        (), tuple(rules),
    )  # fmt: skip


def _scalars(entries: Sequence[Entry], coded: list[int], recipe: Recipe) -> tuple[ScalarPlan, ...]:
    """Integers, per row where rows have no runs of the length asked for; or shared values, by kind of kernel."""
    found = re.fullmatch(SCALARS, recipe.scheme)
    if found is None or not coded:
        return ()
    bits, per, zero, size, quantizer = found.groups()
    if bits is not None:
        named = {None: affine.PER_ROW, "/tensor": affine.PER_TENSOR}
        block = named[per] if per in named else int(per[1:])
        if per not in named and not 1 <= block < 1 << 16:
            raise TersorError(f"recipe: scheme {recipe.scheme!r} has runs of {block}; use 1 to 65535")
        fits = [i for i in coded if affine.fits(entries[i].shape, block)]
        others = [i for i in coded if i not in fits]
        plans = [(fits, block), (others, affine.PER_ROW)]
        return tuple(ScalarPlan(tuple(t), int(bits), b, zero is not None, 1 << int(bits)) for t, b in plans if t)
    if not 1 <= int(size) < 1 << 16:
        raise TersorError(f"recipe: scheme {recipe.scheme!r} has {size} values; use 1 to 65535")
    kinds: dict[int, list[int]] = {}
    for i in coded:
        key = {"kernel": kernel_size(entries[i].shape), "one": 0, "tensor": i}[recipe.groups]
        kinds.setdefault(key, []).append(i)
    name = (quantizer or "/kmeans")[1:]
    return tuple(ScalarPlan(tuple(t), 0, size=int(size), quantizer=name) for t in kinds.values())


def countable(checkpoint: Checkpoint, recipe: Recipe) -> list[str]:
    """Names of the tensors whose zeros matter to the plan."""
    return [] if recipe.sparsity == "ignore" else coded_names(checkpoint, recipe)


def coded_names(checkpoint: Checkpoint, recipe: Recipe) -> list[str]:
    """Names of the tensors that are coded, from names and shapes alone."""
    return [e.name for e in checkpoint.entries if e.tied_to is None and _reason_to_keep(e, recipe) is None]


def _sparse(entries: Sequence[Entry], coded: list[int], recipe: Recipe, zeros: Mapping[str, int]) -> dict[int, int]:
    """Tensors that keep their zeros, and how many elements survive in each; none if nothing at all survives."""
    if recipe.sparsity == "ignore":
        return {}
    counts = {i: zeros.get(entries[i].name, 0) for i in coded}
    pruned = recipe.sparsity == "keep" or sum(counts.values()) >= SPARSE * sum(entries[i].numel for i in coded)
    found = {i: entries[i].numel - n for i, n in counts.items() if n and (pruned or n >= SPARSE * entries[i].numel)}
    return found if any(found.values()) else {}


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


def _groups(
    entries: Sequence[Entry], dense: list[int], sparse: dict[int, int], recipe: Recipe, budget: float
) -> list[GroupPlan]:
    """Group coded tensors and give each group its scheme; what survives in sparse ones is all of a kind."""
    name, _, suffix = recipe.scheme.partition("+")
    survivors = tuple(sparse.values())
    if not dense and not sparse:
        return []
    if name not in ("auto", "lattice", "additive"):
        scheme = Scheme.parse(name)
        if scheme.num_codebooks * scheme.codebook_size > MAX_CODEWORDS or scheme.codebook_entries > MAX_ENTRIES:
            raise TersorError(
                f"recipe: the codebooks of {scheme} are too large; "
                f"use at most {MAX_CODEWORDS:,} codewords with {MAX_ENTRIES:,} entries in all"
            )
        kinds = [(tuple(dense), None), (tuple(sparse), survivors)]
        return [GroupPlan(t, scheme.vector_dim, scheme, bool(suffix), s) for t, s in kinds if t]
    by_kind: dict[tuple[int, bool], list[int]] = {}
    for i in dense:
        shape = entries[i].shape
        size = kernel_size(shape) if recipe.groups == "kernel" else 1
        by_kind.setdefault((size, size > 1 and shape[1] == 1), []).append(i)
    for size, depthwise in list(by_kind):
        if depthwise and sum(entries[i].numel for i in by_kind[size, True]) < _DEPTHWISE_FROM:
            by_kind[size, False] = sorted(by_kind.get((size, False), []) + by_kind.pop((size, True)))
    weights = sum(entries[i].numel for i in dense) + sum(survivors)
    masks = sum(_mask_bits(entries[i].numel, n) for i, n in sparse.items())
    bits = max(8 * budget - masks, 8) / max(weights, 1)
    groups = []
    for (size, _), members in by_kind.items():
        if name == "additive":
            numel = sum(entries[i].numel for i in members)
            scheme = choose_scheme(size, numel, bits)
            groups.append(GroupPlan(tuple(members), scheme.vector_dim, scheme, False))
        else:
            groups.append(GroupPlan(tuple(members), size, None, True))
    if sparse and name == "additive":
        scheme = choose_scheme(1, sum(survivors), bits)
        groups.append(GroupPlan(tuple(sparse), scheme.vector_dim, scheme, False, survivors))
    elif sparse:
        groups.append(GroupPlan(tuple(sparse), 1, None, True, survivors))
    return groups


def _mask_bits(count: int, ones: int) -> float:
    """Entropy of a mask that has no structure."""
    share = ones / count
    return 0.0 if ones in (0, count) else -count * (share * math.log2(share) + (1 - share) * math.log2(1 - share))


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
