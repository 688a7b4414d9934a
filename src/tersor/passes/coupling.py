"""Output channels removed for good, with everything that is coupled to them.

Ours: nothing that the dependency graph says is believed before it is tried (`trial.py`). So a shortcut that pads or
picks channels, a size written in the network, or a norm over channels makes no wrong network, only a layer that is left
as it is.
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tersor.errors import TersorError
from tersor.passes.dependency import Coupled, Dependency
from tersor.passes.flow import tell_left
from tersor.passes.sites import CONVOLUTIONS, TRANSPOSED, Site
from tersor.passes.trial import alike, answers, confirmed, deafen, few
from tersor.passes.work import Work
from tersor.structure.resize import resize_
from tersor.user.faults import described

_EXACT = 1e-5  # of the largest answer
_LAYERS = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)


def removable(work: Work, tell: bool = True) -> list[Coupled]:
    """Groups of output channels of which any may go, in the order of the network's modules.

    A network's outputs are in none, nor what is excluded, tied, or could not be confirmed; for every such layer
    `work.tell` has the reason, if `tell`.

    Raises:
        TersorError: there are no data; torch-pruning is missing or cannot follow the network.
    """
    batch = few(work)
    graph = Dependency(copy.deepcopy(work.network), batch)
    found: list[Coupled] = []
    seen: set[str] = set()
    left: dict[str, str] = {}
    for path, module in work.network.named_modules():
        if not isinstance(module, _LAYERS) or path in seen or not graph.knows(path):
            continue
        try:
            group = graph.coupled(path)
        except MemoryError:
            raise
        except Exception as error:  # of torch-pruning, on what it does not know
            left[path] = f"torch-pruning fails there ({described(error)})"
            continue
        seen |= {member.path for member in group.of("out", "through")} | {path}
        why = _why_not(work, group)
        if why == "":
            found.append(group)
        elif why != "output":
            left |= dict.fromkeys(_makers(group), why)
    sound = list(confirmed(work, found, batch))
    for group in found:
        if group not in sound:
            left |= dict.fromkeys(_makers(group), "what is coupled to what cannot be followed")
    if tell:
        tell_left(work, "channels stay", left)
    return sound


def remove(work: Work, site: Site | str, indices: Sequence[int], exact: bool = False) -> None:
    """Remove output channels of a layer, and of everything coupled to them, from the network.

    Masks are cut like their tensors. Nothing is changed when an error is raised.

    Args:
        work: its network is changed, in place; modules and parameters stay the same objects.
        site: the layer, or its path.
        indices: of its output channels.
        exact: refuse if the network answers the example batch otherwise afterwards.

    Raises:
        TersorError: all channels of a layer would go, or the network does not work without these.
    """
    path = site if isinstance(site, str) else site.path
    for where, why in remove_all(work, {path: indices}, exact).items():
        raise TersorError(f"{where}: {why}")


def remove_all(work: Work, chosen: Mapping[str, Sequence[int]], exact: bool = False) -> dict[str, str]:
    """Remove channels of several layers, as `remove` does; gives the reasons for those that stay, by path."""
    try:
        _remove(work, chosen, exact)
        return {}
    except TersorError as error:
        if len(chosen) == 1:
            return dict.fromkeys(chosen, str(error))
    left: dict[str, str] = {}
    for path, indices in chosen.items():
        left |= remove_all(work, {path: indices}, exact)
    return left


@torch.no_grad()
def _remove(work: Work, chosen: Mapping[str, Sequence[int]], exact: bool) -> None:
    """Remove from a copy; if that answers as it should, make the network the same."""
    chosen = {path: sorted(set(indices)) for path, indices in chosen.items() if len(indices)}
    if not chosen:
        return
    batch = few(work)
    trial = copy.deepcopy(work.network)
    graph = Dependency(trial, batch)
    for name, parameter in trial.named_parameters():  # masks go where gradients would
        mask = work.masks.get(name)
        parameter.grad = None if mask is None else mask.to(parameter)
    before = {path: _shapes(module) for path, module in trial.named_modules()}
    try:
        for path, channels in chosen.items():
            group = graph.coupled(path)
            if len(channels) >= group.count:
                raise TersorError("all of its channels would go; one at least must stay")
            deafen(trial, group, set(channels))
        masked = answers(trial, batch)
        for path, channels in chosen.items():
            graph.prune(path, channels)
        new = answers(trial, batch)
    except (TersorError, MemoryError):
        raise
    except Exception as error:
        raise TersorError(f"the network does not work without these channels ({described(error)})") from error
    if [t.shape for t in new] != [t.shape for t in masked]:
        raise TersorError("its channels are the network's outputs, which stay")
    if not alike(new, masked):
        raise TersorError("what is coupled to its channels cannot be followed")
    if exact and not alike(new, answers(work.network, batch), _EXACT):
        raise TersorError("the network answers otherwise without these channels")
    _take_over(work, trial, before)


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return {leaf: tuple(tensor.shape) for leaf, tensor in tensors}


@torch.no_grad()
def _take_over(work: Work, trial: nn.Module, before: dict[str, dict[str, tuple[int, ...]]]) -> None:
    """Make the network what its trimmed copy is."""
    for path, module in trial.named_modules():
        shapes = _shapes(module)
        if shapes == before[path]:
            continue
        mine: Any = work.network.get_submodule(path)
        resize_(mine, shapes)
        for leaf in shapes:
            tensor = getattr(module, leaf)
            getattr(mine, leaf).copy_(tensor)
            if tensor.grad is not None:
                work.masks[f"{path}.{leaf}"] = tensor.grad.bool()


def _makers(group: Coupled) -> list[str]:
    """The layers whose channels these are."""
    return [member.path for member in group.of("out")] or [group.root]


def _why_not(work: Work, group: Coupled) -> str:
    """Why none of a group's channels may go: a few words; `output` for the network's outputs; nothing if they may."""
    network = work.network
    if any(member.role == "other" and member.path.startswith("_OutputOp") for member in group.members):
        return "output"
    for member in group.of("other"):
        return f"{member.path} has them too"
    if group.count < 2:
        return "there is only one"
    if not group.of("in"):
        return "no layer takes them"
    modules = dict(network.named_modules())
    tied = _tied(network)
    for member in group.members:
        for leaf, tensor in modules[member.path].named_parameters(recurse=False):
            name = f"{member.path}.{leaf}"
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in work.exclude) or name in work.made:
                return f"{name} is excluded"
            if id(tensor) in tied:
                return f"a {leaf} among what is coupled is tied to another tensor"
        if "weight" not in modules[member.path]._parameters and not isinstance(modules[member.path], nn.LayerNorm):
            return f"the weights of {member.path} are computed"
    return ""


def _tied(network: nn.Module) -> set[int]:
    """Parameters with more than one name."""
    seen: set[int] = set()
    tied: set[int] = set()
    for _, parameter in network.named_parameters(remove_duplicate=False):
        (tied if id(parameter) in seen else seen).add(id(parameter))
    return tied
