"""Two sources of tensors compared by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tersor.diff.gap import decibels, measured, same_bits
from tersor.diff.sources import Source, as_checkpoint, open_source

if TYPE_CHECKING:
    import torch
    from torch import nn

    from tersor.checkpoint import Entry
    from tersor.diff.sources import Comparable
    from tersor.tune.batches import Data

    Pair = tuple[str, str]

_UNLIKE, _BROKEN, _FAR, _VALUES, _BITS = range(5)  # ways to differ, the worst first


def compare(
    a: Comparable,
    b: Comparable,
    *,
    model: nn.Module | None = None,
    data: Data | None = None,
    labelled: bool = False,
    batches: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """What differs between A and B, as plain data. Few tensors are in memory at once, unless `model` is given.

    Args:
        a, b: archives (`.tersor` files or open ones) and whatever `compress` takes: a path, a module, a state dict.
        model: of the original class; a copy is loaded with A, another with B, and their outputs are compared too.
        data: batches for the model; with it only.
        labelled: the last item of a batch is its labels, which are left out.
        batches: of the data, at most; all by default.
        progress: called with a stage's name, steps done and steps expected.

    Returns:
        `a`, `b`: source, `size` (bytes of its files, None in memory), tensors, bytes, parameters.
        `only_a`, `only_b`: name, shape and dtype of what the other lacks.
        `tensors`: of each common name, the worst first: `shape_a`, `dtype_a`, `shape_b`, `dtype_b`; `equal` (bit for
        bit); `error_db`, the difference's energy over A's (None without a difference in value, infinite where A is all
        zeros); `max_difference` (None where shapes differ); `nonfinite`, elements that are NaN or infinite in one and
        not the same in the other (they are in no other number); `tied_to`, the name whose values these are, in both.
        `equal`, `equal_values`, `unlike_shapes`: how many of them are equal bit for bit, equal in value only, not
        comparable. `error_db`: over all elements that are floats in both, tied ones once; `max_difference` and
        `max_in`: the largest difference among those, and its tensor.
        `outputs`: None without `model`, else see `outputs.compare_outputs`.

    Raises:
        TersorError: a source cannot be read; `model` and `data` do not go together, or with A or B.
    """
    from tersor.errors import TersorError

    if (model is None) != (data is None):
        raise TersorError("outputs need both a model and data; give both or neither")
    first, second = open_source(a), open_source(b)
    found = _tensors(first, second, progress)
    outputs = None
    if model is not None and data is not None:
        from tersor.diff.outputs import compare_outputs

        outputs = compare_outputs(first, second, model, data, labelled=labelled, batches=batches, progress=progress)
    return {"a": first.about(), "b": second.about(), **found, "outputs": outputs}


def _tensors(a: Source, b: Source, progress: Callable[[str, int, int], None] | None) -> dict[str, Any]:
    in_a = {entry.name: entry for entry in a.checkpoint.entries}
    in_b = {entry.name: entry for entry in b.checkpoint.entries}
    common = [name for name in in_a if name in in_b]
    firsts: dict[Pair, str] = {}
    for name in common:
        firsts.setdefault((in_a[name].owner, in_b[name].owner), name)
    alike = {pair for pair, name in firsts.items() if in_a[name].shape == in_b[name].shape}
    rows: dict[Pair, tuple[int, float, dict[str, Any]]] = {}
    error, energy, largest, largest_in = 0.0, 0.0, 0.0, None
    for done, (pair, x, y) in enumerate(_read(a, b, alike), 1):
        gap, equal = measured(x, y), same_bits(x, y)
        state = _BITS if equal else _BROKEN if gap.broken else _FAR if gap.largest else _VALUES
        row = {"equal": equal, "error_db": gap.error_db, "max_difference": gap.largest, "nonfinite": gap.broken}
        rows[pair] = state, gap.sums[0], row
        if _is_float(x) and _is_float(y):
            error, energy = error + gap.sums[0], energy + gap.sums[1]
            if gap.largest > largest:
                largest, largest_in = gap.largest, firsts[pair]
        del x, y
        if progress is not None:
            progress("comparing", done, len(alike))
    unlike = (_UNLIKE, 0.0, {"equal": False, "error_db": None, "max_difference": None, "nonfinite": 0})
    told = []
    for name in common:
        pair = in_a[name].owner, in_b[name].owner
        state, weight, row = rows.get(pair, unlike)
        tied = firsts[pair] if firsts[pair] != name else None
        told.append((_worst(state, weight, row), {**_named(in_a[name], in_b[name]), **row, "tied_to": tied}, state))
    told.sort(key=lambda item: item[0])  # stable: what is as bad stays in A's order
    states = [state for _, _, state in told]
    return {
        "only_a": [_alone(entry) for entry in in_a.values() if entry.name not in in_b],
        "only_b": [_alone(entry) for entry in in_b.values() if entry.name not in in_a],
        "tensors": [row for _, row, _ in told],
        "equal": states.count(_BITS),
        "equal_values": states.count(_VALUES),
        "unlike_shapes": states.count(_UNLIKE),
        "error_db": decibels(error, energy),
        "max_difference": largest,
        "max_in": largest_in,
    }


def _read(a: Source, b: Source, pairs: set[Pair]) -> Iterator[tuple[Pair, torch.Tensor, torch.Tensor]]:
    """Tensors of A and B in pairs, in the order of an archive, if one of them is."""
    swapped = a.archive is None and b.archive is not None
    lead, other = (b, a) if swapped else (a, b)
    partners: dict[str, list[str]] = {}
    for pair in sorted(pairs):
        partners.setdefault(pair[swapped], []).append(pair[not swapped])
    wanted = {name for names in partners.values() for name in names}
    follow = other.checkpoint if other.archive is None else as_checkpoint(other.archive, wanted)
    for name, tensor in lead.each():
        for partner in partners.get(name, ()):
            found = follow.read(partner)
            if swapped:
                yield (partner, name), found, tensor
            else:
                yield (name, partner), tensor, found
            del found
        del tensor  # before the next one is read


def _worst(state: int, squared: float, row: dict[str, Any]) -> tuple[float, ...]:
    """What rows are sorted by: the way they differ, then the relative error, then the error."""
    relative = row["error_db"]
    return state, -row["nonfinite"], math.inf if relative is None else -relative, -squared


def _named(a: Entry, b: Entry) -> dict[str, Any]:
    return {
        "name": a.name,
        "shape_a": list(a.shape),
        "dtype_a": a.dtype,
        "shape_b": list(b.shape),
        "dtype_b": b.dtype,
    }


def _alone(entry: Entry) -> dict[str, Any]:
    return {"name": entry.name, "shape": list(entry.shape), "dtype": entry.dtype}


def _is_float(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
