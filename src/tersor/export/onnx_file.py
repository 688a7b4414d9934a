"""An ONNX file that holds an archive's codes: initializers give way to the nodes that decode them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tersor.archive import Archive
from tersor.errors import TersorError
from tersor.export.close_graph import check_no_copies, close, compact
from tersor.export.graph import Builder, Names, require_onnx
from tersor.export.open_graph import given, opset_of, taken_names, traced
from tersor.export.traced import DEFAULT_OPSET, check_opset
from tersor.export.weights import codes_in, int8_in, left_dense
from tersor.files import atomic_output

if TYPE_CHECKING:
    import torch
    from torch import nn

FORMS = ("codes", "int8", "dense")
_LIMIT = (1 << 31) - 1  # protobuf's


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        size: bytes of the file.
        codes: bytes of packed codes and codebooks in it (of int8 weights and scales, for that form).
        coded: tensors that are decoded in the graph.
        dense: tensors of the archive that are plain initializers, and why: by name.
        graph: bytes of nodes and of everything that is no initializer.
    """

    size: int
    codes: int
    coded: tuple[str, ...]
    dense: dict[str, str]
    graph: int


def export_onnx(
    archive: Archive,
    out: str | os.PathLike[str],
    model: nn.Module | None = None,
    inputs: Sequence[torch.Tensor] | None = None,
    *,
    graph: str | os.PathLike[str] | None = None,
    form: str = "codes",
    opset: int = DEFAULT_OPSET,
    force: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> Exported:
    """Write an ONNX file of a network whose weights are decoded from the archive's codes by the graph itself.

    Args:
        archive: what `compress` made.
        out: the .onnx file to write.
        model: of the class whose parameters were compressed; it is not changed. Its graph is traced by torch.
        inputs: example inputs of the model, in order.
        graph: instead of `model` and `inputs`, the .onnx file whose initializers were compressed.
        form: `codes`; `int8`: a byte per weight and a scale per row, by DequantizeLinear, for runtimes that cannot
            gather (an approximation of the archive's weights); or `dense`.
        opset: of the graph that torch traces.
        force: replace `out`.
        tell: takes lines for a person: tensors that stay dense.

    Raises:
        TersorError: the model or the graph does not fit the archive, torch cannot export it, the opset is too old, an
            operator takes a weight in another form (named), or packages are missing.
    """
    require_onnx()
    if form not in FORMS:
        raise TersorError(f"there is no form {form!r}; take {', '.join(FORMS)}")
    if (model is None) == (graph is None):
        raise TersorError("give a model with example inputs, or the .onnx file the archive was made of: one of them")
    if model is not None:
        check_opset(opset, form)
        proto, names, kinds = traced(archive, model, inputs or (), opset)
    else:
        assert graph is not None
        proto, names, kinds = given(archive, graph, form)
    state = archive.state_dict()
    build = Builder(Names(taken_names(proto.graph)), opset_of(proto))
    opened = set(names)
    if form == "codes":
        coded, size = codes_in(archive, build, names, kinds)
    elif form == "int8":
        coded, size = int8_in(archive, build, names, state, kinds)
    else:
        coded, size = set(), 0
    close(proto, build, {name: state[names[name]] for name in sorted(opened - coded)}, kinds)
    dense = left_dense(archive, names, coded, form)
    for name, why in dense.items():
        tell(f"{name} stays dense: {why}")
    compact(proto)
    if form != "dense":
        check_no_copies(proto, archive, set(names) - coded, state)
    data = proto.SerializeToString()
    if len(data) > _LIMIT:
        raise TersorError(
            f"the graph takes {len(data):,} B, more than an ONNX file can hold; export parts of the network"
        )
    with atomic_output(out, force=force) as file:
        file.write(data)
    held = sum(len(i.raw_data) for i in proto.graph.initializer)
    return Exported(len(data), size, tuple(sorted(names[n] for n in coded)), dense, len(data) - held)
