"""Whole runs: the file, and that nothing but input, recipe and version decides its bytes."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
import torch
from large import RECIPE, shards, state
from safetensors.torch import save_file

import tersor
from networks import assert_same, error_of
from tersor.encode import NEARLY
from tersor.errors import TersorError
from tersor.stream.work import Work

pytestmark = pytest.mark.usefixtures("small_pieces")
SCHEMES = ["auto", "additive", "2x16d4", "2x8d9+lattice"]


def streamed(source: object, out: Path, recipe: tersor.Recipe = RECIPE, **settings: object) -> bytes:
    archive = tersor.compress(source, recipe, out=out, **settings)  # type: ignore[arg-type]
    archive.verify()
    data = out.read_bytes()
    assert not Path(f"{out}.work").exists() and not Path(f"{out}.work.lock").exists()
    return data


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("scales", ["none", "tensor", "row"])
def test_the_file_meets_the_target_and_holds_the_network(tmp_path: Path, scheme: str, scales: str) -> None:
    tensors = state()
    effort = "default" if scheme == "auto" else "draft"
    recipe = tersor.Recipe(bpp=2.5, scheme=scheme, scales=scales, effort=effort)  # type: ignore[arg-type]
    data = streamed(shards(tmp_path / "in", tensors), tmp_path / "x", recipe)
    archive = tersor.open(tmp_path / "x")
    budget = archive.recipe.budget(*archive.given)
    assert len(data) <= budget and (len(data) >= NEARLY * budget or scheme != "auto")
    decoded = archive.state_dict()
    assert_same({n: decoded[n] for n in ("norm", "steps")}, {n: tensors[n] for n in ("norm", "steps")})
    assert [(t.shape, t.dtype) for t in decoded.values()] == [(t.shape, t.dtype) for t in tensors.values()]
    names = [n for n in tensors if n not in ("norm", "steps")]
    power = sum(float(tensors[n].double().square().sum()) for n in names)
    assert error_of(decoded, tensors, *names) < 0.3 * power
    for record in archive.index.groups:
        for i, told in zip(record.tensors, archive.index.errors, strict=False):
            name = archive.index.names[i]
            original = {name: tensors[name].float()}
            error = error_of({name: decoded[name].float()}, original, name)
            ratio = float(torch.tensor(error) / original[name].double().square().sum())
            if len(archive.index.groups) == 1:
                assert 10 ** (-(told + 2) / 20) < ratio < 10 ** (-(told - 2) / 20)


def test_training_on_a_sample_costs_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(1)
    tensors = {f"w{i}": torch.randn(400, 500, generator=g) * 0.1 for i in range(2)}
    monkeypatch.setattr("tersor.encode.TRAINED", 1 << 16)
    sampled = tersor.compress(tensors, tersor.Recipe(bpp=2))
    monkeypatch.setattr("tersor.encode.TRAINED", 1 << 30)
    whole = tersor.compress(tensors, tersor.Recipe(size=int(sampled.size / 0.995)))
    errors = [error_of(a.state_dict(), tensors) for a in (sampled, whole)]
    decibels = 10 * float(torch.log10(torch.tensor(errors[0] / errors[1])))
    assert decibels - 6.02 * 8 * (whole.size - sampled.size) / 400_000 < 0.05


@pytest.mark.parametrize("scheme", ["auto", "2x16d4+lattice"])
def test_the_same_bytes_however_it_is_done(tmp_path: Path, scheme: str) -> None:
    tensors = state()
    recipe = tersor.Recipe(bpp=2.5, scheme=scheme, effort="draft")
    folder = shards(tmp_path / "in", tensors)
    expected = streamed(folder, tmp_path / "x", recipe)
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert streamed(folder, tmp_path / f"x{threads}", recipe, memory="3GB") == expected
    finally:
        torch.set_num_threads(before)
    save_file({n: t.clone() for n, t in tensors.items()}, tmp_path / "one.safetensors")
    order = tersor.compress(tensors, recipe)
    assert order.to_bytes() == expected, "from memory, in memory"


def test_what_is_finished_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends at any of its writes goes on from there, and the bytes are the same."""
    folder = shards(tmp_path / "in", state())
    expected = streamed(folder, tmp_path / "x")
    write, left = Work.write, [0]

    def failing(self: Work, name: str, data: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.EIO, "the plug was pulled")
        write(self, name, data)

    monkeypatch.setattr(Work, "write", failing)
    monkeypatch.setattr("tersor.stream.crew.thread_count", lambda: 1)
    ends = 0
    for most in range(200):
        left[0] = most
        try:
            data = streamed(folder, tmp_path / "y", resume=most > 0)
        except OSError:
            ends += 1
            left[0] = 10_000
            assert not (tmp_path / "y").exists()
            if most:  # and go on one more write each time: work must add up
                data = streamed(folder, tmp_path / "y", resume=True)
                assert data == expected
                (tmp_path / "y").unlink()
            continue
        assert data == expected
        break
    assert ends > 10


def test_a_damaged_piece_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shards(tmp_path / "in", state())
    expected = streamed(folder, tmp_path / "x")
    with monkeypatch.context() as patched:
        patched.setattr(Work, "remove", lambda self: None)
        tersor.compress(folder, RECIPE, out=tmp_path / "y")
    pieces = sorted(Path(tmp_path / "y.work").iterdir())
    kept = [p for p in pieces if p.name.startswith("kept")]
    blocks = [p for p in pieces if p.name.startswith("block")]
    assert len(blocks) > 5 and kept
    (tmp_path / "y").unlink()
    for path, damage in (
        (blocks[0], b""),
        (blocks[1], b"\0" * 40),
        (blocks[2], blocks[2].read_bytes()[:-3]),
        (kept[0], b"x"),
    ):
        path.write_bytes(damage)
    assert _restreamed(folder, tmp_path / "y") == expected


def _restreamed(folder: Path, out: Path) -> bytes:
    tersor.compress(folder, RECIPE, out=out, resume=True)
    return out.read_bytes()


def _stopped(folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch, recipe: tersor.Recipe = RECIPE) -> None:
    """A run that ended before its file was there."""
    with monkeypatch.context() as patched, pytest.raises(OSError, match="stop"):
        patched.setattr("tersor.stream.file.atomic_output", lambda *a, **k: (_ for _ in ()).throw(OSError("stop")))
        tersor.compress(folder, recipe, out=out)


def test_what_is_left_is_neither_lost_nor_taken_for_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = shards(tmp_path / "in", state()), tmp_path / "y"
    _stopped(folder, out, monkeypatch)
    with pytest.raises(TersorError, match="unfinished run; --resume goes on with it, --force begins anew"):
        tersor.compress(folder, RECIPE, out=out)
    with pytest.raises(TersorError, match=r"another run \(recipe was \{'bpp': 2.5\} and is \{'bpp': 3\.0\}\)"):
        tersor.compress(folder, tersor.Recipe(bpp=3.0), out=out, resume=True)
    with monkeypatch.context() as patched, pytest.raises(TersorError, match=r"version was '.*' and is '99'"):
        patched.setattr("tersor.__version__", "99")
        tersor.compress(folder, RECIPE, out=out, resume=True)
    os.utime(folder / "model-1.safetensors", (0, 0))
    with pytest.raises(TersorError, match=r"input model-1.safetensors was '.*' and is '.*changed 1970-01-01"):
        tersor.compress(folder, RECIPE, out=out, resume=True)
    assert Path(f"{out}.work").exists()


def test_force_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = shards(tmp_path / "in", state()), tmp_path / "y"
    work = Work(f"{out}.work")
    work.begin({"version": "old"}, resume=False, force=False)
    work.write("survey", b"nonsense")
    with pytest.raises(TersorError, match="of another run"):
        tersor.compress(folder, RECIPE, out=out, resume=True)
    assert len(streamed(folder, out, force=True)) > 1000
    work.folder.mkdir()
    (work.folder / "thesis.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(TersorError, match="is not of an unfinished run"):
            tersor.compress(folder, RECIPE, out=tmp_path / "y", force=True, resume=force)
    assert (work.folder / "thesis.txt").exists()
    shutil.rmtree(work.folder)


def test_a_full_disk_is_told_and_what_is_finished_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = shards(tmp_path / "in", state()), tmp_path / "y"
    expected = streamed(folder, tmp_path / "x")
    replace, done = os.replace, [0]

    def full(source: str, target: str) -> None:
        done[0] += 1
        if done[0] > 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr("tersor.stream.work.os.replace", full)
    with pytest.raises(TersorError, match=r"y.work: the disk is full; .*what is finished is kept for --resume"):
        tersor.compress(folder, RECIPE, out=out)
    monkeypatch.setattr("tersor.stream.work.os.replace", replace)
    assert not list(Path(f"{out}.work").glob(".*.tmp"))
    assert streamed(folder, out, resume=True) == expected


@pytest.mark.parametrize("how", ["truncated", "changed"])
def test_an_input_that_does_not_stay_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    folder, out = shards(tmp_path / "in", state()), tmp_path / "y"
    shard = folder / "model-0.safetensors"
    write = Work.write

    def meanwhile(self: Work, name: str, data: bytes) -> None:
        write(self, name, data)
        if name.startswith("head-1-") and name.endswith("-0"):
            os.truncate(shard, 3000) if how == "truncated" else os.utime(shard, (5, 5))

    monkeypatch.setattr(Work, "write", meanwhile)
    with pytest.raises(TersorError, match=r"model-0.safetensors was (cut short|changed) while it was read"):
        tersor.compress(folder, RECIPE, out=out)
    assert not out.exists()


def test_too_little_memory_says_how_much_does(tmp_path: Path) -> None:
    folder = shards(tmp_path / "in", state())
    with pytest.raises(TersorError, match=r"too few for .* give [0-9,]+MB at least") as caught:
        tersor.compress(folder, RECIPE, out=tmp_path / "x", memory="10MB")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"], "refused before the work: nothing is left"
    least = str(caught.value).split("give ")[1].split(" at")[0].replace(",", "")
    streamed(folder, tmp_path / "x", memory=least)


def test_importance_moves_errors(tmp_path: Path) -> None:
    tensors = state()
    weights = {"a": torch.full((100, 200), 16.0), "half": torch.full((90, 110), 0.25)}
    save_file(weights, tmp_path / "w.safetensors")
    plain = tersor.compress(tensors, RECIPE)
    weighed = tersor.compress(tensors, RECIPE, importance=weights)
    lazily = tersor.compress(tensors, RECIPE, importance=tersor.checkpoint.open_checkpoint(tmp_path / "w.safetensors"))
    assert weighed.to_bytes() == lazily.to_bytes()
    for name, better in (("a", True), ("half", False)):
        errors = [
            error_of({name: archive[name].float()}, {name: tensors[name].float()}) for archive in (plain, weighed)
        ]
        assert (errors[1] < errors[0]) == better
    for bad, message in (
        (torch.ones(3, 3), "has shape"),
        (torch.full((100, 200), -1.0), "negative"),
        (torch.zeros(100, 200), "zero everywhere"),
    ):
        with pytest.raises(TersorError, match=message):
            tersor.compress(tensors, RECIPE, importance={"a": bad})


def test_a_pruned_tensor_keeps_its_zeros(tmp_path: Path) -> None:
    tensors = state()
    tensors["a"] = torch.where(tensors["a"].abs() < tensors["a"].abs().quantile(0.8), 0.0, tensors["a"])
    streamed(shards(tmp_path / "in", tensors), tmp_path / "x", tersor.Recipe(bpp=1.5))
    found = tersor.open(tmp_path / "x")["a"]
    assert bool((found[tensors["a"] == 0] == 0).all()) and int(found.count_nonzero()) > 2000


@pytest.mark.parametrize("ratio", [1.05, 1.3])
def test_a_generous_target_is_met_exactly_or_nearly(tmp_path: Path, ratio: float) -> None:
    tensors = {"eye": torch.eye(150).repeat(2, 2), "w": state()["a"]}
    archive = tersor.compress(tensors, tersor.Recipe(ratio=ratio), out=tmp_path / "x")
    assert archive.size <= archive.recipe.budget(*archive.given)
    assert not archive.index.groups
    assert_same(archive.state_dict(), tensors)


def test_bad_values_and_targets_are_named(tmp_path: Path) -> None:
    tensors = state()
    tensors["a"][50, 50] = float("nan")
    with pytest.raises(TersorError, match="a holds NaN"):
        tersor.compress(tensors, RECIPE)
    tensors = state()
    tensors["norm"][3] = float("inf")
    with pytest.raises(TersorError, match="norm holds NaN or infinity"):
        tersor.compress(tensors, RECIPE)
    with pytest.raises(TersorError, match="smallest possible file is about"):
        tersor.compress(state(), tersor.Recipe(size=400))
    with pytest.raises(TersorError, match="need a file to write"):
        tersor.compress(state(), RECIPE, resume=True)


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    work = Work(tmp_path / "x.work")
    with work.alone(), pytest.raises(TersorError, match="another run is writing"):
        tersor.compress(shards(tmp_path / "in", state()), RECIPE, out=tmp_path / "x")
