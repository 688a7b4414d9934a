from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from tersor.errors import TersorError
from tersor.tune.batches import Batch, class_dim, logits, mapped, once, passes, split, to_device

X, Y = torch.ones(2, 3), torch.tensor([0, 1])


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(TersorError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_an_input_and_what_a_label() -> None:
    assert split(X, False) == Batch((X,), {})
    assert split((X, Y), False) == Batch((X, Y), {})
    assert split([X, Y], True) == Batch((X,), {}, Y)
    assert split((X, X, Y), True) == Batch((X, X), {}, Y)
    whole = {"x": X, "labels": Y}
    assert split(whole, False) == Batch((), whole)
    assert split(whole, True) == Batch((), {"x": X}, Y)
    assert list(whole) == ["x", "labels"]


@pytest.mark.parametrize(
    ("batch", "labelled", "words"),
    [
        (X, True, "(inputs, labels)"),
        ({"x": X}, True, "no 'labels' among x"),
        ({0: X}, False, "keys that are not strings"),
        ((), False, "tuple of 0"),
        ([Y], True, "list of 1"),
        ("text", False, "a batch is a str"),
        (3, True, "a batch is a int"),
    ],
)
def test_what_is_no_batch(batch: Any, labelled: bool, words: str) -> None:
    assert words in refusal(lambda: split(batch, labelled))


class Two(nn.Module):
    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return x * scale


def test_call_gives_arguments_and_tells_when_they_do_not_fit() -> None:
    assert torch.equal(Batch((X, 3.0), {}).call(Two()), 3 * X)
    assert torch.equal(Batch((), {"x": X, "scale": 2.0}).call(Two()), 2 * X)
    assert torch.equal(Batch((X,), {}, Y).call(lambda x: x), X)
    message = refusal(lambda: split((X, X, Y), False).call(Two()))
    assert "3 positional" in message and "scale" in message and "labelled=True" in message
    assert "'y'" in refusal(lambda: Batch((), {"y": X}).call(Two()))
    with pytest.raises(TypeError):  # the model's own error is left alone
        Batch((X, "two"), {}).call(Two())


def test_to_device_moves_all_that_can_be_moved() -> None:
    pair = namedtuple("pair", ["a", "b"])
    batch = Batch((X, [X, {"k": X}], pair(X, 1), pack_sequence([X])), {"n": 3, "x": (X,)}, Y)
    moved = to_device(batch, "meta")
    assert moved.args[0].is_meta and moved.args[1][1]["k"].is_meta and moved.labels.is_meta
    assert moved.args[2].a.is_meta and moved.args[2].b == 1 and type(moved.args[2]) is pair
    assert moved.args[3].data.is_meta and moved.kwargs["x"][0].is_meta and moved.kwargs["n"] == 3
    assert not batch.args[0].is_meta


nested = st.recursive(
    st.integers(), lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner)
)


@given(st.lists(nested).map(tuple))
def test_mapped_keeps_the_structure_and_its_order(args: tuple[Any, ...]) -> None:
    batch = Batch(args, {"k": args}, args)
    leaves: list[Any] = []
    mapped(batch, leaves.append)
    again = iter(leaves)
    assert mapped(batch, lambda _: next(again)) == batch
    assert next(again, None) is None


def test_passes_goes_on_for_ever() -> None:
    assert list(islice(passes([1, 2, 3]), 8)) == [1, 2, 3, 1, 2, 3, 1, 2]
    made = []

    def fresh() -> Iterator[int]:
        made.append(len(made))
        yield from (made[-1], 10)

    assert list(islice(passes(fresh), 5)) == [0, 10, 1, 10, 2]
    loader = DataLoader(TensorDataset(torch.arange(4)), batch_size=2)
    assert [int(batch[0][0]) for batch in islice(passes(loader), 5)] == [0, 2, 0, 2, 0]
    assert list(once([1, 2])) == [1, 2]


def test_a_generator_serves_while_it_lasts() -> None:
    assert list(islice(passes(i for i in range(3)), 3)) == [0, 1, 2]
    assert "ran dry" in refusal(lambda: list(islice(passes(i for i in range(3)), 4)))
    shared = iter([1, 2])
    assert "a function that returns" in refusal(lambda: list(islice(passes(lambda: shared), 3)))

    class Once(IterableDataset):
        source = iter(range(4))

        def __iter__(self) -> Iterator[int]:
            return self.source

    assert "ran dry" in refusal(lambda: list(islice(passes(DataLoader(Once(), batch_size=2)), 3)))


@pytest.mark.parametrize("data", [[], (), lambda: [], iter([]), DataLoader([])])
@pytest.mark.parametrize("through", [passes, once])
def test_no_batches_at_all(data: Any, through: Callable[[Any], Iterator[Any]]) -> None:
    assert "the data yields no batches" in refusal(lambda: next(through(data)))


@pytest.mark.parametrize("data", [X, {"x": X}, "text", 3, None, lambda: X, lambda: None, lambda split: [split]])
def test_what_is_no_data(data: Any) -> None:
    assert refusal(lambda: next(passes(data))).startswith("the data")


@dataclass
class Output:
    logits: torch.Tensor
    loss: float = 0.0


def test_logits_are_found() -> None:
    named = namedtuple("named", ["loss", "logits"])
    for output in (X, Output(X), {"logits": X}, OrderedDict(out=X, aux=Y), (X, Y), named(Y, X), (X, None)):
        assert logits(output) is X
    for output in (None, [X, Y], {"loss": X}, (), ([X],), 3.0):
        assert "pass loss=" in refusal(lambda output=output: logits(output))  # type: ignore[misc]


def test_class_dim() -> None:
    dims = [class_dim(torch.empty([2] * n)) for n in range(1, 6)]
    assert dims == [-1, -1, -1, 1, 1]
