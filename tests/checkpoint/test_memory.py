from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import TIES, Tied, assert_holds, state_dicts, ties_of
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from torch import nn

from tersor.checkpoint import open_checkpoint
from tersor.errors import TersorError


@given(state_dicts)
def test_a_state_dict_is_read_as_it_is(state: dict[str, torch.Tensor]) -> None:
    assert_holds(open_checkpoint(state), state)


@given(st.sampled_from(["float32", ">f4", "int64", "bool"]).flatmap(lambda dtype: npst.arrays(dtype, (2, 3))))
def test_numpy_arrays_are_tensors_too(array: np.ndarray) -> None:
    frozen = array.copy()
    frozen.flags.writeable = False
    checkpoint = open_checkpoint({"a": array, "flipped": array[:, ::-1], "frozen": frozen, "scalar": np.float32(2)})
    np.testing.assert_array_equal(checkpoint.read("a").numpy(), array)
    np.testing.assert_array_equal(checkpoint.read("flipped").numpy(), array[:, ::-1])
    np.testing.assert_array_equal(checkpoint.read("frozen").numpy(), array)
    assert checkpoint.read("scalar").shape == () and checkpoint.read("scalar").item() == 2


def test_a_module_gives_parameters_and_persistent_buffers_with_their_ties() -> None:
    module = Tied()
    module.register_buffer("scratch", torch.zeros(2), persistent=False)
    checkpoint = open_checkpoint(module)
    assert_holds(checkpoint, module.state_dict())
    assert ties_of(checkpoint) == TIES
    assert checkpoint.source == "Tied"
    assert checkpoint.parameters == 7 * 3 + 4 * 3 + 1 + 7
    assert checkpoint.nbytes == 4 * (7 * 3 + 4 * 3 + 7) + 8


def test_a_batch_norm_weight_shared_in_a_state_dict_is_tied() -> None:
    state = nn.BatchNorm2d(4).state_dict()
    checkpoint = open_checkpoint({"first": state["weight"], "other": state["bias"], "second": state["weight"]})
    assert ties_of(checkpoint) == {"second": "first"}
    assert checkpoint.parameters == 8


def test_only_one_and_the_same_view_is_tied() -> None:
    x = torch.arange(6.0)
    views = {
        "whole": x,
        "alias": x.view(6),
        "part": x[:3],
        "same part": x[:3],
        "later": x[3:],
        "matrix": x.view(2, 3),
        "transposed": x.view(3, 2).t(),
        "bits": x.view(torch.int32),
        "empty": x[:0],
        "empty too": x[:0],
    }
    checkpoint = open_checkpoint(views)
    assert ties_of(checkpoint) == {"alias": "whole", "same part": "part"}
    assert_holds(checkpoint, views)


def test_a_conjugate_is_not_tied_to_its_original() -> None:
    x = torch.tensor([1 + 2j])
    checkpoint = open_checkpoint({"x": x, "conj": x.conj()})
    assert ties_of(checkpoint) == {}
    assert checkpoint.read("conj").tolist() == [1 - 2j] and not checkpoint.read("conj").is_conj()


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_a_wrapped_state_dict_is_found_and_what_is_beside_it_is_named(wrapper: str) -> None:
    checkpoint = open_checkpoint({"epoch": 3, wrapper: {"w": torch.ones(2), "version": 1}, "optimizer": {}})
    assert [entry.name for entry in checkpoint.entries] == ["w"]
    assert checkpoint.skipped == ("version", "epoch", "optimizer")


@pytest.mark.parametrize("inside", [torch.ones(2), {"depth": 20}, "resnet"], ids=["tensor", "settings", "text"])
def test_a_key_called_model_that_holds_no_tensors_is_no_wrapper(inside: Any) -> None:
    checkpoint = open_checkpoint({"model": inside, "state_dict": torch.zeros(1), "w": torch.ones(3)})
    assert {"state_dict", "w"} <= {entry.name for entry in checkpoint.entries}


def lazy() -> torch.Tensor:
    return nn.LazyLinear(3).weight


def quantized() -> torch.Tensor:
    return torch._empty_affine_quantized([2], scale=0.1, zero_point=0, dtype=torch.qint8)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: torch.ones(2, device="meta"), "meta device"),
        (lambda: torch.eye(2).to_sparse(), "sparse_coo"),
        (lambda: torch.eye(2).to_sparse_csr(), "sparse_csr"),
        (lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)], layout=torch.jagged), "not a plain dense"),
        (quantized, "quantized"),
        (lazy, "no shape yet"),
        (lambda: torch.empty(2, dtype=torch.bits8), "bits8"),
        (lambda: np.array(["a"]), "<U1"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_tensor_without_plain_values_is_refused_by_name(make: Any, reason: str) -> None:
    with pytest.raises(TersorError, match=f"'the name'.*{reason}"):
        open_checkpoint({"fine": torch.ones(1), "the name": make()})


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ({}, "no tensors"),
        ({"a": 1, "b": [torch.ones(1)]}, "no tensors"),
        ({"model": {"a": 1}}, "no tensors"),
        ({"a": torch.ones(1), 3: torch.ones(1)}, "key 3 is not a string"),
        (nn.ReLU(), "ReLU holds no tensors"),
        (7, "int is no checkpoint"),
    ],
)
def test_a_source_without_named_tensors_is_refused(source: Any, reason: str) -> None:
    with pytest.raises(TersorError, match=reason):
        open_checkpoint(source)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(TersorError, match="no tensor 'b'"):
        open_checkpoint({"a": torch.ones(1)}).read("b")
