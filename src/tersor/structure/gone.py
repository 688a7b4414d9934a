"""What stands where a module was removed: an identity for a norm, zeros for a layer."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from tersor.errors import TersorError

_PASSES_ON = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.PReLU, nn.Identity)


class Gone(nn.Module):
    """Stands where a linear or convolution layer was removed: zeros of its input's shape and type."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Zeros, whatever comes, so that a residual block whose layers are all gone is its shortcut."""
        return torch.zeros_like(x)


def gone(module: nn.Module) -> nn.Module:
    """What to put in the place of a module none of whose tensors are there.

    One rule serves both ways in which passes remove modules. A batch norm folded into the layer before it is an
    identity. A residual branch removed as a whole, conv-bn-relu-conv-bn, gives zeros of the block's input's shape:
    its layers give zeros, and its norms and PReLUs, as identities, pass them on. (A norm's own answer to zeros, its
    bias, went with its tensors.)

    Raises:
        TersorError: there is no rule for this type of module.
    """
    if isinstance(module, _PASSES_ON):
        return nn.Identity()
    if isinstance(module, (nn.Linear, _ConvNd, Gone)):
        return Gone()
    raise TersorError(
        f"a {type(module).__name__} has no tensors in the file, and only layers, norms and PReLUs can be missing; "
        "give the model that the file was made from"
    )
