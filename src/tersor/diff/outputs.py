"""What a network answers with the tensors of A and with those of B."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from tersor.checkpoint.memory import settle
from tersor.diff.gap import Gap, measured, same_bits
from tersor.diff.sources import Source
from tersor.errors import TersorError
from tersor.tune.batches import Data, class_dim, logits, once, split, to_device
from tersor.user.calls import copied


def compare_outputs(
    a: Source,
    b: Source,
    model: nn.Module,
    data: Data,
    *,
    labelled: bool = False,
    batches: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """How far the outputs of the two networks are apart, in eval mode.

    Args:
        a, b, model, data, labelled, batches, progress: as for `tensors.compare`.

    Returns:
        `batches`: how many were gone through. `tensors`: of each tensor of the output its place (`output`, or keys and
        positions like `logits` or `0.boxes`), `values`, `equal` (bit for bit), `error_db`, `max_difference`,
        `mean_difference`, `nonfinite`, and `unlike`, batches in which only one has it or shapes differ (they are in no
        other number). `argmax`: of outputs with scores of classes (`tune.batches.logits`) the `dimension` of the
        classes, how many were `chosen`, and the share of them that is `equal`; else None.

    Raises:
        TersorError: A or B does not fit the model, the data is none, or the output has no tensor.
    """
    if batches is not None and batches < 1:
        raise TersorError(f"batches={batches} compares nothing; give at least 1")
    first, second = loaded(model, a), loaded(model, b)
    places: dict[str, _Place] = {}
    choice = _Choice()
    seen = 0
    with torch.no_grad():
        for given in itertools.islice(once(data), batches):
            x, y = _answer(first, given, labelled), _answer(second, given, labelled)
            parts, others = dict(_leaves(x)), dict(_leaves(y))
            if not parts or not others:
                raise TersorError(f"the output of {type(model).__name__}, a {type(x).__name__}, has no tensors")
            for name in {**parts, **others}:
                places.setdefault(name, _Place()).add(parts.get(name), others.get(name))
            choice.add(x, y)
            seen += 1
            if progress is not None and batches is not None:
                progress("running", seen, batches)
    return {
        "batches": seen,
        "tensors": [{"name": name, **place.about()} for name, place in places.items()],
        "argmax": choice.about(),
    }


def loaded(model: nn.Module, source: Source) -> nn.Module:
    """A copy of the model with the source's tensors, in eval mode; archives also fit its structure to theirs.

    Raises:
        TersorError: names or shapes differ.
    """
    net = copied(model).eval()
    if source.archive is not None:
        return source.archive.apply_(net)
    checkpoint = source.checkpoint
    try:
        net.load_state_dict({entry.name: checkpoint.read(entry.name) for entry in checkpoint.entries})
    except RuntimeError as error:
        said = " ".join(str(error).split())
        raise TersorError(
            f"{checkpoint.source} does not fit {type(model).__name__}: {said[:300]}{'…' * (len(said) > 300)}; "
            "give the model that it is of"
        ) from error
    return net


def _answer(net: nn.Module, batch: Any, labelled: bool) -> Any:
    at = next(itertools.chain(net.parameters(), net.buffers()), torch.empty(0)).device
    return to_device(split(batch, labelled), at).call(net)


def _leaves(output: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of an output, with their places in it."""
    if isinstance(output, torch.Tensor):
        yield name or "output", settle(output)
        return
    inner: Any = ()
    if isinstance(output, Mapping):
        inner = output.items()
    elif isinstance(output, (tuple, list)):
        inner = enumerate(output)
    elif dataclasses.is_dataclass(output):
        inner = vars(output).items()
    for key, value in inner:
        yield from _leaves(value, f"{name}.{key}" if name else str(key))


class _Place:
    """One tensor of the output, over all batches."""

    def __init__(self) -> None:
        self._gap, self._equal, self._unlike = Gap(), True, 0

    def add(self, a: torch.Tensor | None, b: torch.Tensor | None) -> None:
        """Take in a batch's."""
        if a is None or b is None or a.shape != b.shape:
            self._equal, self._unlike = False, self._unlike + 1
            return
        self._equal = self._equal and same_bits(a, b)
        self._gap.join(measured(a, b))

    def about(self) -> dict[str, Any]:
        """As plain data."""
        gap = self._gap
        return {
            "values": gap.count + gap.broken,
            "equal": self._equal,
            "error_db": gap.error_db,
            "max_difference": gap.largest if gap.count else None,
            "mean_difference": gap.total / gap.count if gap.count else None,
            "nonfinite": gap.broken,
            "unlike": self._unlike,
        }


class _Choice:
    """How often both choose the same class; of equal scores the first is chosen."""

    def __init__(self) -> None:
        self._equal = self._chosen = 0
        self._dimension: int | None = None

    def add(self, a: Any, b: Any) -> None:
        """Take in a batch's, where both outputs have scores of classes, of one shape."""
        try:
            x, y = settle(logits(a)), settle(logits(b))
        except TersorError:
            return  # an output of another kind, which has no classes to compare
        dimension = class_dim(x)
        if x.ndim < 2 or x.shape != y.shape or x.shape[dimension] < 2 or not x.is_floating_point():
            return
        same = x.double().numpy().argmax(axis=dimension) == y.double().numpy().argmax(axis=dimension)
        self._dimension = dimension % x.ndim
        self._equal, self._chosen = self._equal + int(same.sum()), self._chosen + same.size

    def about(self) -> dict[str, Any] | None:
        """As plain data."""
        if not self._chosen:
            return None
        return {"dimension": self._dimension, "chosen": self._chosen, "equal": self._equal / self._chosen}
