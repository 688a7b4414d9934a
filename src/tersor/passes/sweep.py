"""The backward sweep of Optimal Brain Damage: second derivatives of a multilayer perceptron as its authors get them.

Source: LeCun, Denker and Solla, "Optimal Brain Damage", NIPS 1989, section 2.2. The text that is in circulation prints
a minus before f'' dE/dx in the rule for hidden units; with the plus of this file the last two layers agree with the
exact Hessian.
"""

from __future__ import annotations

import torch
from torch import nn

from tersor.errors import TersorError


def backward_sweep(
    network: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, *, levenberg: bool = False
) -> dict[str, torch.Tensor]:
    """d2E/dw2 of each weight and bias by parameter name, E = sum over outputs of (target - output)^2, mean over items.

    Cross terms between units of a layer are dropped: exact for the last two layers of weights (with outputs that are
    units of their own), an approximation before them.

    Args:
        network: nn.Sequential of Linear, Tanh, Sigmoid, ReLU, Identity, Dropout (off) and Flatten.
        inputs: [items, ...].
        targets: [items, outputs].
        levenberg: the Levenberg-Marquardt form: terms with f'' are dropped, and nothing is negative.

    Raises:
        TersorError: another kind of module.
    """
    steps = list(network.named_modules(remove_duplicate=False)) if isinstance(network, nn.Sequential) else []
    layers = [(name, m) for name, m in steps if name and not isinstance(m, nn.Sequential)]
    if not layers:
        raise TersorError("the backward sweep is for nn.Sequential of linear layers; use passes.curvature for others")
    inputs = inputs.detach()
    before, after = [], [inputs]
    with torch.no_grad():
        for name, module in layers:
            if not isinstance(module, (nn.Linear, nn.Tanh, nn.Sigmoid, nn.ReLU, nn.Identity, nn.Dropout, nn.Flatten)):
                raise TersorError(f"the backward sweep knows no {type(module).__name__} ({name}); use gauss-newton")
            before.append(after[-1])
            kept = isinstance(module, nn.Dropout)
            after.append(after[-1] if kept else module(after[-1]))
        output = after[-1]
        slope, bend = 2 * (output - targets), torch.full_like(output, 2.0)  # dE/dx, d2E/dx2 of the output
        found = {}
        for (name, module), x, y in zip(reversed(layers), reversed(before), reversed(after[1:]), strict=True):
            if isinstance(module, nn.Linear):
                found[f"{name}.weight"] = bend.T @ x.square() / len(x)
                if module.bias is not None:
                    found[f"{name}.bias"] = bend.mean(0)
                bend, slope = bend @ module.weight.square(), slope @ module.weight
            elif isinstance(module, nn.Flatten):
                bend, slope = bend.reshape(x.shape), slope.reshape(x.shape)
            elif not isinstance(module, (nn.Identity, nn.Dropout)):
                first, second = _derivatives(module, x, y)
                bend = first.square() * bend + (0 if levenberg else second * slope)
                slope = first * slope
    return found


def _derivatives(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """f' and f'' where the activation took x to y."""
    if isinstance(module, nn.Tanh):
        first = 1 - y.square()
        return first, -2 * y * first
    if isinstance(module, nn.Sigmoid):
        first = y * (1 - y)
        return first, first * (1 - 2 * y)
    return (x > 0).to(x.dtype), torch.zeros_like(x)
