"""A torch module as an ONNX graph whose parameters are still open: inputs, by their names in the state dict."""

from __future__ import annotations

import contextlib
import io
import logging
import re
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
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if opset > newest:
        raise TersorError(f"opset {opset} is newer than this onnx knows; take {newest} or older")
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
        with torch.no_grad(), quiet():
            program = torch.onnx.export(
                model, tuple(inputs), dynamo=True, optimize=False, opset_version=opset, verbose=False
            )
    except Exception as error:
        raise TersorError(f"torch cannot export {type(model).__name__} to ONNX: {said(error)}") from error
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
    with quiet():
        simple: onnx.ModelProto = onnxscript.optimizer.optimize(proto, output_size_limit=_FOLDED)
    return simple


def said(error: BaseException) -> str:
    """The first line of what went wrong in the end, without colours."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:300]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters tell their own progress and worries in many lines; errors come through as exceptions."""
    logs = [logging.getLogger(name) for name in _LOUD]
    before = [log.disabled for log in logs]
    for log in logs:
        log.disabled = True
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, state in zip(logs, before, strict=True):
            log.disabled = state


_LOUD = (
    "torch.onnx", "torch.onnx._internal.exporter._registration", "torch.onnx._internal.exporter._building",
    "torch._subclasses.fake_tensor", "torch.export", "torch._dynamo", "torch.fx.experimental.symbolic_shapes",
)  # fmt: skip


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
    if not isinstance(found, torch.dtype) or not all(p.isdecimal() and int(p) > 0 for p in parts):
        raise TersorError(f"--input {text} is no shape; write 1x3x32x32, or 1x16:int64 for integers")
    size = [int(p) for p in parts]
    try:
        if found.is_floating_point or found.is_complex:
            return torch.randn(size, generator=torch.Generator().manual_seed(0)).to(found)
        return torch.ones(size, dtype=found)
    except (RuntimeError, TypeError, ValueError) as error:
        raise TersorError(f"--input {text} cannot be made ({said(error)}); give a type and a size that fit") from error
