"""Histograms of symbols, and what is said of them."""

from __future__ import annotations

import numpy as np
import pytest
from archives import KINDS, archive_bytes

from tersor.archive import Archive
from tersor.report import sharing, symbols
from tersor.report.facts import gather
from tersor.report.use import use_of

CODED = [kind for kind in KINDS if kind != "kept"]


@pytest.mark.parametrize("kind", CODED)
def test_each_tensor_comes_once_with_all_its_symbols(kind: str) -> None:
    archive = Archive(archive_bytes(kind))
    index = archive.index
    for g, members in enumerate(index.coded):
        found = dict(symbols.symbols_of(archive, g))
        assert sorted(found) == sorted(members)
        for k, i in enumerate(members):
            values = int(np.prod(index.shapes[i]))
            if g < len(index.groups) and index.groups[g].survivors is None:
                shape = archive.group(g).planes.shapes[k]
                vectors = shape.rows * shape.cols
                values = vectors if index.groups[g].num_codebooks else vectors * shape.dim
            elif g < len(index.groups):
                shape = archive.group(g).planes.shapes[k]
                values = shape.size
            assert (found[i].sum(axis=1) == values).all()


def test_levels_and_shared_values_are_as_often_as_their_values() -> None:
    """Without a basis or padding a level is a value: decoded tensors have the same histogram."""
    for kind in ("gpt", "shared16"):
        archive = Archive(archive_bytes(kind))
        back = archive.state_dict()
        seen = 0
        for g in range(len(archive.index.coded)):
            if g < len(archive.index.groups) and archive.index.groups[g].dim > 1:
                continue
            for i, counts in symbols.symbols_of(archive, g):
                beyond = np.abs(np.flatnonzero(counts[0]) - symbols.SIDE).max() >= symbols.EDGE
                if kind == "gpt" and beyond:
                    continue  # levels that are counted together
                _, often = np.unique(back[archive.index.names[i]].numpy(), return_counts=True)
                assert sorted(often) == sorted(counts[counts > 0]), archive.index.names[i]
                seen += 1
        assert seen > 0, kind


def test_columns_of_levels() -> None:
    assert symbols.column_of(np.array([0, 1, 63, 64, 76, 77, 127, 128, 1 << 30])).tolist() == [
        0, 1, 63, 64, 64, 65, 67, 68, 64 + 4 * 24
    ]  # fmt: skip
    for column in (0, 1, 63, 64, 65, 70, symbols.SIDE - 8):
        assert symbols.column_of(np.array([symbols.magnitude_of(column)])).tolist() == [column]
    assert symbols.column_of(np.array([(1 << 31) - 1])).item() <= symbols.SIDE


def test_observed_shares() -> None:
    users = np.array([[0, 1, 2, 3], [4, 1, 0, 2]])
    assert sharing.observed(users, 4) == sharing.Shares(4 / 6, 4 / 6)
    assert sharing.observed(users, 6) == sharing.Shares(4 / 6, 2 / 6)
    assert sharing.observed(np.zeros((1, 4), dtype=np.int64), 3) == sharing.Shares(0, 0)


@pytest.mark.parametrize("layers", [2, 7, 450])
def test_expected_shares_are_those_of_many_draws(layers: int) -> None:
    rng = np.random.default_rng(3)
    total = np.sort(rng.integers(0, 400, (2, 40)), axis=1)
    sizes = rng.integers(5, 60, layers)
    share = total / total.sum(axis=1, keepdims=True)
    rounds, two, half, some = 200, 0.0, 0.0, 0.0
    for _ in range(rounds):
        users = sum((np.stack([rng.multinomial(n, p) for p in share]) > 0).astype(int) for n in sizes)
        some += (users >= 1).sum()
        two += (users >= 2).sum()
        half += (users >= -(-layers // 2)).sum()
    found = sharing.expected(total, sizes.tolist())
    assert found.two == pytest.approx(two / some, abs=0.02)
    assert found.half == pytest.approx(half / some, abs=0.02)


def test_divergence() -> None:
    counts = np.array([[[8, 0, 0, 0]], [[0, 3, 0, 0]], [[2, 2, 0, 0]], [[4, 4, 0, 0]], [[0, 0, 0, 0]]])
    found = sharing.divergence(counts)
    assert found[0, 1] == pytest.approx(1) and found[2, 3] == pytest.approx(0) and not np.diag(found).any()
    p, q = np.array([1, 0]), np.array([0.5, 0.5])
    mixed = (p + q) / 2
    by_hand = 0.5 * (p[:1] * np.log2(p[:1] / mixed[:1])).sum() + 0.5 * (q * np.log2(q / mixed)).sum()
    assert found[0, 2] == pytest.approx(by_hand) and (found == found.T).all()
    assert not found[4].any(), "a row without symbols"
    assert sharing.mean_between(found[:2, :2]) == pytest.approx(1) and sharing.mean_between(found[:1, :1]) == 0


def test_layers_that_draw_alike_differ_by_chance_only() -> None:
    rng = np.random.default_rng(5)
    share = rng.dirichlet(np.ones(64), 2)
    alike = np.stack([[rng.multinomial(300, p) for p in share] for _ in range(8)])
    chance = sharing.mean_between(sharing.divergence_by_chance(alike))
    assert sharing.mean_between(sharing.divergence(alike)) == pytest.approx(chance, rel=0.1)
    assert (sharing.divergence_by_chance(alike) == sharing.divergence_by_chance(alike)).all()


def test_users_and_rows_of_a_group() -> None:
    archive = Archive(archive_bytes("additive"))
    facts = gather(archive)
    use = use_of(archive, facts, 0)
    each = dict(symbols.symbols_of(archive, 0))
    users = sum((counts > 0).astype(int) for counts in each.values())
    assert use.kind == "codewords" and use.layers == 6 and len(use.rows) == 6
    assert use.shares == sharing.observed(users, 6)
    assert (use.counts.sum(axis=0) == sum(each.values())).all()
    assert use.overlap.shape == (6, 6) and np.allclose(np.diag(use.overlap), 1)
    assert 0 <= use.between <= use.between_by_chance <= 1, "layers of different loudness use other codewords"
