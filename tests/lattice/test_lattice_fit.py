from __future__ import annotations

import numpy as np
import pytest
from lattices import values

from tersor.codec import tables
from tersor.lattice import contexts, fit, kernels
from tersor.lattice.planes import Planes, Shape, plan_planes
from tersor.lattice.trellis import TRELLISES

SHAPES = [Shape(20, 40, 3), Shape(64, 16, 1)]


def start(step: float = 0.5, memory: int = 3) -> tuple[Planes, np.ndarray, fit.Lattice]:
    planes = plan_planes(SHAPES)
    x = values(planes.symbols, 1.0, 7)
    x[:1200] *= 4
    return planes, x, fit.start(planes, x, step, memory)


def cost(planes: Planes, x: np.ndarray, coded: fit.Coded, weight: np.ndarray | None = None) -> float:
    """Weighted squared error in steps plus the price of the bits, as the search sees it."""
    lattice = coded.lattice
    levels = kernels.levels_of(coded.symbols, planes.chunk_starts, TRELLISES[lattice.memory])
    error = (x.astype(float) / lattice.step - levels) ** 2
    return float((error if weight is None else weight * error).sum() + fit.LAMBDA * coded.bits)


@pytest.mark.parametrize("memory", TRELLISES)
@pytest.mark.parametrize("weighted", [False, True])
def test_rounds_lower_the_cost(memory: int, weighted: bool) -> None:
    planes, x, lattice = start(memory=memory)
    weight = np.random.default_rng(0).exponential(1, x.size).astype(np.float32) if weighted else None
    costs = []
    for i in range(5):
        coded = fit.refine(planes, x, lattice, weight=weight, mixes=i == 1)
        costs.append(cost(planes, x, coded, weight))
        lattice = coded.lattice
    assert min(costs[1:]) < costs[0] and costs[-1] < 1.001 * min(costs)


def test_the_predicted_bits_are_those_of_the_streams() -> None:
    planes, x, lattice = start()
    coded = fit.trimmed(fit.refine(planes, x, lattice, mixes=True))
    scan, trellis = coded.lattice.scan(planes), TRELLISES[coded.lattice.memory]
    table = tables.frequencies(coded.lattice.levels, contexts.PRECISION)
    stream = kernels.encode(coded.symbols, scan.planes, table, contexts.PRECISION, trellis)
    bits = (coded.counts * contexts.token_bits(coded.lattice.levels).astype(float)).sum()
    assert abs(8 * len(stream) - bits) < 64
    np.testing.assert_array_equal(
        kernels.decode([stream], scan, table, contexts.PRECISION, trellis),
        kernels.levels_of(coded.symbols, planes.chunk_starts, trellis),
    )


def test_more_states_and_finer_steps_have_less_error() -> None:
    errors = {}
    for memory, step in [(2, 0.5), (5, 0.5), (3, 0.1)]:
        planes, x, lattice = start(step, memory)
        for _ in range(3):
            lattice = (coded := fit.refine(planes, x, lattice)).lattice
        levels = kernels.levels_of(coded.symbols, planes.chunk_starts, TRELLISES[memory])
        errors[memory, step] = float(((x - step * levels) ** 2).mean())
    assert errors[3, 0.1] < errors[5, 0.5] < errors[2, 0.5] < 0.5**2 / 3


def test_an_error_without_weight_is_free() -> None:
    planes, x, lattice = start()
    weight = np.ones_like(x)
    weight[::2] = 0
    coded = fit.refine(planes, x, lattice, weight=weight)
    plain = fit.refine(planes, x, lattice)
    worthless = np.abs(coded.symbols[::2])
    assert worthless.sum() < 0.35 * np.abs(plain.symbols[::2]).sum()
    assert coded.bits < 0.8 * plain.bits
    assert cost(planes, x, coded, weight) < cost(planes, x, plain, weight)


def test_trimming_leaves_the_symbols_and_drops_unused_tokens() -> None:
    planes, x, lattice = start()
    coded = fit.refine(planes, x, lattice)
    trimmed = fit.trimmed(coded)
    used = int(coded.counts.sum(axis=0).nonzero()[0].max()) + 1
    assert trimmed.counts.shape[1] == trimmed.lattice.levels.shape[1] == used
    assert trimmed.symbols is coded.symbols and trimmed.counts.sum() == coded.counts.sum() == x.size


def test_sums_are_per_plane() -> None:
    planes = plan_planes([Shape(2, 3, 2), Shape(1, 4, 1)])
    x = np.arange(16, dtype=np.float32)
    assert fit.plane_sums(planes, x.__getitem__).tolist() == [15, 51, 54]
