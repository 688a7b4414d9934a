"""Packed groups hold what the file holds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import tersor
from packed.archives import archives
from tersor.packed.groups import PackedGroup, PackedScalars, pack


@pytest.mark.parametrize("made", list(archives()))
def test_every_coded_tensor_is_in_one_group(made: Callable[[], tersor.Archive]) -> None:
    archive = made()
    packed = pack(archive)
    assert [g.tensors for g in packed] == archive.index.coded
    for group in packed:
        assert group.nbytes > 0
        assert group.shapes == tuple(archive.index.shapes[i] for i in group.tensors)


def test_symbols_are_those_of_the_readers() -> None:
    archive = tersor.compress({"a": torch.randn(64, 50)}, tersor.Recipe(scheme="int4"))
    (group,) = pack(archive)
    assert isinstance(group, PackedScalars) and group.grids is not None
    reader = archive.scalar_group(0)
    np.testing.assert_array_equal(group.symbols.rows()[0].reshape(64, 50), reader.symbols(0))
    np.testing.assert_array_equal(group.grids[0][0], reader.grids[0].scales)


def test_codes_of_a_codebook_take_bytes() -> None:
    archive = tersor.compress({"a": torch.randn(256, 64)}, tersor.Recipe(bpp=5, scheme="2x256d4"))
    (group,) = pack(archive)
    assert isinstance(group, PackedGroup) and group.entries is not None
    assert [w.data.dtype for w in group.codes] == [np.uint8, np.uint8]
    assert group.nbytes <= 1.25 * (2 * 256 * 64 / 4 + group.entries.nbytes)
