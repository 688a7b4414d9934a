"""Packed groups as ONNX nodes: Gather codewords, Add them, Mul by scales, in the order and the types of the format.

Every product and sum is rounded by itself, as a reader of the file rounds it, so that the graph decodes the file's
weights bit for bit; but for those that stand in a basis: there a matrix product adds in its own order, and weights
differ in the last bits. (Products one by one would be exact, and take runtimes that fold constants twice as long.)
"""

from __future__ import annotations

import numpy as np

from tersor.export.graph import Builder
from tersor.lattice.basis import SCALE
from tersor.packed.groups import PackedGroup, PackedScalars
from tersor.packed.tuples import ESCAPE, TupleClass, Tuples
from tersor.packed.words import Words, powers

_INT32, _INT64, _FLOAT, _BOOL = 6, 7, 1, 9  # onnx.TensorProto's numbers of types


def decode(graph: Builder, group: PackedGroup | PackedScalars, outs: dict[int, str]) -> None:
    """Nodes that decode the tensors of a group to float32 under the names `outs` (by position in the archive)."""
    if isinstance(group, PackedScalars):
        _scalars(graph, group, outs)
        return
    counts = [s.rows * s.cols for s in group.vectors]
    total = None
    if group.codes:
        assert group.entries is not None and group.units is not None
        for word, entries, unit in zip(group.codes, group.entries, group.units, strict=True):
            book = graph.add("Mul", _float(graph, graph.constant(entries)), graph.constant(unit))
            part = graph.add("Gather", book, _codes(graph, word))
            total = part if total is None else graph.add("Add", total, part)
    whole = total is None and group.basis is None and group.vectors[0].dim == 1  # planes are the tensors themselves
    if group.levels is not None:
        assert group.values is not None
        points = graph.constant(group.values)
        if whole:
            _finish(graph, group, _apart(graph, group.levels, points), outs)
            return
        rows = _rows(graph, group.levels, points)
        part = _vectors(graph, group, rows, sum(counts))
        total = part if total is None else graph.add("Add", total, part)
    assert total is not None
    alive = [t for t, n in enumerate(counts) if n]
    split = graph.split(total, [counts[t] for t in alive])
    parts = dict(zip(alive, split, strict=True))
    _finish(graph, group, [parts.get(t) for t in range(len(counts))], outs)


def _codes(graph: Builder, word: Words) -> str:
    """Codes of a codebook as int32, or as int64 from words of several."""
    data = graph.constant(word.data)
    if word.each == 1:
        return graph.add("Cast", data, to=_INT32)
    places = graph.constant(powers(word.size, word.each))
    column = graph.add("Reshape", data, graph.integers(-1, 1))
    codes = graph.add("Mod", graph.add("Div", column, places), graph.constant(np.array(word.size, dtype=np.int64)))
    flat = graph.add("Reshape", codes, graph.integers(-1))
    return graph.add("Slice", flat, graph.integers(0), graph.integers(word.count))


def _rows(graph: Builder, packed: Tuples, values: str) -> list[str]:
    """All rows as float32 [n]: each class is gathered at once, and split."""
    out: dict[int, str] = {}
    for kind in packed.classes:
        book, codes = _class(graph, kind, values)
        flat = graph.add("Gather", book, codes)
        if kind.size:
            flat = graph.add("Reshape", flat, graph.integers(-1))
        sizes, names = [], []
        for r in kind.rows:
            length = packed.shapes[r][1]
            out[r] = graph.names()
            sizes.append(length)
            names.append(out[r])
            if short := -length % max(kind.size, 1):  # what fills the last tuple
                sizes.append(short)
                names.append(graph.names())
        graph.split(flat, sizes, names)
    return [out[r] for r in range(len(packed.shapes))]


def _apart(graph: Builder, packed: Tuples, values: str) -> list[str]:
    """All rows as float32, in any shape: codes are split, which are smaller, and each row is gathered by itself."""
    out: dict[int, str] = {}
    for kind in packed.classes:
        book, codes = _class(graph, kind, values)
        size = max(kind.size, 1)
        lengths = [packed.shapes[r][1] for r in kind.rows]
        parts = [codes]
        if len(lengths) > 1:
            parts = graph.split(codes, [-(-length // size) for length in lengths])
        for r, length, part in zip(kind.rows, lengths, parts, strict=True):
            out[r] = graph.add("Gather", book, part)
            if length % size:
                flat = graph.add("Reshape", out[r], graph.integers(-1))
                out[r] = graph.add("Slice", flat, graph.integers(0), graph.integers(length))
    return [out[r] for r in range(len(packed.shapes))]


def _class(graph: Builder, kind: TupleClass, values: str) -> tuple[str, str]:
    """The codebook of a class, float32 [K, size] (or [K]), and its codes, int32, escapes put right."""
    codes = graph.add("Cast", graph.constant(kind.codes), to=_INT32)
    if kind.book is None:
        return values, codes
    if len(kind.escaped):
        mark = graph.add("Equal", codes, graph.constant(np.array(ESCAPE, dtype=np.int32)))
        where = graph.add("Reshape", graph.add("NonZero", mark), graph.integers(-1))
        escaped = graph.add("Cast", graph.constant(kind.escaped), to=_INT32)
        codes = graph.add("ScatterElements", codes, where, escaped, axis=0)
    return graph.add("Gather", values, graph.add("Cast", graph.constant(kind.book), to=_INT32)), codes


def _vectors(graph: Builder, group: PackedGroup, rows: list[str], count: int) -> str:
    """Vectors [count, dim] of all tensors from their coefficients, by the basis if there is one."""
    dim = group.vectors[0].dim
    alive = [t for t, s in enumerate(group.vectors) if s.rows]
    columns = [[rows[t * dim + j] for t in alive] for j in range(dim)]
    if group.basis is None:
        parts = [graph.add("Concat", *column, axis=0) if len(column) > 1 else column[0] for column in columns]
        tall = [graph.add("Reshape", part, graph.integers(count, 1)) for part in parts]
        return tall[0] if dim == 1 else graph.add("Concat", *tall, axis=1)
    scale = graph.constant(np.array(SCALE, dtype=np.float32))
    basis = graph.add("Div", _float(graph, graph.constant(group.basis)), scale)
    joined = graph.add("Concat", *(row for column in columns for row in column), axis=0)
    coefficients = graph.add("Reshape", joined, graph.integers(dim, count))
    return graph.add("Gemm", coefficients, basis, transA=1, transB=1)


def _finish(graph: Builder, group: PackedGroup, parts: list[str | None] | list[str], outs: dict[int, str]) -> None:
    """Scales, what fills the last vector, zeros of masks, and each tensor's shape."""
    for t, (i, part) in enumerate(zip(group.tensors, parts, strict=True)):
        shape, vectors = group.shapes[t], group.vectors[t]
        count = int(np.prod(shape))
        if part is None:  # nothing survives
            zeros = graph.add(
                "Expand", graph.constant(np.zeros(1, dtype=np.float32)), graph.integers(*shape), out=outs[i]
            )
            del zeros
            continue
        if group.scales is not None:
            scales = group.scales[t]
            if scales.size == 1:
                part = graph.add("Mul", part, graph.constant(scales.reshape(())))
            else:
                lines = graph.add("Reshape", part, graph.integers(vectors.rows, vectors.cols * vectors.dim))
                part = graph.add("Mul", lines, graph.constant(scales.reshape(-1, 1)))
        survivors = count if group.masks is None else int(np.count_nonzero(group.masks[t]))
        if vectors.size > survivors:
            flat = graph.add("Reshape", part, graph.integers(-1))
            part = graph.add("Slice", flat, graph.integers(0), graph.integers(survivors))
        if survivors < count and group.masks is not None:
            part = _spread(graph, part, group.masks[t])
        graph.add("Reshape", part, graph.integers(*shape), out=outs[i])


def _spread(graph: Builder, run: str, mask: np.ndarray) -> str:
    """A run of survivors at the places where a mask is set, zeros elsewhere, flat."""
    packed = graph.constant(np.packbits(mask.reshape(-1), bitorder="little"))
    column = graph.add("Reshape", graph.add("Cast", packed, to=_INT32), graph.integers(-1, 1))
    places = graph.constant((1 << np.arange(8)).astype(np.int32))
    bits = graph.add("Mod", graph.add("Div", column, places), graph.constant(np.array(2, dtype=np.int32)))
    flat = graph.add("Reshape", bits, graph.integers(-1))
    where = graph.add("Reshape", graph.add("NonZero", flat), graph.integers(-1))
    zeros = graph.add("Expand", graph.constant(np.zeros(1, dtype=np.float32)), graph.integers(mask.size))
    survivors = graph.add("Reshape", run, graph.integers(-1))
    return graph.add("ScatterElements", zeros, where, survivors, axis=0)


def _scalars(graph: Builder, group: PackedScalars, outs: dict[int, str]) -> None:
    """Shared values, or integers less their zero points times their scales."""
    rows = _apart(graph, group.symbols, graph.constant(group.values))
    for t, (i, part) in enumerate(zip(group.tensors, rows, strict=True)):
        if group.grids is not None:
            scales, zeros = (array.reshape(-1, 1) for array in group.grids[t])
            part = graph.add("Reshape", part, graph.integers(len(scales), -1))
            if zeros.any():
                part = graph.add("Sub", part, graph.constant(zeros))
            part = graph.add("Mul", part, graph.constant(scales))
        graph.add("Reshape", part, graph.integers(*group.shapes[t]), out=outs[i])


def _float(graph: Builder, name: str) -> str:
    return graph.add("Cast", name, to=_FLOAT)
