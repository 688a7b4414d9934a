"""Checkpoints whose tensors are in memory: a module's or any mapping of names to tensors."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor.checkpoint.header import ITEM_BYTES
from tersor.checkpoint.inventory import Checkpoint, Entry, tie
from tersor.errors import TersorError

if TYPE_CHECKING:
    import torch

WRAPPERS = ("state_dict", "model")
"""Keys under which training scripts put the state dict, the first one found wins."""


def from_mapping(values: Mapping[Any, Any], source: str) -> Checkpoint:
    """A checkpoint of the tensors and numpy arrays in `values`, or in the mapping under `state_dict` or `model`.

    Names of one and the same view of one storage are tied; views that only overlap are independent.

    Raises:
        TersorError: no tensors, a key that is not a string, or a tensor without plain values (meta, sparse,
            quantized, nested, a dtype that torch keeps only as a shell).
    """
    values, beside = _unwrap(values)
    tensors: dict[str, torch.Tensor] = {}
    skipped: list[str] = []
    for name, value in values.items():
        if not isinstance(name, str):
            raise TersorError(f"{source}: key {name!r} is not a string; name every tensor by a string")
        if _is_tensor(value):
            tensors[name] = check_plain(name, value, source)
        else:
            skipped.append(name)
    if not tensors:
        raise TersorError(f"{source} holds no tensors; give a module's state dict")
    entries = tie((_entry(name, tensor), _view(tensor)) for name, tensor in tensors.items())
    return Checkpoint(source, entries, lambda name: settle(tensors[name]), (*skipped, *beside))


def _unwrap(values: Mapping[Any, Any]) -> tuple[Mapping[Any, Any], list[str]]:
    """The state dict itself, and the names of what lies beside it."""
    for wrapper in WRAPPERS:
        inner = values.get(wrapper)
        if isinstance(inner, Mapping) and any(map(_is_tensor, inner.values())):
            return inner, [str(name) for name in values if name != wrapper]
    return values, []


def _is_tensor(value: object) -> bool:
    import torch

    return isinstance(value, (torch.Tensor, np.ndarray, np.number, np.bool_))


def check_plain(name: str, value: torch.Tensor | np.ndarray | np.generic, source: str) -> torch.Tensor:
    """The value as a tensor, sharing its memory where torch can, once it is sure to have plain strided values.

    Raises:
        TersorError: it has not; the message names `source` and the tensor.
    """
    import torch
    from torch.nn.parameter import is_lazy
    from torch.utils._python_dispatch import is_traceable_wrapper_subclass

    tensor = value if isinstance(value, torch.Tensor) else _from_numpy(name, np.asarray(value), source)
    where = f"{source}: tensor {name!r}"
    if is_lazy(tensor):
        raise TersorError(f"{where} has no shape yet; run the module once so that its lazy parameters are made")
    if tensor.is_meta:
        raise TersorError(f"{where} is on the meta device and has no values; load the weights first")
    if tensor.is_quantized:
        raise TersorError(f"{where} is quantized ({dtype_name(tensor)}); give the original, or its dequantize()")
    if tensor.layout != torch.strided or tensor.is_nested or is_traceable_wrapper_subclass(tensor):
        kind = type(tensor).__name__ if tensor.layout == torch.strided else tensor.layout
        raise TersorError(f"{where} is not a plain dense tensor ({kind}); make it one first, as with to_dense()")
    if dtype_name(tensor) not in ITEM_BYTES:
        raise TersorError(f"{where} has dtype {dtype_name(tensor)}, which has no values to store; convert it first")
    return tensor


def _from_numpy(name: str, array: np.ndarray, source: str) -> torch.Tensor:
    import torch

    if not array.flags.writeable or not array.dtype.isnative or any(stride < 0 for stride in array.strides):
        array = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")  # torch takes none of these as they are
    try:
        return torch.from_numpy(array)
    except TypeError as error:
        raise TersorError(
            f"{source}: array {name!r} has dtype {array.dtype}, which torch does not know; convert it first"
        ) from error


def settle(tensor: torch.Tensor) -> torch.Tensor:
    """The same values on the CPU, contiguous, without gradient; the tensor's own memory where that is so already."""
    return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()


def dtype_name(tensor: torch.Tensor) -> str:
    """torch's own name of the dtype, without `torch.`."""
    return str(tensor.dtype).removeprefix("torch.")


def _entry(name: str, tensor: torch.Tensor) -> Entry:
    return Entry(name, dtype_name(tensor), tuple(tensor.shape))


def _view(tensor: torch.Tensor) -> Hashable:
    """What makes two tensors the same view of the same memory."""
    return (
        tensor.device,
        tensor.untyped_storage().data_ptr(),
        tensor.storage_offset(),
        tensor.shape,
        tensor.stride(),
        tensor.dtype,
        tensor.is_conj(),
        tensor.is_neg(),
    )
