"""Inputs of a layer on a grid of integers, as a runtime of integers would have them: scale and zero point in a buffer.

The buffer `input_grid` [3] of a layer holds scale, zero point and bits. It is part of the state dict, so of the file; a
layer of a fresh model gets its grid when a file that has one is loaded into it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

BUFFER = "input_grid"


def quantize_inputs(module: nn.Module, grid: torch.Tensor) -> None:
    """Let a module see its first input rounded to a grid, gradient straight through within it.

    Args:
        module: a layer with one tensor as its first argument.
        grid: float32 [3]: scale, zero point, bits; integers go from 0 to 2**bits - 1.
    """
    known = BUFFER in module._buffers
    module.register_buffer(BUFFER, grid)
    if not known:
        module.register_forward_pre_hook(_rounded)


def _rounded(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    scale, zero, bits = module.get_buffer(BUFFER).tolist()
    x = torch.fake_quantize_per_tensor_affine(args[0].float(), scale, int(zero), 0, (1 << int(bits)) - 1)
    return (x.to(args[0].dtype), *args[1:])


def grid_of(low: float, high: float, bits: int) -> torch.Tensor:
    """The grid of inputs between two numbers; zero is on it exactly (padding must stay zero)."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / ((1 << bits) - 1), 1e-12)
    return torch.tensor([scale, min(max(round(-low / scale), 0), (1 << bits) - 1), bits], dtype=torch.float32)
