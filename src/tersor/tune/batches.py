"""What a batch is, for every part of tuning, and how data is gone through; what a model's output is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tersor.errors import TersorError

Data = Iterable[Any] | Callable[[], Iterable[Any]]
"""Batches: a list, a DataLoader, or a function that gives a fresh iterable for each pass."""

_CURE = "give a list, a DataLoader, or a function that returns a fresh iterable"


@dataclass(frozen=True)
class Batch:
    """Inputs of one call of a model.

    Attributes:
        args, kwargs: positional and keyword arguments of `forward`.
        labels: what the outputs are judged by, or None.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    labels: Any = None

    def call(self, model: Callable[..., Any]) -> Any:
        """The model's output.

        Raises:
            TersorError: the model takes other arguments than the batch has.
        """
        try:
            return model(*self.args, **self.kwargs)
        except TypeError as error:
            function = getattr(model, "forward", model)
            if _fits(function, *self.args, **self.kwargs):
                raise
            has = ", ".join([f"{len(self.args)} positional", *map(repr, self.kwargs)])
            raise TersorError(
                f"a batch's inputs ({has}) do not fit {type(model).__name__}, which takes "
                f"{inspect.signature(function)}; if labels are among them, say labelled=True"
            ) from error


def _fits(function: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
    """Whether the signature allows the call; true where there is no signature to ask."""
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def split(batch: Any, labelled: bool) -> Batch:
    """A batch from the user's data as arguments and labels.

    Args:
        batch: a tensor (the one input), a mapping (keyword arguments), or a tuple or list (positional arguments).
        labelled: the last of the tuple, or the mapping's `labels`, is no input but what outputs are judged by.

    Raises:
        TersorError: it is nothing of these, or lacks the labels or the inputs.
    """
    if isinstance(batch, torch.Tensor):
        if labelled:
            raise TersorError("a batch is one tensor, which has no labels; give (inputs, labels), or labelled=False")
        return Batch((batch,), {})
    if isinstance(batch, Mapping):
        kwargs = dict(batch)
        if not all(isinstance(key, str) for key in kwargs):
            raise TersorError("a batch is a mapping with keys that are not strings; name the arguments of forward")
        if labelled and "labels" not in kwargs:
            raise TersorError(f"a batch has no 'labels' among {', '.join(kwargs)}; add them, or say labelled=False")
        labels = kwargs.pop("labels") if labelled else None
        return Batch((), kwargs, labels)
    if not isinstance(batch, (tuple, list)):
        kind = type(batch).__name__
        raise TersorError(f"a batch is a {kind}; give a tensor, a dict, or a tuple of what forward takes")
    if len(batch) < 1 + labelled:
        wanted = "inputs and labels" if labelled else "inputs"
        raise TersorError(f"a batch is a {type(batch).__name__} of {len(batch)}; give the {wanted}")
    return Batch(tuple(batch[:-1]), {}, batch[-1]) if labelled else Batch(tuple(batch), {})


def mapped(batch: Batch, change: Callable[[Any], Any]) -> Batch:
    """The batch with `change` of every leaf, in a fixed order.

    Leaves are whatever can be moved (`.to`) and whatever is no mapping, tuple or list; mappings come back as dicts.
    """

    def walk(value: Any) -> Any:
        if hasattr(value, "to"):
            return change(value)
        if isinstance(value, Mapping):
            return {key: walk(item) for key, item in value.items()}
        if isinstance(value, (tuple, list)):
            items = [walk(item) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        return change(value)

    return Batch(walk(batch.args), walk(batch.kwargs), walk(batch.labels))


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """The batch with everything that can be moved on `device`."""
    return mapped(batch, lambda leaf: leaf.to(device) if hasattr(leaf, "to") else leaf)


def once(data: Data) -> Iterator[Any]:
    """The batches of one pass.

    Raises:
        TersorError: the data yields no batches, or is none; raised when the first batch is asked for.
    """
    return _one_pass(data, f"the data yields no batches; if it is a generator that was used before, {_CURE}")


def passes(data: Data) -> Iterator[Any]:
    """The batches of endless passes, one after the other.

    A one-shot generator serves while it lasts. The order is the data's own: a DataLoader that shuffles draws from
    torch's global random state, unless it is given a generator.

    Raises:
        TersorError: the data yields no batches, is none, or ran dry and cannot be iterated again; when that shows.
    """
    yield from once(data)
    while True:
        yield from _one_pass(data, f"the data ran dry after one pass and cannot be iterated again; {_CURE}")


def _one_pass(data: Data, empty: str) -> Iterator[Any]:
    seen = False
    for batch in _fresh(data):
        seen = True
        yield batch
    if not seen:
        raise TersorError(empty)


def _fresh(data: Data) -> Iterable[Any]:
    made = data
    if not isinstance(data, Iterable) and callable(data):
        if not _fits(data):
            raise TersorError(
                f"the data's function takes arguments {inspect.signature(data)}; give one that takes none"
            )
        made = data()
    if isinstance(made, (torch.Tensor, Mapping, str)):
        raise TersorError(f"the data is a {type(made).__name__}, not an iterable of batches; put batches into a list")
    if not isinstance(made, Iterable):
        raise TersorError(f"the data is a {type(made).__name__}, which yields no batches; {_CURE}")
    return made


def logits(output: Any) -> torch.Tensor:
    """The scores of classes in a model's output.

    That is the output itself; its `.logits`; its item `logits` or `out` (segmentation models); or a tuple's first.

    Raises:
        TersorError: no tensor is found in these places.
    """
    found = [output, getattr(output, "logits", None)]
    if isinstance(output, Mapping):
        found += [output.get("logits"), output.get("out")]
    if isinstance(output, tuple):
        found += output[:1]
    for value in found:
        if isinstance(value, torch.Tensor):
            return value
    raise TersorError(
        f"the model's output, a {type(output).__name__}, has no logits that are known; pass loss= "
        "(for importance: kind='activation')"
    )


def class_dim(scores: torch.Tensor) -> int:
    """The dimension of the classes: 1 from four dimensions on (images of classes, [B, C, H, W]), else the last.

    Sequences of classes are [B, T, V]; a model that gives [B, V, T] must be told apart by the caller.
    """
    return 1 if scores.ndim >= 4 else -1
