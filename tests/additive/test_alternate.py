from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import faiss
import numpy as np
import pytest
import torch

from tersor import kernels
from tersor.additive.alternate import EFFORTS, Fit, fit, reencode
from tersor.additive.rate import code_bits, code_counts, total_bits
from tersor.additive.scheme import Scheme
from tersor.errors import TersorError

SCHEME = Scheme(3, 16, 6)
VECTORS = torch.from_numpy(np.random.default_rng(0).laplace(size=(2500, 6)).astype(np.float32))
TABLE = (torch.arange(2500) // 500).to(torch.int32)
VECTORS[TABLE == 3] *= 0.2


def error(found: Fit, vectors: torch.Tensor = VECTORS) -> float:
    return float(((vectors - kernels.decode(found.codes, found.codebooks)).double() ** 2).sum())


def same(first: Fit, second: Fit) -> bool:
    pairs = zip(dataclasses.astuple(first), dataclasses.astuple(second), strict=True)
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def test_lower_error_than_faiss() -> None:
    raw = VECTORS.numpy()
    peer = faiss.ResidualQuantizer(6, 3, 4)
    peer.train(raw)
    left = raw - peer.decode(peer.compute_codes(raw))
    for effort in EFFORTS:
        assert error(fit(VECTORS, SCHEME, effort=effort)) < 0.95 * float((left.astype(np.float64) ** 2).sum())


def test_more_effort_less_error() -> None:
    errors = [error(fit(VECTORS, SCHEME, effort=effort)) for effort in EFFORTS]
    assert errors == sorted(errors, reverse=True)


def test_the_error_falls_in_every_round_without_relaxation() -> None:
    history = fit(VECTORS, SCHEME, effort="draft", rounds=12).history
    assert len(history) == 12
    assert all(after <= before * (1 + 1e-6) for before, after in itertools.pairwise(history))


def test_the_figures_are_those_of_the_codes() -> None:
    found = fit(VECTORS, SCHEME, table=TABLE, lam=0.05, effort="draft")
    assert found.codebooks.shape == (3, 16, 6)
    assert found.codes.shape == (2500, 3)
    assert found.codes.dtype == torch.int32
    assert abs(found.distortion - error(found)) < 1e-4 * error(found)
    counts = code_counts(found.codes, 16, TABLE)
    assert torch.equal(found.bits, code_bits(counts))
    assert found.rate_bits == total_bits(counts, found.bits)


def test_lambda_trades_bits_for_error() -> None:
    found = [fit(VECTORS, SCHEME, table=TABLE, lam=lam, effort="draft") for lam in (0.0, 0.05, 0.2, 1.0)]
    assert [f.rate_bits for f in found] == sorted((f.rate_bits for f in found), reverse=True)
    assert [f.distortion for f in found] == sorted(f.distortion for f in found)
    # At the middle lambda its own fit beats both neighbours' by the cost they all claim to minimise.
    costs = [f.distortion + 0.2 * f.rate_bits for f in found]
    assert min(costs) == costs[2]


@pytest.mark.parametrize("kind", ["vector", "element"])
def test_importance_moves_the_error_away_from_what_matters(kind: str) -> None:
    weights = torch.ones(2500) if kind == "vector" else torch.ones(2500, 6)
    weights[:500] = 25.0
    plain, weighted = fit(VECTORS, SCHEME, effort="draft"), fit(VECTORS, SCHEME, effort="draft", weights=weights)
    per_vector = [((VECTORS - kernels.decode(f.codes, f.codebooks)).double() ** 2).sum(1) for f in (plain, weighted)]
    assert per_vector[1][:500].sum() < 0.8 * per_vector[0][:500].sum()
    assert abs(weighted.distortion - float((per_vector[1] * (24.0 * (torch.arange(2500) < 500) + 1)).sum())) < 1.0


def test_elements_without_weight_do_not_influence() -> None:
    weights = torch.ones(2500, 6)
    weights[100:200, 2] = 0
    changed = VECTORS.clone()
    changed[100:200, 2] = 7.0
    assert same(*(fit(x, SCHEME, effort="draft", rounds=3, weights=weights, lam=0.1) for x in (VECTORS, changed)))


def test_a_sample_trains_codebooks_for_all() -> None:
    found = fit(VECTORS, SCHEME, effort="draft", sample=800, table=TABLE, lam=0.02)
    whole = fit(VECTORS, SCHEME, effort="draft", table=TABLE, lam=0.02)
    assert found.codes.shape == whole.codes.shape
    costs = [f.distortion + 0.02 * f.rate_bits for f in (whole, found)]
    assert costs[1] < 1.1 * costs[0]


@pytest.mark.parametrize("count", [0, 1, 2, 15, 17])
@pytest.mark.parametrize("lam", [0.0, 0.01])
def test_few_vectors_work(count: int, lam: float) -> None:
    few = VECTORS[:count]
    for weights in (None, torch.ones(count), torch.ones(count, 6)):
        found = fit(few, SCHEME, lam=lam, weights=weights, effort="draft")
        assert found.codes.shape == (count, 3)
        assert bool(found.codebooks.isfinite().all())
        if lam == 0 and count <= 16:
            assert error(found, few) < 1e-8


def test_codes_for_rounded_codebooks() -> None:
    found = fit(VECTORS, SCHEME, table=TABLE, lam=0.05, effort="draft")
    books = (found.codebooks * 16).round() / 16

    def cost(codes: torch.Tensor) -> float:
        moved = dataclasses.replace(found, codebooks=books, codes=codes)
        return error(moved) + 0.05 * total_bits(code_counts(codes, 16, TABLE), found.bits)

    again = reencode(VECTORS, books, table=TABLE, bits=found.bits, lam=0.05, codes=found.codes)
    assert cost(again) < cost(found.codes)
    afresh = reencode(VECTORS, books, table=TABLE, bits=found.bits, lam=0.05)
    assert cost(afresh) < 1.02 * cost(again)


def test_the_same_bytes_at_any_thread_count_and_global_randomness_is_left_alone() -> None:
    before, threads = (torch.get_rng_state(), np.random.get_state()[1].copy()), torch.get_num_threads()  # noqa: NPY002
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(fit(VECTORS, SCHEME, table=TABLE, lam=0.05, rounds=6))
    torch.set_num_threads(threads)
    assert same(results[0], results[1])
    assert same(results[0], results[2])
    assert not same(results[0], fit(VECTORS, SCHEME, table=TABLE, lam=0.05, rounds=6, seed=1))
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002


def test_progress_counts_the_rounds() -> None:
    seen: list[tuple[int, int]] = []
    fit(VECTORS[:100], SCHEME, rounds=3, progress=lambda done, rounds: seen.append((done, rounds)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": torch.zeros(4, 5)}, "vectors are"),
        ({"table": torch.zeros(4, dtype=torch.int32)}, "table is"),
        ({"weights": torch.ones(2500, 3)}, "weights are"),
        ({"weights": -torch.ones(2500)}, "negative"),
        ({"lam": -1.0}, "lambda"),
        ({"lam": float("nan")}, "lambda"),
        ({"effort": "heroic"}, "heroic"),
    ],
)
def test_bad_requests_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TersorError, match=message):
        fit(**({"vectors": VECTORS, "scheme": SCHEME} | change))
