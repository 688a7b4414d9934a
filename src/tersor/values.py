"""Values on their way to a coder: as float32, within what can be coded; and the weights of their errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tersor.checkpoint.survey import to_float32
from tersor.errors import TersorError
from tersor.keep import CURE

if TYPE_CHECKING:
    import torch

LARGEST_VALUE = 2.0**120


def checked(source: str, name: str, tensor: torch.Tensor) -> NDArray[np.float32]:
    """Values to be coded, as contiguous float32.

    Raises:
        TersorError: some are beyond what can be coded; names the tensor.
    """
    values = to_float32(tensor)
    if str(tensor.dtype) == "torch.float64" and ((tensor != 0).numpy() & (values == 0)).any():
        raise TersorError(f"{source}: {name} holds values too small for float32; {CURE}")
    check_peak(source, name, float(max(values.max(initial=0), -values.min(initial=0))))
    return np.ascontiguousarray(values)


def check_peak(source: str, name: str, peak: float) -> None:
    """Raises TersorError where the largest magnitude of a tensor, NaN if a value is, is beyond what can be coded."""
    if not peak <= LARGEST_VALUE:
        raise TersorError(f"{source}: {name} holds NaN, infinity or values beyond 1e36; {CURE}")


def importance_of(
    coded: Mapping[str, tuple[int, ...]], owner: Mapping[str, str], given: Mapping[str, torch.Tensor]
) -> dict[str, NDArray[np.float32]]:
    """Importance of the coded tensors (name to shape) that have one, divided by its mean over all of them.

    Args:
        coded: shapes by name.
        owner: of every tensor, the name of the one it is tied to, or its own.
        given: importance by name.

    Raises:
        TersorError: a shape differs, or a value is negative, NaN or infinite, or all are zero.
    """
    import torch

    weights: dict[str, NDArray[np.float32]] = {}
    given = {owner[name]: weight for name, weight in given.items() if name in owner}
    for name, shape in coded.items():
        if name not in given:
            continue
        weight = given[name].detach().to(device="cpu", dtype=torch.float32).contiguous().numpy()
        check_importance(name, weight.shape, shape, weight)
        weights[name] = weight
    count = sum(w.size for w in weights.values())
    mean = sum(float(w.sum(dtype=np.float64)) for w in weights.values()) / max(count, 1)
    if count and mean == 0:
        raise TersorError("importance is zero everywhere; leave it out or give some tensor a weight")
    return {name: weight / np.float32(mean) for name, weight in weights.items()}


def check_importance(
    name: str, given: tuple[int, ...], shape: tuple[int, ...], values: NDArray[np.float32] | None = None
) -> None:
    """Raises TersorError where the importance of a tensor has another shape than it, or a value that is no weight."""
    if given != shape:
        raise TersorError(f"importance of {name} has shape {given}, the tensor {shape}; make them equal")
    if values is not None and not (np.isfinite(values).all() and values.min(initial=0) >= 0):
        raise TersorError(f"importance of {name} has values that are negative, NaN or infinite; mend them")
