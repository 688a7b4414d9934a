"""What must go together with an output channel of a layer, as torch-pruning tells it.

Source: Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023; the graph is the package torch-pruning's
(extra `prune`). Only copies are given to it; what it says is tried out in `coupling.py` before it is believed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tersor.errors import TersorError
from tersor.tune.batches import Batch
from tersor.user.faults import described


@dataclass(frozen=True)
class Member:
    """A module of which channels go.

    Attributes:
        path: of the module.
        role: `out` (output channels of a layer), `in` (input channels of the layer that takes them), `through` (a
            norm, a depthwise convolution: both at once), or `other` (nothing that tersor can make smaller).
        roots: channels of the first member that they go with, [channels of this member].
        channels: of this member, in the order of `roots`.
    """

    path: str
    role: str
    roots: tuple[int, ...]
    channels: tuple[int, ...]


@dataclass(frozen=True)
class Coupled:
    """Output channels of a layer, and what is coupled to them.

    Attributes:
        root: path of the layer whose channels count: the first one.
        count: its output channels.
        members: all modules, the root first.
    """

    root: str
    count: int
    members: tuple[Member, ...]

    def of(self, *roles: str) -> list[Member]:
        """The members of these roles."""
        return [member for member in self.members if member.role in roles]


class Dependency:
    """The graph of a network, which it may change: give a copy.

    Raises:
        TersorError: torch-pruning is not installed, or fails on the network.
    """

    def __init__(self, network: nn.Module, batch: Batch) -> None:
        try:
            import torch_pruning
        except ImportError as error:
            raise TersorError("coupled channels are found by torch-pruning; pip install tersor[prune]") from error
        self._kinds = torch_pruning.ops.OPTYPE
        self._paths = {id(module): path for path, module in network.named_modules()}
        self.network = network
        for parameter in network.parameters():  # it is autograd that is traced
            parameter.requires_grad_(parameter.is_floating_point())
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            try:
                self.graph = torch_pruning.DependencyGraph().build_dependency(
                    network,
                    batch,
                    forward_fn=lambda model, given: given.call(model),
                    output_transform=lambda output: [t * 1 for t in floats(output) if t.requires_grad],
                    verbose=False,
                )
            except (TersorError, MemoryError):
                raise
            except Exception as error:
                raise TersorError(
                    f"torch-pruning cannot follow the network ({described(error)}); "
                    "leave out passes that remove channels"
                ) from error

    def knows(self, path: str) -> bool:
        """Whether the module took part in the answer to the batch."""
        return self.network.get_submodule(path) in self.graph.module2node

    def group(self, path: str, channels: Sequence[int] | None = None) -> Any:
        """torch-pruning's group of a layer's output channels, all by default."""
        module = self.network.get_submodule(path)
        pruner = self.graph.get_pruner_of_module(module)
        chosen = list(range(pruner.get_out_channels(module))) if channels is None else list(channels)
        return self.graph.get_pruning_group(module, pruner.prune_out_channels, chosen)

    def coupled(self, path: str) -> Coupled:
        """All output channels of a layer with their members."""
        group = self.group(path)
        members = []
        for item in group:
            role = self._role(item.dep)
            if role:
                where = self._paths.get(id(item.dep.target.module), str(item.dep.target.name))
                members.append(Member(where, role, tuple(item.root_idxs), tuple(item.idxs)))
        count = self.graph.get_pruner_of_module(group[0].dep.target.module).get_out_channels(group[0].dep.target.module)
        return Coupled(path, count, tuple(members))

    def prune(self, path: str, channels: Sequence[int]) -> None:
        """Remove output channels of a layer and what is coupled to them; gradients shrink like parameters."""
        self.group(path, channels).prune()

    def _role(self, dep: Any) -> str:
        kind, kinds = dep.target.type, self._kinds
        if kind in (kinds.CONV, kinds.LINEAR):
            return "out" if self.graph.is_out_channel_pruning_fn(dep.handler) else "in"
        if kind in (kinds.DEPTHWISE_CONV, kinds.BN, kinds.IN, kinds.GN, kinds.LN, kinds.PRELU, kinds.EMBED):
            return "through"
        if kind in (kinds.OUTPUT, kinds.PARAMETER, kinds.MHA, kinds.LSTM, kinds.CUSTOMIZED):
            return "other"
        return ""


def floats(value: Any) -> list[torch.Tensor]:
    """All floating tensors of a network's answer."""
    if isinstance(value, torch.Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, Mapping):
        return [t for item in value.values() for t in floats(item)]
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return [t for item in value for t in floats(item)]
    return [t for item in getattr(value, "__dict__", {}).values() for t in floats(item)]
