"""A network whose coded tensors are decoded when they are used."""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from tersor.archive import Archive
from tersor.errors import TersorError
from tersor.index import DTYPES
from tersor.lazy.coded import CodedScalars, CodedSum, CodedTensor, Shared
from tersor.lazy.linear import linear_forward
from tersor.packed.groups import PackedScalars, pack
from tersor.user.faults import described

HOLDS = ("codes", "file", "dense")
CHILD = "tersor_codes"
"""The submodule of a layer that holds its codes."""


def lazy(model: nn.Module, archive: Archive, *, hold: str = "codes") -> nn.Module:
    """A network for inference whose coded weights are decoded when a layer uses them, and dropped after.

    Args:
        model: of the class whose parameters were compressed; it is copied, its coded parameters are not. It may be on
            the meta device, so that a dense copy is never there.
        archive: what `compress` made of it.
        hold: `codes`: in memory as byte codes and codebooks, three to four bits a weight at two bits in the file; what
            torch.compile and torch.export take. `file`: nothing in memory, each use reads and decodes its part of the
            archive; the least memory, and slow where layers are small. `dense`: decoded at first use, and kept.

    Returns:
        A module whose layers are of subclasses of their own, in evaluation mode, for inference: weights are the
        archive's, bit for bit, made anew for whoever reads them, so that writing to one changes nothing. With `codes`,
        linear layers with few rows of input compute from look-up tables (`lazy.linear`), which add in another order and
        hold the codes a second time.

    Raises:
        TersorError: names or shapes differ, or `hold` is none of these.
    """
    if hold not in HOLDS:
        raise TersorError(f"hold {hold!r} is unknown; take {', '.join(HOLDS)}")
    network = _shell(model, archive)
    index = archive.index
    made = _tensors(archive, network, hold)
    leaves: dict[nn.Module, dict[str, CodedTensor]] = {}
    for k, name in enumerate(index.names):
        i = index.ties.get(k, k)
        if i in made:
            path, _, leaf = name.rpartition(".")
            owner = network.get_submodule(path)
            leaves.setdefault(owner, {})[leaf] = made[i]
    for owner, found in leaves.items():
        _open(owner, found)
    _fill(network, archive, {name for k, name in enumerate(index.names) if index.ties.get(k, k) in made})
    del made
    _give_back()
    return network.eval().requires_grad_(False)


def _give_back() -> None:
    """Memory that packing took goes back to the system, where the C library can do that (glibc)."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return


def _shell(model: nn.Module, archive: Archive) -> nn.Module:
    """A copy of the model with the archive's structure, coded parameters shared with the model until they are taken."""
    index = archive.index
    places = _coded(archive)
    coded = {name for k, name in enumerate(index.names) if index.ties.get(k, k) in places}
    named = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    memo = {id(value): value for name, value in named.items() if name in coded}
    try:
        network = copy.deepcopy(model, memo)
    except MemoryError:
        raise
    except Exception as error:
        raise TersorError(f"{type(model).__name__} cannot be copied ({described(error)}); give one that can") from error
    return archive.fit_(network)


def _coded(archive: Archive) -> set[int]:
    """Tensors that are codes, integers, or rules."""
    return {i for members in archive.index.coded for i in members} | {i for i, _ in archive.index.made}


class FileTensor(CodedTensor):
    """A tensor that is read from the archive and decoded each time."""

    def __init__(self, archive: Archive, i: int, dtype: torch.dtype) -> None:
        index = archive.index
        super().__init__(index.shapes[i], DTYPES[index.dtypes[i]], dtype)
        self.archive, self.name, self.device = archive, index.names[i], torch.device("cpu")

    def forward(self) -> torch.Tensor:
        """The tensor."""
        if torch.compiler.is_compiling():
            raise TersorError("weights are read from the file here; export and compile take hold='codes'")
        return self.archive[self.name].to(self.device, self.dtype)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> FileTensor:
        super()._apply(fn, recurse)
        self.device = fn(torch.zeros(0)).device
        return self


class HeldTensor(FileTensor):
    """The same, kept after its first use."""

    value: torch.Tensor | None = None

    def forward(self) -> torch.Tensor:
        """The tensor."""
        if self.value is None:
            self.value = super().forward()
        return self.value

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> HeldTensor:
        super()._apply(fn, recurse)
        self.value = None if self.value is None else fn(self.value)
        return self


def _tensors(archive: Archive, network: nn.Module, hold: str) -> dict[int, CodedTensor]:
    """A module for each tensor of the archive that is not kept, by position."""
    index = archive.index
    state = network.state_dict()
    coded = _coded(archive)
    kinds = {i: state[index.names[i]].dtype for i in coded}
    places = {i: state[index.names[i]].device for i in coded}
    if hold != "codes":
        kind = FileTensor if hold == "file" else HeldTensor
        return {i: _placed(kind(archive, i, dtype), places[i]) for i, dtype in kinds.items()}
    out: dict[int, CodedTensor] = {}
    for group in pack(archive, lines=True):
        shared = Shared(group)
        for t, i in enumerate(group.tensors):
            stored = DTYPES[index.dtypes[i]]
            kind_ = CodedScalars if isinstance(group, PackedScalars) else CodedSum
            made: CodedTensor = kind_(group, t, shared, stored, kinds[i])  # type: ignore[arg-type]
            out[i] = _placed(made, places[i])
    return out  # rules take a seed here and seconds to compute: they are kept dense


def _placed(tensor: CodedTensor, device: torch.device) -> CodedTensor:
    """On the device of the parameter it replaces; on the CPU if that has none."""
    return tensor if device.type in ("cpu", "meta") else tensor.to(device)


def _open(owner: nn.Module, found: dict[str, CodedTensor]) -> None:
    """Let a module find decoded tensors where its parameters were."""
    for leaf in found:
        owner._parameters.pop(leaf, None)
        owner._buffers.pop(leaf, None)
    holder = nn.Module()
    for leaf, tensor in found.items():
        holder.add_module(f"{leaf}_", tensor)
    kind = type(owner)
    members: dict[str, Any] = {leaf: property(_reader(f"{leaf}_")) for leaf in found}
    if isinstance(owner, nn.RNNBase):
        members["_flat_weights"] = property(_flat_weights, lambda module, value: None)
    if kind.forward is nn.Linear.forward and "weight" in found:
        members["forward"] = linear_forward
    key = (kind, tuple(sorted(found)))
    try:
        if key not in _MADE:
            _MADE[key] = type(kind.__name__, (kind,), {"__module__": kind.__module__, **members, **_hiding(kind)})
        object.__setattr__(owner, "__class__", _MADE[key])
    except TypeError as error:
        raise TersorError(
            f"weights of a {kind.__name__} cannot be lazy ({error}); load the archive into the model"
        ) from error
    owner._modules[CHILD] = holder


_MADE: dict[tuple[type, tuple[str, ...]], type] = {}
"""Classes made so far, by the layer's own and the weights that are lazy."""


def _hiding(kind: type) -> dict[str, Any]:
    """Members that keep the holder from whoever goes through a module's children to run them."""

    def named_children(self: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        return (pair for pair in kind.named_children(self) if pair[0] != CHILD)  # type: ignore[attr-defined]

    def _apply(self: nn.Module, fn: Any, *rest: Any, **named: Any) -> nn.Module:
        self._modules[CHILD]._apply(fn)  # type: ignore[union-attr]
        return kind._apply(self, fn, *rest, **named)  # type: ignore[attr-defined]

    def shown(self: nn.Module) -> Iterator[nn.Module]:
        return (module for name, module in self._modules.items() if name != CHILD and module is not None)

    members: dict[str, Any] = {"named_children": named_children, "_apply": _apply}
    if issubclass(kind, (nn.Sequential, nn.ModuleList)):
        members |= {"__iter__": shown, "__len__": lambda self: sum(1 for _ in shown(self))}
    return members


def _reader(leaf: str) -> Callable[[nn.Module], torch.Tensor]:
    def read(module: nn.Module) -> torch.Tensor:
        tensor: torch.Tensor = module._modules[CHILD]._modules[leaf]()  # type: ignore[union-attr,misc]
        return tensor

    return read


def _flat_weights(module: nn.RNNBase) -> list[torch.Tensor]:
    """Recurrent layers keep a second list of their weights."""
    return [getattr(module, name) for name in module._flat_weights_names]


def _fill(network: nn.Module, archive: Archive, coded: set[str]) -> None:
    """Tensors that are not coded, with the archive's values; nothing may stay on the meta device.

    Raises:
        TersorError: a buffer that is in no state dict is on the meta device.
    """
    index = archive.index
    for i, tensor in archive._arrays(
        {i for i in range(len(index.names)) if index.names[i] not in coded} - index.ties.keys()
    ):
        for k, name in enumerate(index.names):
            if index.ties.get(k, k) != i:
                continue
            path, _, leaf = name.rpartition(".")
            owner = network.get_submodule(path)
            old = owner._parameters.get(leaf)
            if old is not None:
                owner._parameters[leaf] = nn.Parameter(_beside(tensor, old), requires_grad=False)
            elif owner._buffers.get(leaf) is not None:
                owner._buffers[leaf] = _beside(tensor, owner.get_buffer(leaf))
    left = [
        name for name, value in (*network.named_parameters(), *network.named_buffers()) if value.device.type == "meta"
    ]
    counters = [name for name in left if name.endswith("num_batches_tracked")]
    for name in counters:
        path, _, leaf = name.rpartition(".")
        network.get_submodule(path)._buffers[leaf] = torch.tensor(0)
    left = [name for name in left if name not in counters]
    if left:
        raise TersorError(
            f"{', '.join(left[:10])} of {type(network).__name__} are on the meta device and in no archive; "
            "build the model on a real device, or give them values first"
        )


def _beside(tensor: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """The tensor in the type and on the device of the one it replaces; on the CPU if that has none."""
    return tensor.to("cpu" if old.device.type == "meta" else old.device, old.dtype)
