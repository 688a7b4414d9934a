"""`tersor.passes.saliency`: the order and the cost of merging."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tersor.passes.saliency import merged, saliency


def test_saliency_by_hand_and_not_symmetric() -> None:
    rows, columns = np.array([[1.0, 0, 2], [3, 1, 2], [0, 0, 0]]), np.array([[1.0, 3], [2, 0], [0, 4]])
    s = saliency(rows, columns)
    assert s[0, 1] == 5 * 2 and s[1, 0] == 5 * 5 and s[0, 2] == 5 * 8 and np.isinf(s.diagonal()).all()
    i, j, _ = merged(rows, columns, 1).pairs[0]
    assert (i, j) == (0, 1)  # of the pair, the one with the small outgoing weights goes


def naive(rows: np.ndarray, columns: np.ndarray) -> list[float]:
    """The algorithm as it is written, all saliencies anew each time."""
    rows, columns, found = rows.copy(), columns.copy(), []
    while len(rows) > 1:
        s = np.array([[np.square(columns[j]).mean() * np.square(a - b).sum() if i != j else np.inf
                       for j, b in enumerate(rows)] for i, a in enumerate(rows)])  # fmt: skip
        i, j = np.unravel_index(s.T.argmin(), s.shape)[::-1]
        found.append(s[i, j])
        columns[i] += columns[j]
        rows, columns = np.delete(rows, j, 0), np.delete(columns, j, 0)
    return found


@given(st.integers(2, 14), st.integers(0, 10**6))
def test_bookkeeping_gives_what_the_plain_algorithm_does(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, columns = random.normal(size=(count, 4)), random.normal(size=(count, 3))
    found = merged(rows, columns)
    assert np.allclose(found.saliencies, naive(rows, columns)) and len(found.keep) == 1
    assert np.allclose(found.columns.sum(0), columns.sum(0))


def test_many_twins_keep_their_exact_zeros() -> None:
    random = np.random.default_rng(0)
    rows = np.repeat(random.normal(size=(20, 300)) * 100, 5, axis=0)
    found = merged(rows, random.normal(size=(100, 7)), 80)
    assert found.saliencies.max() == 0 and sorted(k // 5 for k in found.keep) == list(range(20))
