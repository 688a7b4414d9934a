"""What `compare` found, as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MOST = 20
"""Tensors listed, unless all are asked for."""


def lines(found: dict[str, Any], most: int | None = MOST) -> list[str]:
    """`compare`'s result for a person: at most so many tensors of each kind, all with None."""
    out = [_source("A", found["a"]), _source("B", found["b"])]
    for side in ("a", "b"):
        out += _alone(side.upper(), found[f"only_{side}"], most)
    rows = found["tensors"]
    if not rows:
        return [*out, "no name is in both: nothing to compare", *_outputs(found["outputs"])]
    unequal = [row for row in rows if not row["equal"]]
    shown = rows if most is None else unequal[:most]
    width = max([len(row["name"]) for row in shown], default=0)
    out += [_row(row, width) for row in shown]
    if len(unequal) > len(shown):
        out.append(f"{len(unequal) - len(shown)} more differ, less than these; --all lists them")
    out += [_total(found), *_outputs(found["outputs"])]
    return out


def _source(letter: str, about: dict[str, Any]) -> str:
    size = "in memory" if about["size"] is None else f"{about['size']:,} B"
    return f"{letter}: {about['source']}: {size}, {about['tensors']} tensors of {about['bytes']:,} B"


def _alone(letter: str, entries: list[dict[str, Any]], most: int | None) -> Iterator[str]:
    if entries:
        shown = entries[:most]
        names = ", ".join(entry["name"] for entry in shown)
        yield f"only in {letter}, {len(entries)}: {names}{' …' * (len(shown) < len(entries))}"


def _row(row: dict[str, Any], width: int) -> str:
    types = [row[f"dtype_{side}"] for side in "ab"]
    shapes = ["x".join(map(str, row[f"shape_{side}"])) or "scalar" for side in "ab"]
    kind, shape = (first if first == second else f"{first} / {second}" for first, second in (types, shapes))
    tied = "" if row["tied_to"] is None else f" (tied to {row['tied_to']})"
    return f"{row['name']:<{width}}  {kind:<9} {shape:<16} {_difference(row)}{tied}"


def _difference(row: dict[str, Any]) -> str:
    if row["equal"]:
        return "equal"
    if row["max_difference"] is None:
        return "shapes differ"
    parts = []
    if row["nonfinite"]:
        parts.append(f"{row['nonfinite']:,} NaN or infinite in one only")
    if row["max_difference"]:
        parts += [_error(row["error_db"]), f"largest difference {row['max_difference']:.3g}"]
    return ", ".join(parts) or "equal values, other bits"


def _error(db: float | None) -> str:
    """An error in decibels; float64 lacks a number for what is None."""
    if db is None:
        return "error beyond measure"
    return "A is zero" if db == float("inf") else f"error {db:.1f} dB"


def _total(found: dict[str, Any]) -> str:
    count = len(found["tensors"])
    values = f", {found['equal_values']} in value only" if found["equal_values"] else ""
    unlike = f", {found['unlike_shapes']} of other shapes" if found["unlike_shapes"] else ""
    line = f"{found['equal']} of {count} tensors equal bit for bit{values}{unlike}"
    if found["max_in"] is not None:
        line += f"; all floats: {_error(found['error_db'])}, largest difference {found['max_difference']:.3g}"
        line += f" in {found['max_in']}"
    return line


def _batches(count: int) -> str:
    return f"{count} batch{'es' * (count != 1)}"


def _outputs(outputs: dict[str, Any] | None) -> Iterator[str]:
    if outputs is None:
        return
    for row in outputs["tensors"]:
        line = f"{row['name']} on {_batches(outputs['batches'])}, {row['values']:,} values: "
        if row["equal"]:
            line += "equal"
        elif row["max_difference"] is not None:
            line += _difference(row)
            line += f", mean {row['mean_difference']:.3g}" if row["max_difference"] else ""
        else:
            line += f"{row['nonfinite']:,} NaN or infinite in one only" if row["nonfinite"] else "nothing to compare"
        unlike = f"; {_batches(row['unlike'])} of other shapes" if row["unlike"] else ""
        yield line + unlike
    argmax = outputs["argmax"]
    if argmax is not None:
        yield f"same argmax in dimension {argmax['dimension']}: {argmax['equal']:.2%} of {argmax['chosen']:,}"
