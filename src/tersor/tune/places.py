"""Where a network looks for the tensors of an archive: attributes of its modules, several for one that is tied."""

from __future__ import annotations

import torch
from torch import nn

from tersor.errors import TersorError
from tersor.index import Index

Place = tuple[nn.Module, str]
"""A module and the name of its attribute."""


def places_of(network: nn.Module, index: Index, i: int) -> list[Place]:
    """The places of the tensor at position i, and of all that are tied to it; a module used twice counts once."""
    found: dict[tuple[int, str], Place] = {}
    for k, name in enumerate(index.names):
        if index.ties.get(k, k) == i:
            path, _, leaf = name.rpartition(".")
            owner = network.get_submodule(path)
            found[id(owner), leaf] = (owner, leaf)
    return list(found.values())


def parameter_at(place: Place) -> nn.Parameter | None:
    """The parameter there; None if there is a buffer or nothing."""
    return place[0]._parameters.get(place[1])


def take_out(places: list[Place]) -> None:
    """Remove parameters and buffers, so that plain tensors can be put there."""
    for owner, leaf in places:
        owner._parameters.pop(leaf, None)
        owner._buffers.pop(leaf, None)


def put(places: list[Place], value: torch.Tensor) -> None:
    """Let the network find the tensor at these places, from which `take_out` took what was there."""
    for owner, leaf in places:
        setattr(owner, leaf, value)


def clear(places: list[Place]) -> None:
    """Forget tensors that were put there."""
    for owner, leaf in places:
        if leaf in owner.__dict__:
            setattr(owner, leaf, None)  # clears the second list that recurrent layers have of their weights, too
            owner.__dict__.pop(leaf)


def check_ties(model: nn.Module, index: Index, name: str) -> None:
    """Make sure that what is one tensor in the model is one in the archive of this name.

    Raises:
        TersorError: it is two there.
    """
    place = {name: index.ties.get(i, i) for i, name in enumerate(index.names)}
    first: dict[int, str] = {}
    for own, value in model.state_dict(keep_vars=True).items():
        other = first.setdefault(id(value), own)
        if place[own] != place[other]:
            raise TersorError(
                f"{other} and {own} are one tensor in {type(model).__name__}, but two in {name}; "
                "compress the model itself"
            )


def tie_kept(network: nn.Module, index: Index) -> None:
    """Make one tensor in the network of what is one kept tensor in the archive, so that it is trained as one."""
    for i, _, _ in index.kept:
        (first, leaf), *others = places_of(network, index, i)
        for other, also in others:
            for mine, theirs in ((first._parameters, other._parameters), (first._buffers, other._buffers)):
                if mine.get(leaf) is not None and theirs.get(also) is not None:
                    theirs[also] = mine[leaf]  # type: ignore[assignment]
