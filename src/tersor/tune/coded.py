"""One group of an archive as a module: parameters are what its tensors share, codes stay as they are."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch
from msgspec.structs import replace
from numpy.typing import NDArray
from torch import nn

from tersor.codec import integers
from tersor.errors import TersorError
from tersor.representations import scales as stored_scales
from tersor.representations.group import GroupReader
from tersor.representations.group_symbols import symbols_of
from tersor.representations.lattice_stage import centred
from tersor.representations.records import GroupRecord
from tersor.tune import decode


class CodedGroup(nn.Module):
    """Tensors of one group, decoded from parameters that they share.

    Its state dict holds the parameters and a checksum of the codes, which stay in the archive.

    Attributes:
        codebooks: Parameter [M, K, d], in the weights' own unit; None without codes.
        basis: Parameter [D, D]; None without one.
        gain: Parameter [], natural logarithm of the step over the file's; None without a lattice.
        scales: Parameter [n], logarithms (base 2) of the scales per tensor or row; None without.
    """

    codebooks: nn.Parameter | None
    basis: nn.Parameter | None
    gain: nn.Parameter | None
    scales: nn.Parameter | None
    _codes: torch.Tensor
    _units: torch.Tensor
    _points: torch.Tensor
    _table: torch.Tensor
    _owner: torch.Tensor
    _which: torch.Tensor

    def __init__(self, reader: GroupReader) -> None:
        super().__init__()
        self.record, self.shapes = reader.record, tuple(map(tuple, reader.shapes))
        self._sizes = tuple(s.rows * s.cols for s in reader.planes.shapes)
        self.codebooks = self.basis = self.gain = self.scales = None
        codes, points = _symbols(reader)
        if reader.codes is not None:
            self.codebooks = nn.Parameter(torch.from_numpy(reader.codes.codebooks.copy()))
            self._constant("_units", np.array(reader.record.steps, dtype=np.float32))
            self._constant("_codes", codes)
        if reader.lattice is not None:
            self.gain = nn.Parameter(torch.zeros(()))
            self._constant("_points", points)
            if reader.lattice.basis is not None:
                self.basis = nn.Parameter(torch.from_numpy(reader.lattice.basis.astype(np.float32) / decode.SCALE))
        if reader.scales is not None:
            levels = stored_scales.level_of(np.concatenate(reader.scales))
            self.scales = nn.Parameter(torch.from_numpy(levels / stored_scales.STEPS).float())
            self._constant("_table", decode.scale_table())
            self._constant("_owner", _owners(reader))
        masks = reader.masks or []
        self._survivors = [f"_survivors{t}" for t in range(len(masks))]
        for name, mask in zip(self._survivors, masks, strict=True):
            self._constant(name, np.flatnonzero(mask))
        seen = zlib.crc32(b"" if codes is None else codes.tobytes())
        self.register_buffer("_which", torch.tensor(zlib.crc32(b"" if points is None else points.tobytes(), seen)))

    def _constant(self, name: str, value: NDArray[np.generic] | None) -> None:
        """A tensor that moves with the module but is no part of its state dict."""
        assert value is not None
        self.register_buffer(name, torch.from_numpy(np.array(value)), persistent=False)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: Any, strict: bool, missing: list[str],
        unexpected: list[str], errors: list[str],
    ) -> None:  # fmt: skip
        which = state_dict.get(f"{prefix}_which", self._which)
        if int(which) != int(self._which):
            errors.append(f"{prefix}: of other codes; load it into a network made with the archive that it belongs to")
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)

    def vectors(self) -> torch.Tensor:
        """All vectors of the group [N, D], float32, as a reader of the frozen file decodes them."""
        total = None
        if self.codebooks is not None:
            books = decode.RoundCodebooks.apply(self.codebooks, self._units)
            total = decode.SumCodewords.apply(self._codes, books)
        if self.gain is not None:
            assert self.record.lattice is not None
            part = decode.Points.apply(self._points, self.gain, self.record.lattice.step)
            if self.basis is not None:
                part = decode.Synthesise.apply(part, decode.RoundBasis.apply(self.basis))
            total = part if total is None else total + part
        assert total is not None
        if self.scales is not None:
            total = decode.Scale.apply(total, self.scales, self._table, self._owner)
        return total

    def forward(self) -> list[torch.Tensor]:
        """The group's tensors, float32, in order and in their shapes; in a sparse group zeros are no parameters."""
        where = [getattr(self, name) for name in self._survivors]
        return list(decode.Cut.apply(self.vectors(), self._sizes, self.shapes, *where))

    @torch.no_grad()
    def stored(self) -> tuple[GroupRecord, dict[str, bytes]]:
        """The record, and the head sections that hold the parameters: what `freeze` puts in place of the old ones.

        Raises:
            TersorError: a parameter is NaN or infinite.
        """
        record, heads = self.record, {}
        for name, parameter in self.named_parameters():
            if not parameter.isfinite().all():
                raise TersorError(f"the {name} of a group have become NaN or infinite; lower the learning rate")
        if self.scales is not None:
            heads["scales"] = integers.pack(decode.scale_levels(self.scales).cpu().numpy())
        if self.codebooks is not None:
            entries = decode.codebook_integers(self.codebooks, self._units)
            heads["codebooks"] = integers.pack(entries.long().cpu().numpy())
        if self.gain is not None:
            assert record.lattice is not None
            step = float(decode.step_of(self.gain, record.lattice.step).cpu())
            record = replace(record, lattice=replace(record.lattice, step=step))
            if self.basis is not None:
                heads["basis"] = integers.pack(decode.basis_integers(self.basis).to(torch.int8).cpu().numpy())
        return record, heads


def _symbols(reader: GroupReader) -> tuple[NDArray[np.int32] | None, NDArray[np.float32] | None]:
    """Codes [N, M] and centred levels [N, D] of all vectors, tensor by tensor; None for a stage there is not."""
    codes, points = [], []
    for _, coded, levels in symbols_of(reader):
        if coded is not None:
            codes.append(coded)
        if levels is not None and reader.lattice is not None:
            points.append(centred(levels, reader.lattice.record))
    return np.concatenate(codes) if codes else None, np.concatenate(points) if points else None


def _owners(reader: GroupReader) -> NDArray[np.int64]:
    """For every vector of the group, which of its scales it has."""
    shapes = reader.planes.shapes
    repeats = (
        [s.rows * s.cols for s in shapes]
        if reader.record.scales == 1
        else [s.cols for s in shapes for _ in range(s.rows)]
    )
    return np.repeat(np.arange(len(repeats)), repeats)
