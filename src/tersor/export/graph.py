"""Nodes and initializers of an ONNX graph, written one after the other under short names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tersor.errors import TersorError

if TYPE_CHECKING:
    import onnx

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
MISSING = 'ONNX needs more packages: pip install "tersor[onnx]"'


def require_onnx() -> None:
    """Make sure that onnx is there.

    Raises:
        TersorError: it is not.
    """
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise TersorError(MISSING) from error


class Names:
    """Short names that are not taken: every name stands in a file at least twice."""

    def __init__(self, taken: set[str]) -> None:
        self._taken, self._next = taken, 0

    def __call__(self) -> str:
        """The next one."""
        while True:
            text, rest = "", self._next
            while rest or not text:
                rest, digit = divmod(rest, len(_DIGITS))
                text = _DIGITS[digit] + text
            self._next += 1
            if text not in self._taken:
                return text


class Builder:
    """Grows a list of nodes and initializers.

    Attributes:
        nodes: in an order that computes.
        initializers: constants, equal ones once.
    """

    def __init__(self, names: Names, opset: int) -> None:
        self.names, self.opset = names, opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._seen: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def constant(self, array: NDArray[Any]) -> str:
        """An initializer with these values."""
        from onnx import numpy_helper

        array = np.asarray(array)  # of shape (), too
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._seen:
            self._seen[key] = self.names()
            self.initializers.append(
                numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), self._seen[key])
            )
        return self._seen[key]

    def add(self, kind: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        """A node with one output."""
        name = out or self.names()
        self._node(kind, inputs, [name], **attributes)
        return name

    def split(self, value: str, sizes: Sequence[int], outs: Sequence[str] | None = None) -> list[str]:
        """Parts of these sizes along the first axis, under these names, or new ones."""
        names = [self.names() for _ in sizes] if outs is None else list(outs)
        if self.opset < 13:  # sizes were an attribute
            self._node("Split", [value], names, axis=0, split=list(sizes))
        else:
            self._node("Split", [value, self.integers(*sizes)], names, axis=0)
        return names

    def _node(self, kind: str, inputs: Sequence[str], outs: Sequence[str], **attributes: Any) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, list(inputs), list(outs), **attributes))

    def integers(self, *values: int) -> str:
        """A constant of int64 [n]: shapes, bounds, sizes."""
        return self.constant(np.array(values, dtype=np.int64))
