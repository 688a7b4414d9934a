"""What is inside an archive, tensor by tensor: for `inspect`. Symbols are decoded and counted; torch is not needed."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from tersor.archive import Archive
from tersor.checkpoint.header import ITEM_BYTES
from tersor.codec import tables
from tersor.index import DTYPES, REASONS, GroupRecord
from tersor.lattice import contexts, kernels
from tersor.lattice.trellis import TRELLISES
from tersor.representations.codes_stage import PRECISION
from tersor.representations.group import SCALES, GroupReader
from tersor.representations.made import RULES
from tersor.representations.symbols import METHODS


def describe(archive: Archive) -> dict[str, Any]:
    """Everything `inspect` shows, as plain data.

    Bits of a coded tensor are those its symbols take under the tables in the file, its mask's included; codebooks,
    tables and the index are shared and listed apart. `error_db` is the squared error over the tensor's energy, as
    measured when it was coded.

    Raises:
        ArchiveError: a section is damaged.
    """
    index = archive.index
    tensors: dict[int, dict[str, Any]] = {}
    groups = []
    errors = iter(index.errors)
    for g, record in enumerate(index.groups):
        reader = archive.group(g)
        bits, books = _group_usage(reader)
        sparsity = None if reader.sparse is None else _sparsity(reader)
        text = representation(record)
        for k, i in enumerate(record.tensors):
            half = next(errors)
            tensors[i] = {
                "representation": text,
                "group": g,
                "bytes": round(bits[k] / 8, 1),
                "bits_per_weight": round(bits[k] / math.prod(index.shapes[i]), 4),
                "error_db": None if half == 255 else -half / 2,
            }
            if sparsity is not None:
                count, mask = math.prod(index.shapes[i]), sparsity[0][k]
                tensors[i] |= {
                    "bytes": round(((0 if mask is None else mask) + bits[k]) / 8, 1),
                    "bits_per_weight": round(((0 if mask is None else mask) + bits[k]) / count, 4),
                    "zeros": sparsity[1][k],
                    "mask_bits_per_weight": None if mask is None else round(mask / count, 4),
                }
        groups.append({"representation": text, "tensors": len(record.tensors), "codebooks": books})
    for g, scalar in enumerate(index.scalars):
        first = archive.sections.firsts[len(index.groups) + g]
        groups.append({"representation": scalar.text, "tensors": len(scalar.tensors), "codebooks": []})
        for t, i in enumerate(scalar.tensors):
            half, size = next(errors), index.lengths[first + 1 + t]
            tensors[i] = {
                "representation": f"{scalar.text} as {METHODS[scalar.methods[t]]}",
                "group": len(index.groups) + g,
                "bytes": size,
                "bits_per_weight": round(8 * size / math.prod(index.shapes[i]), 4),
                "error_db": None if half == 255 else -half / 2,
            }
    for i, made in index.made:
        tensors[i] = {"representation": f"{RULES[made.rule]} rule", "error_db": None}
    for i, reason, stored in index.kept:
        size = math.prod(index.shapes[i]) * ITEM_BYTES[DTYPES[stored]]
        same = stored == index.dtypes[i]
        tensors[i] = {
            "representation": "kept" if same else f"kept as {DTYPES[stored]}",
            "reason": REASONS[reason],
            "bytes_before_compression": size,
            "error_db": None,
        }
    for i, owner in index.ties.items():
        tensors[i] = {"representation": f"tied to {index.names[owner]}", "error_db": None}
    given, parameters = archive.given
    before = index.recipe.get("given_bytes")  # of the network that passes made smaller
    given = before if isinstance(before, int) else given
    before = index.recipe.get("given_parameters")
    parameters = before if isinstance(before, int) else parameters
    coded = sum(math.prod(index.shapes[i]) * ITEM_BYTES[DTYPES[index.dtypes[i]]] for t in index.coded for i in t)
    return {
        "file": archive.name,
        "size": archive.size,
        "bytes": given,
        "ratio": round(given / archive.size, 4),
        "bits_per_parameter": round(8 * archive.size / max(parameters, 1), 4),
        "parameters": parameters,
        "coded_bytes": coded,
        "tool": index.tool,
        "recipe": index.recipe,
        "groups": groups,
        "tensors": [
            {"name": name, "shape": list(index.shapes[i]), "dtype": DTYPES[index.dtypes[i]], **tensors[i]}
            for i, name in enumerate(index.names)
        ],
    }


def lines(found: dict[str, Any]) -> list[str]:
    """`describe`'s result for a person."""
    out = [
        f"{found['file']}: {found['size']:,} B for {found['bytes']:,} B of tensors, {found['ratio']:.2f}x, "
        f"{found['bits_per_parameter']:.3f} bits per parameter; made by tersor {found['tool']}",
        f"recipe: {json.dumps(found['recipe'])}",
    ]
    for g, group in enumerate(found["groups"]):
        out.append(f"group {g}: {group['representation']}, {group['tensors']} tensors")
        for m, book in enumerate(group["codebooks"]):
            used = f"{book['used']} of {book['codewords']} codewords used, perplexity {book['perplexity']}"
            out.append(f"  codebook {m}: {used}")
    width = max([len(t["name"]) for t in found["tensors"]] + [4])
    for t in found["tensors"]:
        shape = "x".join(map(str, t["shape"])) or "scalar"
        line = f"{t['name']:<{width}}  {t['dtype']:<9} {shape:<16} {t['representation']}"
        if "bits_per_weight" in t:
            error = "no error noted" if t["error_db"] is None else f"error {t['error_db']:.1f} dB"
            line += f", {t['bits_per_weight']:.3f} bits per weight, {error}"
            if "zeros" in t:
                bits = t["mask_bits_per_weight"]
                line += f", {t['zeros'] / math.prod(t['shape']):.1%} zeros"
                line += " (among the symbols)" if bits is None else f" (mask {bits:.3f} bits per weight)"
        elif "reason" in t:
            line += f" ({t['reason']})"
        out.append(line)
    return out


def representation(record: GroupRecord) -> str:
    """A group in the field's shorthand, like "4x128d9+lattice", "lattice d9 basis" or "sparse lattice"."""
    parts = []
    if record.num_codebooks:
        parts.append(f"{record.num_codebooks}x{record.codebook_size}d{record.dim}")
    if record.lattice is not None:
        basis = " basis" if record.lattice.basis else ""
        plain = record.num_codebooks or record.survivors is not None
        parts.append("lattice" if plain else f"lattice d{record.dim}{basis}")
    scales = "" if not record.scales else f" / {SCALES[record.scales]} scales"
    return "sparse " * (record.survivors is not None) + "+".join(parts) + scales


def _sparsity(reader: GroupReader) -> tuple[list[float | None], list[int]]:
    """Of each tensor of a sparse group the bits of its mask, if any, and how many zeros masks and levels tell of."""
    assert reader.sparse is not None and reader.record.survivors is not None
    survivors, planes = reader.record.survivors, reader.planes
    zeros = [math.prod(shape) - n for shape, n in zip(reader.shapes, survivors, strict=True)]
    masked = [n > 0 for n in zeros]
    for c in range(reader.chunks):
        reader.sparse.read(c)
        if reader.lattice is None or reader.codes is not None:
            continue
        levels = reader.lattice.levels([c], reader.chunk_streams(c))[0]
        for k, piece in enumerate(planes.chunk(c)):
            zeros[piece.tensor] += int(np.count_nonzero(planes.part(levels, c, k) == 0))
            if piece.last == planes.shapes[piece.tensor].rows:
                zeros[piece.tensor] -= planes.shapes[piece.tensor].size - survivors[piece.tensor]
    return [float(b) if m else None for b, m in zip(reader.sparse.bits, masked, strict=True)], zeros


def _group_usage(reader: GroupReader) -> tuple[np.ndarray[Any, Any], list[dict[str, Any]]]:
    """Bits per tensor, and use of each codebook."""
    record, planes = reader.record, reader.planes
    bits = np.zeros(len(planes.shapes))
    counts = np.zeros((record.num_codebooks, max(record.codebook_size, 1)), dtype=np.int64)
    for c in range(reader.chunks):
        streams = reader.chunk_streams(c)
        if reader.codes is not None:
            for piece, codes in reader.codes.codes(c, streams[0]):
                table = reader.codes.frequencies[reader.codes.classes[piece.tensor]]
                cost = tables.bits(table, PRECISION)
                for m in range(record.num_codebooks):
                    used = np.bincount(codes[:, m], minlength=record.codebook_size)
                    counts[m] += used
                    bits[piece.tensor] += float(used @ cost[m].astype(np.float64)) if record.codebook_size > 1 else 0.0
        if reader.lattice is not None:
            stage = reader.lattice
            part = stage.scan.chunks([c])
            levels = stage.levels([c], [streams[-1]])[0]
            symbols = (np.sign(levels) * ((np.abs(levels) + 1) // 2)).astype(np.int32)
            cost_table = contexts.token_bits(stage.lattice.levels)
            measured = kernels.measure(
                symbols, part, cost_table, TRELLISES[stage.record.memory], stage.lattice.levels.shape[1]
            )
            first, last = planes.chunk_planes[c], planes.chunk_planes[c + 1]
            bits += np.bincount(planes.table[first:last, 2], weights=measured.bits, minlength=len(bits))
    return bits, [_book_usage(used) for used in counts]


def _book_usage(used: np.ndarray[Any, Any]) -> dict[str, Any]:
    share = used[used > 0] / max(used.sum(), 1)
    entropy = float(-(share * np.log2(share)).sum())
    return {"codewords": len(used), "used": int((used > 0).sum()), "perplexity": round(2.0**entropy, 2)}
