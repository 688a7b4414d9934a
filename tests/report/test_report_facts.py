"""Facts against what can be counted by hand."""

from __future__ import annotations

import math

import pytest
import torch
from archives import KINDS, archive_bytes, gpt, state

import tersor
from networks import nbytes
from tersor.archive import Archive
from tersor.checkpoint import open_checkpoint
from tersor.errors import TersorError
from tersor.recipe import Recipe
from tersor.report.against import measure
from tersor.report.errors import errors_of
from tersor.report.facts import gather


@pytest.mark.parametrize("kind", KINDS)
def test_every_byte_has_its_place(kind: str) -> None:
    archive = Archive(archive_bytes(kind))
    facts, dense = gather(archive), state(kind)
    assert [t.name for t in facts.tensors] == list(dense)
    assert facts.size == len(archive_bytes(kind)) and facts.given == nbytes(dense)
    assert sum(t.before for t in facts.tensors) == facts.given
    placed = sum(t.after for t in facts.tensors) + sum(size for _, size in facts.shared)
    assert placed == pytest.approx(facts.size, abs=0.1 * len(dense) + 1e-3)
    assert all(size >= 0 for _, size in facts.shared)
    assert facts.ratio == facts.given / facts.size
    for t in facts.tensors:
        assert t.shape == tuple(dense[t.name].shape) and t.numel == dense[t.name].numel()
        assert (t.bits is not None) == (t.kind == "coded") and bool(t.reason) == (t.kind == "kept")
        if t.bits is not None:
            assert 8 * t.after == pytest.approx(t.bits * t.numel, abs=0.41 + 5e-5 * t.numel)  # rounded


def test_ties_are_told_and_counted_once() -> None:
    facts = gather(Archive(archive_bytes("gpt")))
    tied = [t for t in facts.tensors if t.kind == "tied"]
    assert len(tied) == 1 and tied[0].before == tied[0].after == 0
    assert len(facts.owned) == len(facts.tensors) - 1


@pytest.mark.parametrize("kind", KINDS)
def test_measured_errors_are_those_of_the_tensors(kind: str) -> None:
    archive, dense = Archive(archive_bytes(kind)), state(kind)
    measured = measure(archive, open_checkpoint(dense))
    back = archive.state_dict()
    error = energy = 0.0
    for name in {entry.owner for entry in archive.entries}:
        a, b = dense[name], back[name]
        if torch.equal(a, b):
            assert measured.ratios[name] == 0
            continue
        lost = float((a.double() - b.double()).square().sum())
        assert measured.ratios[name] == pytest.approx(lost / float(a.double().square().sum()))
        error, energy = error + lost, energy + float(a.double().square().sum())
    assert not (measured.missing or measured.extra or measured.reshaped or measured.unlike)
    facts = gather(archive)
    found, told = errors_of(facts, measured), errors_of(facts, None)
    assert found.overall == pytest.approx(error / energy if energy else 0.0)
    for i, ratio in told.ratios.items():  # the index has them in half decibels
        assert 10 * math.log10(found.ratios[i]) == pytest.approx(10 * math.log10(ratio), abs=0.3)


def test_the_median_is_that_of_the_weights() -> None:
    facts = gather(Archive(archive_bytes("lattice")))
    found = errors_of(facts, None)
    half = sum(facts.tensors[i].numel for i in found.ratios) / 2
    middle = found.median(facts)
    assert sum(facts.tensors[i].numel for i, r in found.ratios.items() if r <= middle) >= half
    assert sum(facts.tensors[i].numel for i, r in found.ratios.items() if r < middle) < half
    assert found.worst is not None and found.ratios[found.worst] == max(found.ratios.values())


def test_what_does_not_fit_is_told() -> None:
    dense = state("lattice")
    archive = Archive(archive_bytes("lattice"))
    other = {**dense, "fc.weight": dense["fc.weight"][:5], "new": torch.zeros(3), "mask": ~dense["mask"]}
    del other["fc.bias"]
    found = measure(archive, open_checkpoint(other))
    assert found.reshaped == [("fc.weight", (16, 64), (5, 64))]
    assert (found.missing, found.extra, found.unlike) == (["fc.bias"], ["new"], ["mask"])
    zeros = {**dense, "conv.weight": torch.zeros(16, 16, 3, 3), "norm.weight": torch.full((16,), math.nan)}
    found = measure(archive, open_checkpoint(zeros))
    assert found.ratios["conv.weight"] == math.inf and found.unlike == ["norm.weight"]
    with pytest.raises(TersorError, match="no tensor has the same name and shape"):
        measure(archive, open_checkpoint({"conv.weight": torch.zeros(3)}))


def test_many_tensors_make_one_row_each_at_most() -> None:
    archive = tersor.compress(gpt(3), Recipe(ratio=6, effort="draft"))
    facts = gather(archive)
    assert len(facts.tensors) == 20 and sum(t.kind == "coded" for t in facts.tensors) >= 10
