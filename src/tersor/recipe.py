"""A recipe: what the user wants. Plain data, decoded strictly from TOML or JSON, stored in the archive."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any, Literal

import msgspec

from tersor.errors import TersorError

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}

_ENDLESS = float(1 << 62)

SCALARS = r"int([2-8])(/tensor|/[0-9]+)?(\+zero)?|shared([0-9]+)(/kmeans|/probabilistic|/uniform|/entropy)?"
"""Schemes whose weights are each one of few values: integers on a grid, or values that tensors share."""
SIZED = rf"fp16|bf16|{SCALARS}"
"""Schemes whose size follows from the network alone, so that a target is not needed."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How small, and how.

    Exactly one target, or none where the scheme has the size that it has:
        ratio: bytes of all tensors as given (tied ones once) over bytes of the file.
        size: bytes of the file, a number or a text like "1.5MB".
        bpp: bits of the file per parameter (elements of all tensors, tied ones once).

    The written file is never over the target.

    Args:
        passes: what is done to the network before it is coded, in order, like "prune(sparsity=0.8, steps=200)"; needs
            the network itself, not only its tensors. `tersor passes` lists them; they are described in docs/passes.
        scheme: "auto" lets the planner choose; "lattice" codes integers on a trellis; "additive" codebooks whose
            numbers follow from the target; "4x128d9" 4 codebooks of 128 codewords over vectors of 9;
            "4x128d9+lattice" both. Schemes that need no target: "fp16", "bf16"; "int8" (int2 to int8) integers with a
            scale for each row, "int4/64" for each 64 weights of a row, "int8/tensor", "+zero" with zero points;
            "shared32" one of 32 values, found by k-means, or as in "shared32/entropy" (probabilistic, uniform,
            entropy), the same values for all kernels of a size (`groups`).
        effort: draft (fast), default, best (smallest error).
        keep: how floats that are not coded are stored: "lossless", or rounded to "bf16".
        exclude: patterns of tensor names (shell style) that are kept.
        min_size: tensors with fewer elements are kept.
        scales: errors are judged as they are ("none"), or relative to each tensor's or each row's root mean square;
            tensors that keep their zeros have no rows, and with "row" one scale each.
        sparsity: which coded tensors keep their zeros exactly: "keep" all that have any; "auto" those of which half or
            more is zero, and all where that holds for the network as a whole; "ignore" none (zeros are numbers like
            others, and come back nearly zero).
        groups: one set of codebooks per kernel size ("kernel"), one for everything ("one"), or, with "shared" values,
            one for each tensor ("tensor").
        seed: of everything random.
        given_bytes, given_parameters: of the network before its passes, which ratio and bpp refer to; set by
            `compress`.
    """

    ratio: float | None = None
    size: int | str | None = None
    bpp: float | None = None
    passes: tuple[str, ...] = ()
    scheme: str = "auto"
    effort: Literal["draft", "default", "best"] = "default"
    keep: Literal["lossless", "bf16"] = "lossless"
    exclude: tuple[str, ...] = ()
    min_size: int = 256
    scales: Literal["none", "tensor", "row"] = "none"
    sparsity: Literal["auto", "keep", "ignore"] = "auto"
    groups: Literal["kernel", "one", "tensor"] = "kernel"
    seed: int = 0
    given_bytes: int | None = None
    given_parameters: int | None = None

    def __post_init__(self) -> None:
        for name, kinds in (("ratio", (int, float)), ("size", (int, str)), ("bpp", (int, float)), ("scheme", str),
                            ("seed", int), ("min_size", int)):  # fmt: skip
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, kinds)):
                raise TersorError(f"recipe: {name} is {value!r}; see its type in tersor.Recipe")
        if isinstance(self.exclude, str) or not all(isinstance(pattern, str) for pattern in self.exclude):
            raise TersorError("recipe: exclude is a list of patterns, not one text")
        if self.seed < 0 or self.min_size < 0:
            raise TersorError("recipe: seed and min_size are 0 or more")
        given = [name for name in ("ratio", "size", "bpp") if getattr(self, name) is not None]
        if len(given) > 1 or (not given and not self.sized):
            raise TersorError(f"recipe: give exactly one of ratio, size and bpp, not {' and '.join(given) or 'none'}")
        value = parse_size(self.size) if self.size is not None else (self.ratio or self.bpp or 0)
        if given and (isinstance(value, bool) or not 0 < value < float("inf")):
            raise TersorError(f"recipe: {given[0]} is {getattr(self, given[0])}; it must be above 0")
        if not re.fullmatch(rf"auto|lattice|additive|\d+x\d+d\d+(\+lattice)?|{SIZED}", self.scheme):
            raise TersorError(
                f"recipe: unknown scheme {self.scheme!r}; "
                "use auto, lattice, additive or like 4x128d9, int8, int4/64, shared32, fp16 or bf16"
            )
        if self.groups == "tensor" and not self.scheme.startswith("shared"):
            raise TersorError("recipe: groups is 'tensor' only where tensors have shared values; use kernel or one")
        if isinstance(self.passes, str) or not all(isinstance(text, str) for text in self.passes):
            raise TersorError("recipe: passes is a list of texts like 'prune(sparsity=0.8)', not one text")
        for name in ("effort", "keep", "scales", "sparsity", "groups"):
            allowed = {"effort": ("draft", "default", "best"), "keep": ("lossless", "bf16"),
                       "scales": ("none", "tensor", "row"),
                       "sparsity": ("auto", "keep", "ignore"), "groups": ("kernel", "one", "tensor")}[name]  # fmt: skip
            if getattr(self, name) not in allowed:
                raise TersorError(f"recipe: {name} is {getattr(self, name)!r}; use one of {', '.join(allowed)}")

    @property
    def sized(self) -> bool:
        """Whether the scheme has a size of its own."""
        return re.fullmatch(SIZED, self.scheme) is not None

    @property
    def target(self) -> bool:
        """Whether there is one."""
        return not (self.ratio is None and self.size is None and self.bpp is None)

    def budget(self, nbytes: int, parameters: int) -> int:
        """Bytes of the file that meet the target, for a checkpoint of that many bytes and parameters; endless without.

        Of a network that went through passes, both are as before them.
        """
        if self.size is not None:
            return parse_size(self.size)
        if self.ratio is not None:
            return int(min((self.given_bytes or nbytes) / self.ratio, _ENDLESS))
        if self.bpp is not None:
            return int(min(self.bpp * (self.given_parameters or parameters) / 8, _ENDLESS))
        return int(_ENDLESS)

    def as_dict(self) -> dict[str, Any]:
        """The fields that differ from their defaults."""
        return dict(msgspec.to_builtins(self))

    @classmethod
    def from_dict(cls, fields: dict[str, Any], where: str = "recipe") -> Recipe:
        """Decode strictly: unknown fields and wrong types are errors."""
        try:
            return msgspec.convert(fields, cls)
        except msgspec.ValidationError as error:
            raise TersorError(f"{where}: {error}") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recipe:
        """Read a .toml or .json recipe."""
        return cls.from_dict(load_fields(path), str(path))


def load_fields(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of a .toml or .json recipe, not yet checked."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        if str(path).endswith(".toml"):
            return _toml(text)
        if str(path).endswith(".json"):
            return msgspec.json.decode(text, type=dict[str, Any])
    except OSError as error:
        raise TersorError(f"{path}: cannot read the recipe ({error.strerror})") from error
    except ValueError as error:
        raise TersorError(f"{path}: not a valid recipe ({error})") from error
    raise TersorError(f"{path}: a recipe is a .toml or .json file")


def parse_size(size: int | str | None, what: str = "recipe: size") -> int:
    """Bytes from a number or a text with a unit: "300kB", "1.5MB" (powers of ten), "2MiB" (powers of two)."""
    if isinstance(size, int):
        return size
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-zA-Z]*)\s*", size or "")
    if not match or match[2].lower() not in _UNITS:
        raise TersorError(f"{what} {size!r} is not a number of bytes like 1500000, 300kB, 1.5MB or 2MiB")
    return int(min(float(match[1]) * _UNITS[match[2].lower()], _ENDLESS))


def _toml(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)
