from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from masks import SHAPES, by_the_page, entropy, made, masks

from tersor.errors import ArchiveError
from tersor.representations import mask, mask_fit


def packed(found: list[np.ndarray]) -> bytes:
    return mask.pack(found, [mask_fit.fit(m) for m in found])


def facts(found: list[np.ndarray]) -> tuple[list[tuple[int, ...]], list[int]]:
    return [m.shape for m in found], [int(m.sum()) for m in found]


@given(st.lists(masks, max_size=4))
def test_masks_come_back_with_what_they_take(found: list[np.ndarray]) -> None:
    data = packed(found)
    read, bits = mask.unpack(data, *facts(found))
    assert [m.tolist() for m in read] == [m.tolist() for m in found]
    head = 8 + int.from_bytes(data[:4], "little") + int.from_bytes(data[4:8], "little") if data else 0
    assert abs(sum(bits) / 8 - (len(data) - head)) < 8 + 1e-3 * len(data)
    assert all(b == 0 for m, b in zip(found, bits, strict=True) if m.all() or not m.any())


@settings(max_examples=30)
@given(st.lists(masks, min_size=1, max_size=3))
def test_a_second_reader_finds_the_same(found: list[np.ndarray]) -> None:
    read = by_the_page(packed(found), *facts(found))
    assert [m.tolist() for m in read] == [m.tolist() for m in found]


@settings(max_examples=40)
@given(st.sampled_from(SHAPES), st.integers(0, 10**6), st.data())
def test_any_model_is_read_as_it_was_written(shape: tuple[int, ...], seed: int, data: st.DataObject) -> None:
    """Also models that no writer here would choose."""
    rng, found = np.random.default_rng(seed), made(shape, "plain", 0.4, seed)
    block = data.draw(st.sampled_from([b for b in range(-32, 33) if mask.fits(shape, b)]))
    units = tuple(int(u) for u in rng.integers(0, mask.MAX_UNIT + 1, len(mask.EFFECTS)))
    sizes = mask.effect_sizes(shape, block)
    effects = tuple(rng.integers(-1, 2, n if u else 0) << max(u - 1, 0) for n, u in zip(sizes, units, strict=True))
    if found.any() and not found.all():
        section = mask.pack([found], [mask.Model(block, int(rng.integers(-60, 61)), units, effects)])
        assert mask.unpack(section, *facts([found]))[0][0].tolist() == found.tolist()
        assert by_the_page(section, *facts([found]))[0].tolist() == found.tolist()


@pytest.mark.parametrize("shape", [(64, 48, 3, 3), (300, 200), (9000,)])
@pytest.mark.parametrize("share", [0.5, 0.2, 0.05, 0.95])
def test_no_structure_costs_the_entropy(shape: tuple[int, ...], share: float) -> None:
    found = np.random.default_rng(1).random(shape) < share
    assert len(packed([found])) < 1.02 * found.size * entropy(found.mean()) / 8 + 20


@pytest.mark.parametrize(
    ("kind", "shape", "bits"),
    [
        ("rows", (256, 400), 256 + 128 * 400 * entropy(0.3)),
        ("columns", (400, 256), 256 + 128 * 400 * entropy(0.3)),
        ("columns", (64, 64, 3, 3), 64 + 32 * 64 * 9 * entropy(0.3)),
        ("kernels", (64, 48, 3, 3), 64 * 48 * entropy(0.3)),
        ("n of m", (100, 256), 100 * 64 * np.log2(6)),
    ],
)
def test_structure_is_paid_for_once(kind: str, shape: tuple[int, ...], bits: float) -> None:
    found = made(shape, kind, 0.3, 2)
    size = len(packed([found]))
    assert size < 1.12 * bits / 8 + 60 < 0.95 * found.size * entropy(found.mean()) / 8


def test_n_of_m_along_inputs_of_convolutions_is_found() -> None:
    found = np.zeros((32, 3, 3, 16, 4), dtype=bool)
    np.put_along_axis(found, np.argsort(np.random.default_rng(0).random(found.shape), axis=-1)[..., :2], True, axis=-1)
    turned = np.ascontiguousarray(found.reshape(32, 3, 3, 64).transpose(0, 3, 1, 2))
    model = mask_fit.fit(turned)
    assert model is not None and model.block == -4
    assert len(packed([turned])) < 1.02 * turned.size / 4 * np.log2(6) / 8 + 40


def test_few_ones_cost_as_much_as_their_places() -> None:
    found = np.zeros((1000, 1000), dtype=bool)
    found.flat[np.random.default_rng(0).choice(10**6, 20, replace=False)] = True
    assert len(packed([found])) < 20 * 21 / 8 + 20
    assert packed([np.zeros((9, 9), dtype=bool), np.ones(5, dtype=bool)]) == b""


def test_slices_bound_memory_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [made((20, 30, 3, 3), "rows", 0.3, 0), made((50, 40), "columns", 0.3, 1)]
    data = packed(found)
    for module, name, value in ((mask, "_SLICE", 70), (mask_fit, "_SLICE", 100), (mask_fit, "_PART", 7)):
        monkeypatch.setattr(module, name, value)
    assert packed(found) == data
    assert [m.tolist() for m in mask.unpack(data, *facts(found))[0]] == [m.tolist() for m in found]


@pytest.mark.parametrize("change", [1, -1])
def test_another_number_of_ones_is_refused(change: int) -> None:
    found = [made((12, 16), "plain", 0.4, 3)]
    with pytest.raises(ArchiveError, match="another number of ones"):
        mask.unpack(packed(found), [(12, 16)], [int(found[0].sum()) + change])


@settings(max_examples=150)
@given(masks, st.integers(0, 10**6), st.integers(1, 255), st.booleans())
def test_damage_is_refused_or_gives_a_mask_of_as_many_ones(found: np.ndarray, at: int, flip: int, cut: bool) -> None:
    data = bytearray(packed([found]))
    if data:
        data[at % len(data)] ^= flip
    damaged = bytes(data[: at % (len(data) + 1)] if cut else data)
    try:
        read, _ = mask.unpack(damaged, *facts([found]))
    except ArchiveError as error:
        assert "\n" not in str(error)
    else:
        assert read[0].shape == found.shape and read[0].sum() == found.sum()
