from __future__ import annotations

import numpy as np
import pytest
import torch

from tersor import kernels
from tersor.additive import refit as module
from tersor.additive.refit import refit, revive

Drawn = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.fixture
def drawn() -> Drawn:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(400, 4, generator=generator)
    books = torch.randn(3, 8, 4, generator=generator)
    return vectors, books, torch.randint(8, (400, 3), generator=generator, dtype=torch.int32)


def one_hot(codes: torch.Tensor, size: int) -> np.ndarray:
    return np.concatenate([np.eye(size)[column] for column in codes.long().numpy().T], axis=1)


def error(vectors: torch.Tensor, books: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    return ((vectors - kernels.decode(codes, books)).double() ** 2).sum(1)


@pytest.mark.parametrize("kind", ["none", "per_vector", "per_element"])
@pytest.mark.parametrize("limit", [0, 2048])
def test_refit_is_least_squares(drawn: Drawn, kind: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DIRECT_LIMIT", limit)
    vectors, books, codes = drawn
    generator = torch.Generator().manual_seed(1)
    weights = {
        "none": None,
        "per_vector": torch.rand(400, generator=generator),
        "per_element": torch.rand(400, 4, generator=generator),
    }[kind]
    dense = one_hot(codes, 8)
    w = np.ones((400, 4)) if weights is None else weights.double().numpy().reshape(400, -1) * np.ones((400, 4))
    columns = []
    for j in range(4):
        root = np.sqrt(w[:, j])
        best, *_ = np.linalg.lstsq(root[:, None] * dense, root * vectors[:, j].double().numpy(), rcond=None)
        columns.append(dense @ best)
    found = kernels.decode(codes, refit(vectors, books, codes, weights)).numpy()
    np.testing.assert_allclose(found, np.stack(columns, axis=1), atol=2e-4)


def test_refit_never_raises_the_error_and_leaves_idle_codewords(drawn: Drawn) -> None:
    vectors, books, codes = drawn
    codes = codes % 5
    fitted = refit(vectors, books, codes)
    assert error(vectors, fitted, codes).sum() < error(vectors, books, codes).sum()
    again = refit(vectors, fitted, codes)
    assert error(vectors, again, codes).sum() <= error(vectors, fitted, codes).sum() * (1 + 1e-6)
    assert torch.equal(fitted[:, 5:], books[:, 5:])


def test_elements_without_weight_do_not_count(drawn: Drawn) -> None:
    vectors, books, codes = drawn
    weights = torch.ones(400, 4)
    weights[::2, 1] = 0
    changed = vectors.clone()
    changed[::2, 1] = 1e3
    assert torch.equal(refit(vectors, books, codes, weights), refit(changed, books, codes, weights))
    assert bool(refit(vectors, books, codes, torch.zeros(400)).isfinite().all())


def test_no_vectors_no_change(drawn: Drawn) -> None:
    _, books, codes = drawn
    assert torch.equal(refit(torch.zeros(0, 4), books, codes[:0]), books)


def test_dead_codewords_take_over_the_worst_vectors(drawn: Drawn) -> None:
    vectors, books, codes = drawn
    codes = codes.clone()
    codes[:, 1] %= 6  # codewords 6 and 7 of stage 1 are dead
    cost = error(vectors, books, codes).float()
    revived = revive(vectors, books, codes, cost, np.random.default_rng(0))
    changed = (revived != books).any(2).nonzero().tolist()
    assert changed == [[1, 6], [1, 7]]
    served = set()
    for word in (6, 7):
        trial = codes.clone()
        trial[:, 1] = word
        exact = (error(vectors, revived, trial) < 1e-10).nonzero()[:, 0].tolist()
        assert len(exact) == 1
        assert int((cost > cost[exact[0]]).sum()) < 8  # among the worst
        served.add(exact[0])
    assert len(served) == 2
    assert torch.equal(revived, revive(vectors, books, codes, cost, np.random.default_rng(0)))


def test_nothing_dead_or_nothing_wrong_changes_nothing(drawn: Drawn) -> None:
    vectors, books, codes = drawn
    generator = np.random.default_rng(0)
    assert torch.equal(revive(vectors, books, codes, torch.ones(400), generator), books)
    assert torch.equal(revive(vectors, books, codes % 4, torch.zeros(400), generator), books)
    few = revive(vectors[:3], books, codes[:3], torch.ones(3), generator)
    assert int((few != books).any(2).sum()) == 3
