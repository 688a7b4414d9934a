"""What the user's functions and models are asked for: a score, a copy."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tersor.errors import TersorError
from tersor.user.faults import described

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def named(where: str, what: str) -> Iterator[None]:
    """Errors of the user's function `what` as one line that begins with `where`."""
    try:
        yield
    except MemoryError:
        raise
    except TersorError as error:
        raise type(error)(f"{where}: {error}") from error
    except Exception as error:
        raise TersorError(f"{where}: {what} raised {described(error)}; mend that first") from error


def scored(evaluate: Callable[[nn.Module], float], model: nn.Module, where: str) -> float:
    """What the user's function says of a network, which is put in eval mode.

    Raises:
        TersorError: it raised, or gave no finite number; `where` begins the message.
    """
    with named(where, "evaluate"):
        given = evaluate(model.eval())
    try:
        score = float(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TersorError(f"{where}: evaluate returned a {type(given).__name__}; return one number") from error
    if not math.isfinite(score):
        raise TersorError(f"{where}: evaluate returned {score}; return a finite number, higher for better")
    return score


def copied(model: nn.Module) -> nn.Module:
    """A copy of the user's model, so that nothing done to it reaches the original.

    Raises:
        TersorError: it cannot be copied.
    """
    try:
        return copy.deepcopy(model)
    except MemoryError:
        raise
    except Exception as error:
        cure = "make copy.deepcopy of it work"
        if "deepcopy protocol" in str(error):  # weights that a forward hook computes, as the old weight_norm does
            cure = (
                "drop tensors that are kept from a forward pass, and for weights that are computed use "
                "torch.nn.utils.parametrizations, or end with prune.remove or remove_weight_norm"
            )
        raise TersorError(f"{type(model).__name__} cannot be copied ({described(error)}); {cure}") from error
