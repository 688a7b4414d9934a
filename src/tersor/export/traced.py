"""A torch module as an ONNX graph whose parameters are still open: inputs, by their names in the state dict."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tersor.errors import TersorError
from tersor.export.graph import MISSING, require_onnx

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn

NEEDED_OPSET, INT8_OPSET = 11, 13
"""ScatterElements, and DequantizeLinear by rows, are there from here on."""
DEFAULT_OPSET = 18
_FOLDED = 1024
"""Bytes of the largest constant that simplifying may make: masks and tables of angles stay computed."""


def check_opset(opset: int, form: str) -> None:
    """Make sure that weights in this form can be said in this opset.

    Raises:
        TersorError: it cannot.
    """
    needed = {"codes": NEEDED_OPSET, "int8": INT8_OPSET}.get(form, 0)
    if opset < needed:
        raise TersorError(
            f"opset {opset} is too old to decode weights in the graph; take {needed} or newer, or --dense "
            "(onnx.version_converter makes a newer file of an old one)"
        )


def trace(model: nn.Module, inputs: Sequence[torch.Tensor], opset: int) -> onnx.ModelProto:
    """The graph of a module in evaluation mode, with dense initializers, not optimised: nothing is folded or renamed.

    Raises:
        TersorError: packages are missing, or torch cannot export the module (its own words follow).
    """
    require_onnx()
    import torch

    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise TersorError(MISSING) from error
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                model, tuple(inputs), dynamo=True, optimize=False, opset_version=opset, verbose=False
            )
    except Exception as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise TersorError(f"torch cannot export {type(model).__name__} to ONNX: {said[0][:300]}") from error
    finally:
        model.train(training)
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    return proto


def simplify(proto: onnx.ModelProto, opened: set[str]) -> onnx.ModelProto:
    """The graph optimised by onnxscript with these initializers as inputs: what depends on them cannot be folded."""
    import onnxscript.optimizer
    from onnx import helper

    shapes = {i.name: i for i in proto.graph.initializer if i.name in opened}
    for name, tensor in shapes.items():
        proto.graph.initializer.remove(tensor)
        proto.graph.input.append(helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims)))
    with _quiet():
        simple: onnx.ModelProto = onnxscript.optimizer.optimize(proto, output_size_limit=_FOLDED)
    return simple


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells its own progress and worries in many lines; errors come through as exceptions."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def example(text: str, dtype: str = "float32") -> Any:
    """An input of a shape written `1x3x32x32`, or `1x16:int64` where it is not float32.

    Raises:
        TersorError: it is not written so.
    """
    import torch

    shape, _, kind = text.partition(":")
    dtype = kind or dtype
    found = getattr(torch, dtype, None)
    parts = shape.lower().split("x") if shape else []
    if not isinstance(found, torch.dtype) or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise TersorError(f"--input {text} is no shape; write 1x3x32x32, or 1x16:int64 for integers")
    size = [int(p) for p in parts]
    if found.is_floating_point or found.is_complex:
        return torch.randn(size, generator=torch.Generator().manual_seed(0)).to(found)
    return torch.ones(size, dtype=found)
