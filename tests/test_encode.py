from __future__ import annotations

import pytest
import torch

import tersor
from networks import assert_same, nbytes, network
from tersor import index as indices
from tersor.encode import ROUNDS, seconds
from tersor.errors import ArchiveError, TersorError
from tersor.index import DTYPES, REASONS
from tersor.recipe import Recipe
from tersor.representations.control import LARGEST_STEP, SMALLEST_STEP


def zeros_but_one(rows: int) -> dict[str, torch.Tensor]:
    state = {"w": torch.zeros(rows, 100)}
    state["w"][0, 0] = 1
    return state


def test_files_of_almost_nothing_are_padded_for_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers refuse shapes out of proportion to the file, so the writer makes the file large enough."""
    plain = tersor.compress(zeros_but_one(200), Recipe(size=20_000))
    assert plain.index.lengths[-1] == 0
    for module in ("tersor.assemble", "tersor.index"):
        monkeypatch.setattr(f"{module}.ELEMENTS_PER_BYTE", 1)
    padded = tersor.compress(zeros_but_one(200), Recipe(size=20_000))
    assert padded.index.lengths[-1] > 10_000 and padded.size + 2048 >= 20_000
    assert not padded.section(len(padded.index.lengths) - 1).strip(b"\0")
    assert_same(padded.state_dict(), plain.state_dict())
    with pytest.raises(ArchiveError, match="implausible shapes"):
        indices.unpack(indices.pack(plain.index), sum(plain.index.lengths), plain.version)


def test_kept_tensors_are_pooled_by_stored_type_with_their_reasons() -> None:
    archive = tersor.compress(network(), Recipe(ratio=5, keep="bf16"))
    kept = {archive.index.names[i]: (REASONS[r], DTYPES[stored]) for i, r, stored in archive.index.kept}
    assert kept == {
        "norm.weight": ("one-dimensional", "bfloat16"), "norm.num_batches_tracked": ("integers", "int64"),
        "fc.bias": ("one-dimensional", "bfloat16"), "mask": ("booleans", "bool"),
    }  # fmt: skip
    names = [archive.sections.name(i) for i in range(len(archive.index.lengths))]
    assert names.count("kept tensors") == 3 and names[-1] == "padding"


def test_what_fits_exactly_is_stored_exactly() -> None:
    for state in ({"w": torch.full((60, 60), 0.3)}, zeros_but_one(40), {"w": torch.eye(50)}):
        for ratio in (1.2, 3, 6):
            assert_same(tersor.compress(state, Recipe(ratio=ratio)).state_dict(), state)


@pytest.mark.parametrize("value", [1e37, 3.4e38, 1e300])
def test_values_out_of_range_are_named(value: float) -> None:
    state = {
        "fine": torch.ones(40, 40),
        "far": torch.linspace(-1, 1, 3600, dtype=torch.float64).reshape(60, 60) * value,
    }
    with pytest.raises(TersorError, match="far holds NaN, infinity or values beyond 1e36"):
        tersor.compress(state, Recipe(ratio=16))


def test_the_smallest_file_told_is_the_smallest() -> None:
    state = network()
    with pytest.raises(TersorError) as caught:
        tersor.compress(state, Recipe(size=100))
    smallest = int(str(caught.value).split("about ")[1].split(" B")[0].replace(",", ""))
    assert smallest < nbytes(state) / 10
    assert tersor.compress(state, Recipe(size=smallest + 8)).size <= smallest + 8
    with pytest.raises(TersorError, match="smallest possible"):
        tersor.compress(state, Recipe(size=smallest - 8))


def test_steps_stay_ordinary_float32_numbers() -> None:
    for step in (SMALLEST_STEP, LARGEST_STEP):
        for value in (step, 1 / step, step / 128):
            assert 2.0**-126 <= value < 2.0**128
    for scale in (1e-44, 1e-38, 1e35):
        values = torch.randn(50, 50, generator=torch.Generator().manual_seed(0)) * scale
        archive = tersor.compress({"w": values}, Recipe(size=1500))
        assert SMALLEST_STEP <= archive.index.groups[0].lattice.step <= LARGEST_STEP  # type: ignore[union-attr]


def test_the_time_estimate_grows_with_weights_and_effort() -> None:
    def estimate(rows: int, **fields: object) -> float:
        recipe = Recipe(ratio=16, **fields)  # type: ignore[arg-type]
        return seconds(tersor.dry_run({"w": torch.zeros(1).expand(rows, 1000)}, recipe), recipe)

    for scheme in ("lattice", "4x128d8"):
        small, large = estimate(1000, scheme=scheme), estimate(8000, scheme=scheme)
        assert 0 < small < large < 20 * small
        efforts = [estimate(4000, scheme=scheme, effort=effort) for effort in ROUNDS]
        assert efforts == sorted(efforts) and efforts[0] < efforts[-1]
