"""The fixed factors U of a weight W = U V (row vectors, y = x W), and the V that goes with one.

Source: Denil, Shakibi, Dinh, Ranzato and de Freitas, "Predicting parameters in deep learning", NIPS 2013. There the
weights of a unit are a function on its inputs, seen at a random subset s of them, and ridge regression with a kernel K
fills in the rest: U = K[s, :]^T (K[s, s] + ridge I)^-1. Here atoms are U's columns, stored as rows: [a, n].

Ours: the covariance kernel is divided by its mean diagonal, so that the ridge does not depend on the scale of inputs;
k-means clusters inputs as they are, not whitened; V starts as a least-squares fit, not at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from tersor.additive.start import kmeans
from tersor.errors import TersorError
from tersor.passes.layer_inputs import Inputs
from tersor.passes.truncation import signs_of, truncated_svd
from tersor.representations import made as rules
from tersor.representations.exact import subset
from tersor.representations.made import Made, make

Name = Literal["learned", "identity", "gaussian", "se", "covariance", "kmeans", "dct"]

STORED = ("learned", "covariance", "kmeans")
"""Dictionaries that the file holds number by number; of the others it holds a rule."""

MEASURED = ("covariance", "kmeans")
"""Dictionaries that follow from the layer's inputs."""

PLACED = ("se", "dct")
"""Dictionaries that depend on where on a grid inputs are."""

WIDTHS = {"linear": 2.0, "kernel": 3.0}
"""The paper's widths of the squared-exponential kernel, in pixels."""

RIDGES = {"se": 0.1, "covariance": 1e-3}
"""The paper's ridges."""

DAMPING = 0.01
"""Of the inputs' mean square, added to all of them where V is fitted: what the data never shows counts a little."""

_TINY = 1e-9


@dataclass(frozen=True)
class Wanted:
    """A dictionary for one layer.

    Attributes:
        name: which.
        atoms: per column.
        columns: J.
        seed: of what is random.
        grid: channels, then sides, of the layer's inputs.
        width, ridge: of kernels.
    """

    name: Name
    atoms: int
    columns: int
    seed: int
    grid: tuple[int, ...]
    width: float
    ridge: float


def grid_of(module: nn.Module, given: Sequence[int]) -> tuple[int, ...]:
    """Channels, then sides, of a layer's inputs: a kernel's own; of a linear layer those given, or one row.

    Args:
        module: the layer.
        given: [rows, columns] or [channels, rows, columns] of a linear layer's input, or nothing.
    """
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    if weight.ndim > 2:
        return tuple(weight.shape[1:])
    if given and np.prod(given) == weight.shape[1]:
        return tuple(given) if len(given) == 3 else (1, *given)
    return (1, weight.shape[1])


def rule_of(wanted: Wanted, inputs: int) -> Made | None:
    """The rule that makes a dictionary; None where it is stored."""
    channels, *sides = wanted.grid
    if wanted.name == "identity":
        return rules.identity(wanted.seed, wanted.columns)
    if wanted.name == "gaussian":
        return rules.gaussian(wanted.seed, inputs**-0.5)
    if wanted.name == "dct":
        return rules.cosines(channels, sides)
    if wanted.name == "se":
        return rules.squared_exponential(wanted.seed, wanted.width, wanted.ridge, channels, sides, wanted.columns)
    return None


def factors(wanted: Wanted, weight: torch.Tensor, inputs: Inputs | None) -> tuple[torch.Tensor, torch.Tensor]:
    """U and V of a weight, as a chain's layers have them.

    Args:
        wanted: the dictionary.
        weight: float64 [n_h, n].
        inputs: of the layer, or None: then V fits the weight itself, else the layer's outputs on these inputs.

    Returns:
        float64 [J a, n] and [n_h, a].

    Raises:
        TersorError: there are too few inputs, or the rule cannot be computed.
    """
    second = None if inputs is None else damped(inputs.second)
    parts = weight.chunk(wanted.columns)
    if wanted.name == "learned":
        pairs = [learned(part, wanted.atoms, second) for part in parts]
    else:
        rule = rule_of(wanted, weight.shape[1])
        if rule is None:
            assert inputs is not None
            measured = covariance_atoms if wanted.name == "covariance" else centres
            every = [measured(wanted, inputs, j) for j in range(wanted.columns)]
        else:
            shape = (wanted.columns * wanted.atoms, weight.shape[1])
            every = list(torch.from_numpy(make(rule, shape)).to(weight).chunk(wanted.columns))
        pairs = [(atoms, fit(atoms, part, second)) for atoms, part in zip(every, parts, strict=True)]
    return torch.cat([u for u, _ in pairs]), torch.cat([v for _, v in pairs])


def fit(atoms: torch.Tensor, weight: torch.Tensor, second: torch.Tensor | None = None) -> torch.Tensor:
    """The V with the least mean squared error of the layer's outputs, E |x W - x U V|^2; or of W, without moments.

    Args:
        atoms: [a, n].
        weight: [h, n].
        second: E[x x^T], [n, n], or None for I.

    Returns:
        [h, a]; V is its transpose.
    """
    seen = atoms if second is None else atoms @ second
    gram = seen @ atoms.T
    gram.diagonal().add_(_TINY * gram.diagonal().mean() + 1e-30)  # atoms may be copies of each other, inputs all zero
    return torch.linalg.solve(gram, seen @ weight.T).T


def damped(second: torch.Tensor) -> torch.Tensor:
    """Moments with `DAMPING`."""
    return second + DAMPING * second.diagonal().mean() * torch.eye(len(second)).to(second)


def learned(weight: torch.Tensor, rank: int, second: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """U [rank, n] and V [h, rank] with the least error: of W by its SVD, or of x W by the outputs' main components.

    The latter is E |x W - x W Q Q^T|^2 with Q the leading eigenvectors of W^T E[x x^T] W (ours; an SVD where E[x x^T]
    is I). Rows of U are as long as columns of V.
    """
    if second is None:
        return truncated_svd(weight, rank)
    q = torch.linalg.eigh(weight @ second @ weight.T).eigenvectors.flip(1)[:, :rank]
    q = q * signs_of(q)
    u = q.T @ weight
    length = u.norm(dim=1).clamp(min=1e-150).sqrt()
    return u / length[:, None], q * length


def covariance_atoms(wanted: Wanted, inputs: Inputs, column: int) -> torch.Tensor:
    """(K[s, s] + ridge I)^-1 K[s, :] with K the inputs' covariance over its mean diagonal: [a, n]."""
    kernel = inputs.covariance
    kernel = kernel / kernel.diagonal().mean().clamp(min=1e-300)
    chosen = torch.from_numpy(subset(wanted.seed, column, wanted.atoms, len(kernel))).to(kernel.device)
    within = kernel[chosen][:, chosen]
    within.diagonal().add_(wanted.ridge)
    return torch.linalg.solve(within, kernel[chosen])


def centres(wanted: Wanted, inputs: Inputs, column: int) -> torch.Tensor:
    """Centres of the layer's inputs, of length 1: [a, n]."""
    sample = inputs.sample
    if sample is None or len(sample) < wanted.atoms:
        seen = 0 if sample is None else len(sample)
        raise TersorError(f"k-means for {wanted.atoms} atoms has {seen} inputs; give more data, or a smaller share")
    found = kmeans(sample.contiguous(), wanted.atoms, np.random.default_rng([wanted.seed, column])).double()
    return found / found.norm(dim=1, keepdim=True).clamp(min=1e-30)
