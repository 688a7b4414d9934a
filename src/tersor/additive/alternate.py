"""The alternation: codes given codebooks and rates, rates given codes, codebooks given codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from tersor import kernels
from tersor.additive.rate import code_bits, code_counts, total_bits
from tersor.additive.refit import refit, revive
from tersor.additive.scheme import Scheme
from tersor.additive.search import Search, encode
from tersor.additive.start import initial_codebooks
from tersor.errors import TersorError

EffortName = Literal["draft", "default", "best"]


@dataclass(frozen=True)
class Effort:
    """How much work a fit does.

    Attributes:
        rounds: of the alternation.
        search: in each round.
        final: the search after the last round, and for vectors outside the sample.
        relaxation: noise on the codebooks before a search, over the spread of the vectors, falling to 0 (SR-D of
            Martinez et al., "LSQ++", ECCV 2018); it gets the alternation out of poor optima. At a fixed rate only: with
            the rate in the search, noisy codes flatten the frequencies, which costs more than the noise gains.
        sample: vectors the codebooks are trained on, at least.
    """

    rounds: int
    search: Search
    final: Search
    relaxation: float
    sample: int


EFFORTS: dict[EffortName, Effort] = {
    "draft": Effort(10, Search(0, restarts=1), Search(8), 0.0, 1 << 16),
    "default": Effort(20, Search(4, restarts=1), Search(16, restarts=2), 0.07, 1 << 17),
    "best": Effort(60, Search(8, restarts=2), Search(32, restarts=8), 0.1, 1 << 19),
}
_RELAXED = 0.7
"""Part of the rounds with relaxation."""
_SAMPLE_PER_WORD = 64


@dataclass(frozen=True)
class Fit:
    """Vectors as additive codes.

    Attributes:
        codebooks: float32 [M, K, d].
        codes: int32 [N, M].
        bits: float32 [T, M, K], the ideal code lengths for these codes.
        distortion: weighted squared error of all vectors.
        rate_bits: bits of all codes under `bits`; no codebooks, no tables.
        history: summed cost after each round's search, under that round's lambda, bits and relaxation.
    """

    codebooks: torch.Tensor
    codes: torch.Tensor
    bits: torch.Tensor
    distortion: float
    rate_bits: float
    history: tuple[float, ...] = ()


def fit(
    vectors: torch.Tensor,
    scheme: Scheme,
    *,
    table: torch.Tensor | None = None,
    weights: torch.Tensor | None = None,
    lam: float = 0.0,
    rounds: int | None = None,
    effort: EffortName = "default",
    sample: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Fit:
    """Codebooks and codes that minimise `sum w |x - sum_m C_m[i_m]|^2 + lam * bits`.

    Residual k-means start, then rounds of: least-squares refit of the codebooks, revival of unused codewords, search
    for codes with the rate as a bias, new frequencies. Lambda is warmed up over the first half of the rounds.
    Deterministic: the same bytes at any thread count, and no global random state is touched.

    Args:
        vectors: float32 [N, d], finite, on any device.
        scheme: M, K, d.
        table: int32 [N], the frequency table (the tensor, say) each vector belongs to; one table without.
        weights: float32 [N] or [N, d], non-negative, of the squared error; 1 without.
        lam: squared error a bit is worth; 0 is a fixed rate.
        rounds: instead of the effort's.
        effort: "draft", "default" or "best".
        sample: vectors to train codebooks on, instead of the effort's; all vectors are encoded in the end.
        seed: of every random choice.
        progress: called with rounds done and rounds in all.

    Raises:
        TersorError: shapes disagree, or a value is negative that must not be.
    """
    _check(vectors, scheme, table, weights, lam, effort)
    plan = EFFORTS[effort]
    if weights is not None and weights.ndim == 2:
        vectors = torch.where(weights > 0, vectors, 0.0)  # so that what has no weight has no influence at all
    rounds = plan.rounds if rounds is None else rounds
    tables = 1 if table is None or len(table) == 0 else int(table.max()) + 1
    generator = np.random.default_rng(seed)
    limit = max(plan.sample, _SAMPLE_PER_WORD * scheme.codebook_size) if sample is None else sample
    picked = _sample(len(vectors), limit, generator, vectors.device)
    x = vectors if picked is None else vectors[picked]
    t = table if table is None or picked is None else table[picked]
    w = weights if weights is None or picked is None else weights[picked]
    books = initial_codebooks(x, scheme, generator, weights=w)
    codes, cost = encode(x, books, plan.search, weights=w)
    relaxation = plan.relaxation if lam == 0 else 0.0
    spread = _spread(x, w)
    history = []
    for done in range(rounds):
        warm = min(1.0, 2 * (done + 1) / rounds)
        bits = code_bits(code_counts(codes, scheme.codebook_size, t, tables))
        books = refit(x, books, codes, w)
        books = revive(x, books, codes, _errors(x, books, codes, w), generator)
        heat = relaxation * max(0.0, 1 - done / (_RELAXED * rounds))
        noise = generator.standard_normal(tuple(books.shape), dtype=np.float32) * np.float32(heat) * spread
        trial = books + torch.from_numpy(noise).to(books.device) if heat > 0 else books
        codes, cost = encode(
            x, trial, plan.search, codes=codes, weights=w, lam=warm * lam, bits=bits, table=t, seed=done
        )
        history.append(_total(cost))
        if progress is not None:
            progress(done + 1, rounds)
    counts = code_counts(codes, scheme.codebook_size, t, tables)
    books = refit(x, books, codes, w)
    found = reencode(
        vectors,
        books,
        codes=codes if picked is None else None,
        bits=code_bits(counts),
        table=table,
        lam=lam,
        weights=weights,
        effort=effort,
        seed=rounds,
    )
    books = refit(vectors, books, found, weights)
    counts = code_counts(found, scheme.codebook_size, table, tables)
    bits = code_bits(counts)
    error = _total(_errors(vectors, books, found, weights))
    return Fit(books, found, bits, error, total_bits(counts, bits), tuple(history))


def reencode(
    vectors: torch.Tensor,
    codebooks: torch.Tensor,
    *,
    table: torch.Tensor | None = None,
    bits: torch.Tensor | None = None,
    lam: float = 0.0,
    weights: torch.Tensor | None = None,
    effort: EffortName = "default",
    codes: torch.Tensor | None = None,
    seed: int = 0,
) -> torch.Tensor:
    """Codes int32 [N, M] for codebooks that are given (rounded to what a file stores, say) and given bits.

    The arguments are those of `fit`, `bits` float32 [T, M, K]; with `codes` to improve on, no vector's cost rises.
    """
    found, _ = encode(
        vectors,
        codebooks,
        EFFORTS[effort].final,
        codes=codes,
        weights=weights,
        lam=lam,
        bits=bits,
        table=table,
        seed=seed,
    )
    return found


def reencode_on(
    device: str,
    vectors: torch.Tensor,
    codebooks: torch.Tensor,
    *,
    table: torch.Tensor,
    bits: torch.Tensor,
    lam: float,
    weights: torch.Tensor | None,
    effort: EffortName,
    seed: int,
    codes: torch.Tensor | None = None,
) -> torch.Tensor:
    """`reencode` on a device, for tensors on the CPU and back to there."""
    found = reencode(
        vectors.to(device),
        codebooks.to(device),
        table=table.to(device),
        bits=bits.to(device),
        lam=lam,
        weights=None if weights is None else weights.to(device),
        effort=effort,
        codes=None if codes is None else codes.to(device),
        seed=seed,
    )
    return found.cpu()


def _check(
    vectors: torch.Tensor,
    scheme: Scheme,
    table: torch.Tensor | None,
    weights: torch.Tensor | None,
    lam: float,
    effort: str,
) -> None:
    if vectors.ndim != 2 or vectors.shape[1] != scheme.vector_dim:
        raise TersorError(f"scheme {scheme}: vectors are {list(vectors.shape)}; give [N, {scheme.vector_dim}]")
    if table is not None and table.shape != vectors.shape[:1]:
        raise TersorError(
            f"scheme {scheme}: table is {list(table.shape)}; give one entry for each of {len(vectors)} vectors"
        )
    if weights is not None and weights.shape not in (vectors.shape, vectors.shape[:1]):
        raise TersorError(f"scheme {scheme}: weights are {list(weights.shape)}; give [N] or [N, {scheme.vector_dim}]")
    if weights is not None and len(weights) and float(weights.min()) < 0:
        raise TersorError(f"scheme {scheme}: a weight is negative; weights of errors are 0 or more")
    if not 0 <= lam < float("inf"):
        raise TersorError(f"scheme {scheme}: lambda is {lam}; use 0 or more")
    if effort not in EFFORTS:
        raise TersorError(f"effort {effort!r} is unknown; use {', '.join(EFFORTS)}")


def _sample(count: int, limit: int, generator: np.random.Generator, device: torch.device) -> torch.Tensor | None:
    """Indices of the vectors to train on, ascending, or None for all."""
    if count <= limit:
        return None
    return torch.from_numpy(np.sort(generator.permutation(count)[:limit])).to(device)


def _spread(vectors: torch.Tensor, weights: torch.Tensor | None) -> np.ndarray[Any, Any]:
    """Weighted standard deviation of each dimension, about 0: float32 [d]."""
    x = vectors.cpu().numpy().astype(np.float64)
    w = np.ones(1) if weights is None else weights.cpu().numpy().astype(np.float64)
    w = w[:, None] if w.ndim == 1 else w
    mass = np.broadcast_to(w, x.shape).sum(axis=0)
    return np.sqrt((w * x**2).sum(axis=0) / np.where(mass > 0, mass, 1.0)).astype(np.float32)


def _errors(
    vectors: torch.Tensor, codebooks: torch.Tensor, codes: torch.Tensor, weights: torch.Tensor | None
) -> torch.Tensor:
    """Weighted squared error of each vector, float32 [N]."""
    element = weights if weights is not None and weights.ndim == 2 else None
    _, cost = kernels.local_search(vectors, codebooks, codes, sweeps=0, weights=element)
    return cost * weights if weights is not None and weights.ndim == 1 else cost


def _total(cost: torch.Tensor) -> float:
    return float(cost.cpu().numpy().sum(dtype=np.float64))
