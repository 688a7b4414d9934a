"""Strategies for the lattice kernels: scans of any cut, values, importances, tables, trellises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from tersor.lattice import contexts, planes
from tersor.lattice.kernels import Scan
from tersor.lattice.planes import Planes, Shape, plan_planes
from tersor.lattice.trellis import TRELLISES

shapes = st.lists(st.builds(Shape, st.integers(1, 5), st.integers(1, 70), st.integers(1, 3)), min_size=1, max_size=3)
trellises = st.sampled_from(list(TRELLISES.values()))
seeds = st.integers(0, 2**32 - 1)


@contextmanager
def cut(piece: int, chunk: int) -> Iterator[None]:
    """Pieces and chunks of other sizes, so that small tensors are cut."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(planes, "PIECE", piece))
        stack.enter_context(mock.patch.object(planes, "CHUNK", chunk))
        yield


@st.composite
def cut_planes(draw: st.DrawFn) -> Planes:
    """Planes of a few tensors, in one chunk or several."""
    with cut(*draw(st.sampled_from([(1 << 19, 1 << 17), (64, 64), (200, 90), (1, 1)]))):
        return plan_planes(draw(shapes))


@st.composite
def scans(draw: st.DrawFn) -> Scan:
    """The same with mean energies and mixes."""
    cut_up = draw(cut_planes())
    rng = np.random.default_rng(draw(seeds))
    means = rng.integers(0, draw(st.sampled_from([1, 60, planes.MAX_MEAN + 1])), cut_up.means)
    mixes = rng.integers(0, len(planes.MIXES), len(cut_up.shapes))
    return Scan(cut_up.kernel_table(means, mixes), cut_up.chunk_planes, cut_up.chunk_starts)


def values(count: int, spread: float, seed: int) -> NDArray[np.float32]:
    """Laplacian values around zero, some of them exactly zero."""
    rng = np.random.default_rng(seed)
    return (rng.laplace(0, spread, count) * (rng.random(count) > 0.1)).astype(np.float32)


def table_levels(tokens: int, seed: int) -> NDArray[np.int64]:
    """Levels [2 * contexts, tokens] of arbitrary tables, dearer for larger tokens on the whole."""
    rng = np.random.default_rng(seed)
    return np.clip(np.arange(tokens) + rng.integers(0, 12, (2 * contexts.CONTEXTS, tokens)), 0, 60)
