from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch

from tersor import kernels
from tersor.additive.scheme import Scheme
from tersor.additive.start import initial_codebooks, kmeans


def error(vectors: torch.Tensor, books: torch.Tensor) -> float:
    codes, _ = kernels.beam_search(vectors, books, width=8)
    return float(((vectors - kernels.decode(codes, books)) ** 2).sum())


@pytest.fixture
def vectors() -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.laplace(size=(3000, 6)).astype(np.float32))


def test_kmeans_finds_separate_clusters() -> None:
    rng = np.random.default_rng(1)
    truth = 10 * rng.standard_normal((8, 4)).astype(np.float32)
    points = torch.from_numpy(np.repeat(truth, 50, axis=0) + 0.01 * rng.standard_normal((400, 4)).astype(np.float32))
    centres = kmeans(points, 8, np.random.default_rng(0))
    assert float(torch.cdist(torch.from_numpy(truth), centres).min(1).values.max()) < 0.02


def test_weighted_kmeans_serves_the_weighted_elements(vectors: torch.Tensor) -> None:
    weights = torch.zeros_like(vectors)
    weights[:, 2] = 1
    centres = kmeans(vectors, 32, np.random.default_rng(0), weights=weights)
    near = (vectors[:, 2, None] - centres[None, :, 2]).abs().min(1).values
    assert float((near**2).mean()) < 0.01 * float((vectors[:, 2] ** 2).mean())


def test_residual_start_is_as_good_as_faiss(vectors: torch.Tensor) -> None:
    books = initial_codebooks(vectors, Scheme(3, 16, 6), np.random.default_rng(0))
    peer = faiss.ResidualQuantizer(6, 3, 4)
    peer.train(vectors.numpy())
    left = vectors.numpy() - peer.decode(peer.compute_codes(vectors.numpy()))
    assert error(vectors, books) < 1.02 * float((left**2).sum())


def test_every_stage_lowers_the_error(vectors: torch.Tensor) -> None:
    books = initial_codebooks(vectors, Scheme(4, 16, 6), np.random.default_rng(0))
    errors = [error(vectors, books[:m].contiguous()) for m in range(1, 5)]
    assert errors == sorted(errors, reverse=True)


def test_fewer_vectors_than_codewords_are_their_own_codewords(vectors: torch.Tensor) -> None:
    few = vectors[:5]
    books = initial_codebooks(few, Scheme(2, 16, 6), np.random.default_rng(0))
    assert error(few, books) < 1e-9
    assert not initial_codebooks(vectors[:0], Scheme(2, 16, 6), np.random.default_rng(0)).any()


def test_equal_vectors_need_one_codeword() -> None:
    same = torch.full((40, 3), 0.25)
    assert error(same, initial_codebooks(same, Scheme(2, 8, 3), np.random.default_rng(0))) == 0


def test_the_seed_decides(vectors: torch.Tensor) -> None:
    first, again, other = (
        initial_codebooks(vectors, Scheme(2, 16, 6), np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
