from __future__ import annotations

import numpy as np
import pytest

from tersor.lattice import kernels
from tersor.lattice.planes import Shape, plan_planes
from tersor.lattice.trellis import TRELLISES
from tersor.representations.lattice_stage import SHIFT_UNIT, LatticeReader, LatticeStage, dequantize
from tersor.representations.records import LatticeRecord

SHAPE = Shape(60, 40, 1)


def finished(step: float) -> tuple[LatticeStage, LatticeRecord, np.ndarray, LatticeReader, list[bytes]]:
    """A stage after three rounds, its record, the levels of its symbols, a reader and the streams."""
    values = np.random.default_rng(0).laplace(size=SHAPE).astype(np.float32)
    planes = plan_planes([SHAPE])
    stage = LatticeStage(planes, [values], None, 3)
    for _ in range(3):
        stage.at(step)
    record, heads, streams, _ = stage.finish()
    assert stage.coded is not None
    levels = kernels.levels_of(stage.coded.symbols, planes.chunk_starts, TRELLISES[3])
    return stage, record, levels, LatticeReader(record, planes, heads), streams


@pytest.mark.parametrize("step", [0.05, 0.5, 1.5])
def test_the_reader_gets_the_levels_of_the_symbols(step: float) -> None:
    _, record, levels, reader, streams = finished(step)
    (found,) = reader.levels([0], streams)
    np.testing.assert_array_equal(found, levels)
    assert record.step == float(np.float32(step))


@pytest.mark.parametrize("step", [0.05, 0.5, 1.5])
def test_shifts_take_the_mean_error_of_small_levels_away(step: float) -> None:
    stage, record, levels, _, _ = finished(step)
    for level, shift in zip((1, 2), record.shifts, strict=False):
        inside = np.abs(levels) == level
        below = level - (stage.values * np.sign(levels))[inside].astype(float) / record.step
        if inside.any():
            assert abs(shift - np.clip(SHIFT_UNIT * below.mean(), -64, 64)) < 0.51


@pytest.mark.parametrize("step", [0.05, 0.5, 1.5])
def test_squared_errors_are_those_of_the_values_decoded(step: float) -> None:
    stage, record, levels, _, _ = finished(step)
    squares = stage.finish()[3]
    decoded = dequantize(levels.reshape(1, 60, 40), record, None)
    np.testing.assert_allclose(squares.sum(), np.square(stage.values - decoded.ravel()).sum(), rtol=1e-4)


def test_values_are_float32_products_of_integers_and_the_step() -> None:
    record = LatticeRecord(0.3, 3, False, (10, -20, 64))
    levels = np.array([[[0, 1, -1, 2, -2, 3, -9, (1 << 24) - 2]]], dtype=np.int32)
    fine = [0, 118, -118, 276, -276, 320, -1088, 128 * ((1 << 24) - 2) - 64]
    expected = np.array(fine, dtype=np.float32) * np.float32(0.3 / 128)
    np.testing.assert_array_equal(dequantize(levels, record, None).ravel(), expected)
