"""Pairs of layers with nothing between them but what treats every channel alike: where neurons can be merged.

Ours: the paper speaks of plain stacks of layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tersor.passes.flow import Flow, operation
from tersor.passes.fold import layer_before, rows_of
from tersor.passes.sites import CONVOLUTIONS

_HOMOGENEOUS = {"relu", "leakyrelu", "identity", "prelu", "contiguous", "clone"}
"""f(c x) = c f(x) for c above 0."""
_ELEMENTWISE = {
    "relu6", "elu", "celu", "sigmoid", "tanh", "hardtanh", "hardsigmoid", "softplus", "softsign", "logsigmoid",
    "silu", "gelu", "mish", "hardswish",
}  # fmt: skip
_POOLS = ("maxpool", "avgpool", "adaptivemaxpool", "adaptiveavgpool", "lppool")


@dataclass(frozen=True)
class Pair:
    """A layer, what is behind it, and the layer that alone takes what comes out.

    Attributes:
        layer, following: paths of the two layers.
        norm: path of a batch norm right behind the first, or an empty text.
        homogeneous: whether everything between answers c x with c times its answer to x, for c above 0.
    """

    layer: str
    following: str
    norm: str
    homogeneous: bool


def pair_from(flow: Flow, node: fx.Node, exclude: tuple[str, ...] = ()) -> tuple[Pair | None, str]:
    """The pair that a layer's node begins, or why there is none, in a few words.

    The values between are followed in one of two states: with positions (a convolution's output, [N, C, ...]), or flat
    ([N, C], [N, C * positions] channel by channel, or [..., C] of a linear layer).
    """
    layer = flow.module(node)
    assert isinstance(layer, (nn.Linear, *CONVOLUTIONS))
    dims = 0 if isinstance(layer, nn.Linear) else len(layer.kernel_size)
    flat, homogeneous, norm = dims == 0, True, ""
    at = node
    while True:
        readers = flow.readers(at)
        if len(readers) != 1:
            return None, f"what comes out of it goes to {len(readers)} places"
        step = readers[0]
        if step.op == "output":
            return None, "it is the last"
        module = flow.module(step)
        if isinstance(module, (nn.Linear, *CONVOLUTIONS)):
            why = _unfit(flow, node, step, flat, exclude)
            return (None, why) if why else (Pair(str(node.target), str(step.target), norm, homogeneous), "")
        if isinstance(module, _BatchNorm):
            _, why = layer_before(flow, step, exclude)
            if why or at is not node:
                return None, f"the batch norm behind it cannot be folded: {why or 'it is not right behind'}"
            norm = str(step.target)
        else:
            change = _between(flow, step, module, dims, flat)
            if change is None:
                return None, f"what comes out of it goes into {_called(step, module)}"
            flat, homogeneous = change[0], homogeneous and change[1]
        at = step


def _unfit(flow: Flow, node: fx.Node, step: fx.Node, flat: bool, exclude: tuple[str, ...]) -> str:
    """Why the two layers cannot be a pair's."""
    one: Any = flow.module(node)
    two: Any = flow.module(step)
    if getattr(one, "groups", 1) != 1 or getattr(two, "groups", 1) != 1:
        return "it or the next layer has groups"
    if flat != isinstance(two, nn.Linear):
        return "the next layer does not take its channels as they come"
    takes = two.in_features if flat else two.in_channels
    positions = flat and not isinstance(one, nn.Linear)
    if takes % rows_of(one) or (takes != rows_of(one) and not positions):
        return f"the next layer takes {takes} values from its {rows_of(one)}"
    for path in (str(node.target), str(step.target)):
        why = flow.why_not(path, exclude)
        if why:
            return why if path == str(node.target) else f"the next layer cannot be changed: {why}"
    return ""


def _called(step: fx.Node, module: nn.Module | None) -> str:
    return f"a {type(module).__name__}" if module is not None else f"'{operation(step)}'"


def _between(flow: Flow, step: fx.Node, module: nn.Module | None, dims: int, flat: bool) -> tuple[bool, bool] | None:
    """Whether values are flat behind a step, and whether it is homogeneous; None if it may mix or tell channels."""
    if len(flow.sources(step)) != 1 or step.op == "get_attr":
        return None
    name = (type(module).__name__ if module is not None else operation(step)).lower().replace("_", "")
    if isinstance(module, nn.PReLU) and module.num_parameters != 1:
        return None
    if name in _HOMOGENEOUS and not (name == "prelu" and module is None):
        return flat, True
    if name in _ELEMENTWISE:
        return flat, False
    if name.startswith(("dropout", "featuredropout")):
        return flat, True
    if not flat and name.rstrip("123d").startswith(_POOLS):
        return flat, not name.startswith("lppool")
    if not flat and name == "pad":
        return (flat, True) if _pads_positions(step, dims) else None
    if not flat and name == "mean":
        dim = step.kwargs.get("dim", step.args[1] if len(step.args) > 1 else None)
        given = {d % (dims + 2) for d in (dim if isinstance(dim, (tuple, list)) else [dim]) if isinstance(d, int)}
        keep = step.kwargs.get("keepdim", step.args[2] if len(step.args) > 2 else False)
        return (not keep, True) if given == set(range(2, dims + 2)) else None
    if _flattens(step, module, name):
        return True, True
    return None


def _pads_positions(step: fx.Node, dims: int) -> bool:
    """Whether a pad leaves channels alone, with zeros for positions."""
    given = dict(zip(("pad", "mode", "value"), step.args[1:], strict=False)) | dict(step.kwargs)
    sizes = given.get("pad", ())
    zeros = given.get("mode", "constant") == "constant" and given.get("value") in (None, 0)
    return isinstance(sizes, (tuple, list)) and len(sizes) <= 2 * dims and zeros


def _flattens(step: fx.Node, module: nn.Module | None, name: str) -> bool:
    """Whether a step makes [N, ...] to [N, all the rest], with no size of it written in the network."""
    if isinstance(module, nn.Flatten):
        return module.start_dim == 1 and module.end_dim == -1
    if name == "flatten":
        start = step.kwargs.get("start_dim", step.args[1] if len(step.args) > 1 else 0)
        end = step.kwargs.get("end_dim", step.args[2] if len(step.args) > 2 else -1)
        return bool(start == 1 and end == -1)
    if name in ("view", "reshape"):
        sizes = step.args[1:]
        if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
            sizes = tuple(sizes[0])
        return len(sizes) == 2 and bool(sizes[1] == -1 and sizes[0] != -1)
    return False
