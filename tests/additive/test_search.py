from __future__ import annotations

import itertools

import pytest
import torch

from tersor.additive.search import Search, encode

LAM = 0.3


@pytest.fixture
def drawn() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "vectors": torch.randn(200, 5, generator=generator),
        "codebooks": torch.randn(3, 5, 5, generator=generator),
        "bits": 6 * torch.rand(2, 3, 5, generator=generator),
        "table": torch.randint(2, (200,), generator=generator, dtype=torch.int32),
        "per_vector": torch.rand(200, generator=generator) + 0.1,
        "per_element": torch.rand(200, 5, generator=generator),
    }


def every_cost(drawn: dict[str, torch.Tensor], weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All K^M codes and the cost of each for each vector, by the definition."""
    tuples = torch.tensor(list(itertools.product(range(5), repeat=3)))
    sums = sum(drawn["codebooks"][m][tuples[:, m]] for m in range(3))
    square = (drawn["vectors"][:, None] - sums) ** 2
    error = (weights[:, None] * square).sum(2) if weights.ndim == 2 else weights[:, None] * square.sum(2)
    rate = sum(drawn["bits"][drawn["table"].long(), m][:, tuples[:, m]] for m in range(3))
    return tuples, error + LAM * rate


@pytest.mark.parametrize("kind", ["none", "per_vector", "per_element"])
def test_a_hard_search_finds_the_cheapest_codes(drawn: dict[str, torch.Tensor], kind: str) -> None:
    weights = drawn.get(kind)
    tuples, costs = every_cost(drawn, torch.ones(200) if weights is None else weights)
    codes, cost = encode(
        drawn["vectors"], drawn["codebooks"], Search(25, restarts=8),
        weights=weights, lam=LAM, bits=drawn["bits"], table=drawn["table"],
    )  # fmt: skip
    torch.testing.assert_close(cost, costs.min(1).values, rtol=1e-4, atol=1e-4)
    assert (codes == tuples[costs.argmin(1)]).all(1).float().mean() > 0.99


def test_more_lambda_spends_fewer_bits_for_more_error(drawn: dict[str, torch.Tensor]) -> None:
    rates, errors = [], []
    for lam in (0.0, 0.1, 0.5, 3.0):
        codes, _ = encode(
            drawn["vectors"], drawn["codebooks"], Search(125, sweeps=0),
            lam=lam, bits=drawn["bits"], table=drawn["table"],
        )  # fmt: skip
        rates.append(float(sum(drawn["bits"][drawn["table"].long(), m, codes[:, m].long()].sum() for m in range(3))))
        sums = sum(drawn["codebooks"][m][codes[:, m].long()] for m in range(3))
        errors.append(float(((drawn["vectors"] - sums) ** 2).sum()))
    assert rates == sorted(rates, reverse=True)
    assert errors == sorted(errors)


def test_no_vector_gets_worse(drawn: dict[str, torch.Tensor]) -> None:
    terms = {"lam": LAM, "bits": drawn["bits"], "table": drawn["table"], "weights": drawn["per_vector"]}
    start, before = encode(drawn["vectors"], drawn["codebooks"], Search(1, sweeps=0), **terms)
    for search in (Search(4), Search(0, restarts=2), Search(2, sweeps=0)):
        _, after = encode(drawn["vectors"], drawn["codebooks"], search, codes=start, **terms)
        assert (after <= before).all()


def test_what_has_no_weight_has_no_say(drawn: dict[str, torch.Tensor]) -> None:
    weights = drawn["per_element"].clone()
    weights[:, 3] = 0
    changed = drawn["vectors"].clone()
    changed[:, 3] = 99.0
    codes = [encode(x, drawn["codebooks"], Search(8), weights=weights)[0] for x in (drawn["vectors"], changed)]
    assert torch.equal(*codes)

    silent = drawn["per_vector"].clone()
    silent[:50] = 0
    terms = {"lam": LAM, "bits": drawn["bits"], "table": drawn["table"], "weights": silent}
    codes, cost = encode(drawn["vectors"], drawn["codebooks"], Search(8), **terms)
    assert torch.equal(codes[:50].long(), drawn["bits"].argmin(2)[drawn["table"][:50].long()])
    assert bool(cost.isfinite().all())


@pytest.mark.parametrize("weights", [torch.zeros(4), torch.zeros(4, 5)])
def test_all_weights_zero_leaves_the_rate_alone(drawn: dict[str, torch.Tensor], weights: torch.Tensor) -> None:
    codes, cost = encode(
        drawn["vectors"][:4] * 1e-3, drawn["codebooks"] * 1e-3, Search(8), weights=weights, lam=1.0, bits=drawn["bits"]
    )
    assert torch.equal(codes.long(), drawn["bits"][0].argmin(1).expand(4, 3))
    assert bool(cost.isfinite().all())
