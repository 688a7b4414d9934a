from __future__ import annotations

import os
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn

import tersor
from networks import assert_same, network, raw
from tersor.archive import Archive
from tersor.errors import ArchiveError, TersorError
from tersor.recipe import Recipe


class Net(nn.Module):
    def __init__(self, width: int = 24, outputs: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, outputs)
        self.again = self.fc

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.norm(self.conv(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def archive() -> Archive:
    return tersor.compress(network(), Recipe(ratio=8))


def test_it_is_a_mapping_of_names(archive: Archive) -> None:
    assert list(archive) == list(network()) and len(archive) == len(network())
    assert "fc.weight" in archive and "nothing" not in archive and 3 not in archive
    with pytest.raises(KeyError, match="nothing"):
        archive["nothing"]


def test_one_tensor_is_read_from_its_own_sections(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = Archive.section
    monkeypatch.setattr(Archive, "section", lambda self, i: read.append(i) or original(self, i))
    archive["norm.num_batches_tracked"]
    assert {archive.sections.name(i) for i in read} == {"kept tensors"}
    read.clear()
    archive["conv.weight"]
    assert {archive.sections.name(i) for i in read} == {"group 0"}


def test_opening_reads_the_index_only(archive: Archive, tmp_path: Path) -> None:
    archive.save(tmp_path / "a.tersor")
    opened = tersor.open(tmp_path / "a.tersor")
    assert list(opened) == list(archive) and opened.size == archive.size
    data = bytearray(archive.to_bytes())
    data[-1 - opened.index.lengths[-1]] ^= 1
    (tmp_path / "a.tersor").write_bytes(data)
    again = tersor.open(tmp_path / "a.tersor")
    with pytest.raises(ArchiveError, match=r"a\.tersor: section \d+ \(.*\) is damaged"):
        again.verify()


def test_tensors_come_one_by_one_and_none_is_kept(archive: Archive) -> None:
    seen, before = {}, None
    for name, tensor in archive.tensors():
        assert before is None or before() is None, "an earlier tensor is still held"
        seen[name] = tensor.sum().item()
        before = weakref.ref(tensor)
        del tensor
    expected = archive.state_dict()
    assert seen.keys() == {entry.name for entry in archive.entries if entry.tied_to is None}
    assert all(seen[name] == expected[name].sum().item() for name in seen)
    for entry in archive.entries:
        assert (entry.shape, f"torch.{entry.dtype}") == (
            tuple(expected[entry.name].shape),
            str(expected[entry.name].dtype),
        )
        assert entry.tied_to is None or expected[entry.name] is expected[entry.tied_to]


def test_what_is_decoded_is_the_callers(archive: Archive) -> None:
    first = archive.state_dict()
    for tensor in first.values():
        tensor.zero_()
    assert archive["conv.weight"].abs().sum() > 0 and archive["norm.weight"].abs().sum() > 0


def test_large_kept_tensors_have_sections_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {
        "ids": torch.arange(70_000),
        "few": torch.arange(9),
        "half": torch.ones(9).half(),
        "w": torch.ones(40, 40).tril(),
    }
    monkeypatch.setattr("tersor.representations.kept.POOLED", 1000)
    archive = tersor.compress(state, Recipe(size=300_000, exclude=("w",)))
    assert len(archive.index.lengths) == 2 + 2 + 1
    assert_same(archive.state_dict(), state)
    assert_same({name: archive[name] for name in reversed(list(state))}, dict(reversed(list(state.items()))))


def test_it_fits_the_module_it_came_from() -> None:
    model = Net()
    archive = tersor.compress(model, Recipe(ratio=2.5))
    other = Net()
    assert archive.apply_(other) is other
    assert_same(dict(other.state_dict()), archive.state_dict())
    assert other.again.weight is other.fc.weight
    found = archive.state_dict()
    assert found["again.weight"].data_ptr() == found["fc.weight"].data_ptr()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Net(width=25), ["of another shape: conv.weight"]),
        (
            nn.Sequential(*[nn.Linear(2, 2) for _ in range(9)]),
            ["missing in the archive: 0.bias", "not in the model: again", "…"],
        ),
        (nn.Linear(3, 3), ["Linear", "missing in the archive: bias, weight"]),
    ],
)  # fmt: skip
def test_a_model_that_does_not_fit_is_told_and_left_alone(model: nn.Module, words: list[str]) -> None:
    archive = tersor.compress(Net(), Recipe(ratio=2.5))
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.raises(TersorError) as caught:
        archive.apply_(model)
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)
    assert_same(dict(model.state_dict()), before)


def test_at_most_ten_names_are_listed() -> None:
    archive = tersor.compress({f"t{i:02}": torch.zeros(3) for i in range(30)}, Recipe(ratio=0.01))
    with pytest.raises(TersorError) as caught:
        archive.apply_(nn.Identity())
    assert str(caught.value).count("t0") == 10 and "t10" not in str(caught.value) and "…" in str(caught.value)


def test_saving_is_atomic_and_asks_before_it_replaces(archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "a.tersor"
    assert archive.save(path) == archive.size == path.stat().st_size
    path.write_bytes(b"precious")
    with pytest.raises(TersorError, match="exists"):
        archive.save(path)
    assert path.read_bytes() == b"precious"
    assert archive.save(path, force=True) == archive.size
    assert path.read_bytes() == archive.to_bytes() and os.listdir(tmp_path) == ["a.tersor"]
    opened = tersor.open(path)
    assert opened.save(path, force=True) == archive.size  # over itself
    assert path.read_bytes() == archive.to_bytes()


@pytest.mark.parametrize("kind", ["missing", "folder", "empty"])
def test_what_is_no_file_is_named(tmp_path: Path, kind: str) -> None:
    path = {"missing": tmp_path / "x.tersor", "folder": tmp_path, "empty": tmp_path / "empty"}[kind]
    if kind == "empty":
        path.touch()
    with pytest.raises(ArchiveError) as caught:
        tersor.open(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_verifying_tells_its_progress(archive: Archive) -> None:
    steps: list[tuple[int, int]] = []
    archive.verify(lambda done, total: steps.append((done, total)))
    assert steps[-1][0] == steps[-1][1] and [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_halves_are_clamped_to_their_range() -> None:
    signs = torch.randn(40, 40, generator=torch.Generator().manual_seed(0)).sign()
    state = {"w": (65504 * signs).half()}
    found = tersor.compress(state, Recipe(bpp=3))["w"]
    assert found.isfinite().all() and found.dtype == torch.float16
    assert raw(found) == raw(tersor.compress(state, Recipe(bpp=3))["w"])
