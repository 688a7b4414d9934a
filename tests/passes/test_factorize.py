from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tersor.errors import TersorError
from tersor.passes.dictionaries import Wanted, covariance_atoms, damped, factors, fit, grid_of, learned
from tersor.passes.factorize import Factorize
from tersor.passes.layer_inputs import Inputs
from tersor.passes.registry import parse
from tersor.passes.work import Work
from tersor.representations.exact import subset
from tersor.representations.made import make
from tersor.structure.factored import Columns, Factored, chain_like

DICTIONARIES = ("learned", "identity", "gaussian", "se", "covariance", "kmeans", "dct")
RULES = ("identity", "gaussian", "se", "dct")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are trained fastest without company, above all where other work is done beside."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def mlp(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(36, 64), nn.ReLU(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 12)).eval()


def convs(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 32, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(32, 64, 3, bias=False), nn.ReLU(),
            nn.Conv2d(64, 64, 3, groups=64), nn.Flatten(), nn.Linear(64 * 16, 12),
        ).eval()  # fmt: skip


VECTORS = [noise(40, 36, seed=s) @ noise(36, 36, seed=99) / 6 for s in range(6)]
IMAGES = [noise(8, 3, 16, 16, seed=s) for s in range(6)]


def run(step: Factorize, net: nn.Module, **more: Any) -> tuple[Work, list[str]]:
    step.check()
    told: list[str] = []
    work = Work(copy.deepcopy(net), net, tell=told.append, **more)
    step.run(work)
    return work, told


def moments(x: torch.Tensor) -> Inputs:
    x = x.double()
    return Inputs(x.T @ x / len(x), x.mean(0), x.float(), len(x))


@pytest.mark.parametrize("columns", [1, 4])
@pytest.mark.parametrize("dictionary", DICTIONARIES)
def test_every_dictionary_makes_a_smaller_network_that_runs(dictionary: str, columns: int) -> None:
    if dictionary == "dct" and columns > 1:
        return
    share = 0.05 if columns > 1 else 0.1
    step = Factorize(dictionary=dictionary, share=share, columns=columns, last=True)
    for net, data in ((mlp(), VECTORS), (convs(), IMAGES)):
        work, told = run(step, net, data=data)
        chains = {n: m for n, m in work.network.named_modules() if isinstance(m, Factored)}
        assert chains, told
        for name, chain in chains.items():
            old = net.get_submodule(name)
            atoms = max(1, round(share * old.weight[0].numel()))
            u, v = chain[0].weight, chain[1].weight
            assert u.shape == (columns * atoms, *old.weight.shape[1:])
            assert v.numel() == atoms * old.weight.shape[0]
            assert (f"{name}.0.weight" in work.fixed) == (dictionary != "learned")
            assert (f"{name}.0.weight" in work.made) == (dictionary in RULES)
            if dictionary in RULES:
                again = make(work.made[f"{name}.0.weight"], tuple(u.shape))
                assert torch.equal(u, torch.from_numpy(again))
            shapes = {k: tuple(p.shape) for k, p in chain.state_dict().items()}
            chain_like(old, shapes).load_state_dict(chain.state_dict())
        assert all(out.isfinite().all() for out in (work.network(x) for x in data))


@pytest.mark.parametrize("columns", [1, 4])
def test_what_learns_is_v_alone(columns: int) -> None:
    step = Factorize(dictionary="gaussian", columns=columns, steps=5, lr=1e-2)
    work, told = run(step, mlp(), data=VECTORS)
    before, _ = run(Factorize(dictionary="gaussian", columns=columns), mlp(), data=VECTORS)
    for name in ("0", "2"):
        old, chain, other = (n.get_submodule(name) for n in (work.original, work.network, before.network))
        atoms = round(0.25 * old.in_features)
        assert chain[1].weight.numel() == atoms * old.out_features
        assert isinstance(chain[1], Columns) == (columns > 1)
        assert torch.equal(chain[0].weight, other[0].weight)
        assert not torch.equal(chain[1].weight, other[1].weight)
    assert isinstance(work.network.get_submodule("4"), nn.Linear)
    assert any("last layer" in line and "4" in line for line in told)
    assert "of 5,376 weights 1,344 learn and 1,344 are stored (25.0%)" in told[-1]


def test_learned_dictionaries_learn_both() -> None:
    work, _ = run(Factorize(dictionary="learned", share=0.2, steps=5), mlp(), data=VECTORS)
    before, _ = run(Factorize(dictionary="learned", share=0.2), mlp(), data=VECTORS)
    assert not work.fixed and not work.made
    for key, value in before.network.state_dict().items():
        assert not torch.equal(work.network.state_dict()[key], value)


def test_identity_leaves_rows_outside_its_subset_zero() -> None:
    step = Factorize(dictionary="identity", columns=2, steps=10, lr=1e-2)
    work, _ = run(step, mlp(), data=VECTORS)
    chain = work.network.get_submodule("0")
    assert isinstance(chain, Factored)
    w = chain.weight.detach().T  # rows are inputs, as in the paper
    for j, column in enumerate(w.chunk(2, 1)):
        seen = torch.from_numpy(subset(0, j, 9, 36))
        outside = torch.ones(36, dtype=torch.bool).scatter(0, seen, False)
        assert (column[outside] == 0).all() and (column[seen] != 0).all()


def test_dictionaries_follow_from_the_seed() -> None:
    for dictionary in ("identity", "gaussian", "se", "covariance", "kmeans"):
        step = Factorize(dictionary=dictionary)
        one, again, other = (run(step, mlp(), data=VECTORS, seed=s)[0].network.state_dict() for s in (1, 1, 2))
        assert all(torch.equal(v, again[k]) for k, v in one.items())
        assert not torch.equal(one["0.0.weight"], other["0.0.weight"])


def test_ridge_to_zero_is_interpolation() -> None:
    x = noise(500, 20) @ noise(20, 20, seed=1)
    errors = []
    for ridge in (1e-2, 1e-5, 1e-10):
        wanted = Wanted("covariance", 8, 1, 3, (1, 20), 0.0, ridge)
        atoms = covariance_atoms(wanted, moments(x), 0)
        errors.append(float((atoms[:, torch.from_numpy(subset(3, 0, 8, 20))] - torch.eye(8)).abs().max()))
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-6


def test_covariance_atoms_are_kernel_ridge_regression() -> None:
    x = 3 + noise(500, 20) @ noise(20, 20, seed=1)
    wanted = Wanted("covariance", 8, 1, 3, (1, 20), 0.0, 1e-3)
    k = np.cov(x.double().numpy().T, bias=True)
    k /= np.diag(k).mean()
    s = subset(3, 0, 8, 20)
    expected = np.linalg.solve(k[s][:, s] + 1e-3 * np.eye(8), k[s])
    np.testing.assert_allclose(covariance_atoms(wanted, moments(x), 0).numpy(), expected, atol=1e-6)
    again = covariance_atoms(wanted, moments(100 * x), 0)  # ours: the scale of inputs does not matter
    np.testing.assert_allclose(again.numpy(), expected, atol=1e-6)


def test_v_is_the_least_squares_fit() -> None:
    atoms, w = noise(6, 15).double(), noise(10, 15, seed=1).double()
    plain = torch.linalg.lstsq(atoms.T, w.T).solution.T
    torch.testing.assert_close(fit(atoms, w), plain, rtol=1e-6, atol=1e-7)
    x = (noise(300, 15, seed=2) @ noise(15, 15, seed=3)).double()
    best = torch.linalg.lstsq(x @ atoms.T, x @ w.T).solution.T
    torch.testing.assert_close(fit(atoms, w, moments(x).second), best, rtol=1e-6, atol=1e-6)
    twice = torch.cat([atoms, atoms])  # atoms may repeat, and inputs be dead
    torch.testing.assert_close(fit(twice, w) @ twice, plain @ atoms, rtol=1e-5, atol=1e-6)
    assert not fit(atoms, w, torch.zeros(15, 15).double()).any()


def test_learned_factors_are_the_best_for_the_layers_outputs() -> None:
    w = noise(10, 15).double()
    x = (noise(300, 15, seed=2) @ noise(15, 15, seed=3)).double()
    second = damped(moments(x).second)
    u, v = learned(w, 4, second)
    loss = torch.einsum("hi,ij,hj->", v @ u - w, second, v @ u - w)
    values = torch.linalg.svdvals(torch.linalg.cholesky(second).T @ w.T)
    assert float(loss) == pytest.approx(float(values[4:].square().sum()))
    torch.testing.assert_close(u.norm(dim=1), v.norm(dim=0))
    torch.testing.assert_close(fit(u, w, second), v, rtol=1e-5, atol=1e-6)  # no other V is better
    plain_u, plain_v = learned(w, 4)
    eye_u, eye_v = learned(w, 4, torch.eye(15).double())
    torch.testing.assert_close(plain_v @ plain_u, eye_v @ eye_u)


def test_the_gauge_does_not_matter_to_the_fit() -> None:
    """(U Q)(Q^-1 V) is U V: a dictionary is as good as any other with the same span."""
    atoms, w, q = noise(6, 15).double(), noise(10, 15, seed=1).double(), noise(6, 6, seed=2).double()
    torch.testing.assert_close(fit(q @ atoms, w) @ q @ atoms, fit(atoms, w) @ atoms, rtol=1e-5, atol=1e-6)


def test_data_make_the_fit_better() -> None:
    for dictionary in ("identity", "gaussian", "se"):
        step = Factorize(dictionary=dictionary)
        blind, _ = run(step, mlp())
        seeing, _ = run(step, mlp(), data=VECTORS)
        blind.data = VECTORS
        assert seeing.loss_of() < blind.loss_of()


def test_what_cannot_be_done_is_left_and_told() -> None:
    _, told = run(Factorize(dictionary="gaussian", columns=32), mlp())
    assert any("no multiple of 32 columns: 2" in line for line in told)
    _, told = run(Factorize(dictionary="learned", share=0.5), mlp(), data=VECTORS)
    assert any("no smaller: 2" in line for line in told)
    _, told = run(Factorize(dictionary="gaussian"), convs())
    assert any("groups: 4" in line for line in told)
    with pytest.raises(TersorError, match=r"k-means .* give more data"):
        run(Factorize(dictionary="kmeans"), mlp(), data=[VECTORS[0][:4]])
    with pytest.raises(TersorError, match="data"):
        run(Factorize(dictionary="covariance"), mlp())
    with pytest.raises(TersorError, match="no layer to factorize"):
        run(Factorize(layers=("x",)), mlp())
    work, told = run(Factorize(dictionary="identity", layers=("0",)), mlp())
    Factorize(dictionary="covariance", layers=("2",)).run(work := Work(work.network, work.original, VECTORS))
    assert [n for n, m in work.network.named_modules() if isinstance(m, Factored)] == ["0", "2"]


def test_layers_that_data_does_not_reach_are_left() -> None:
    net = nn.TransformerEncoderLayer(12, 3, 24, dropout=0.0, batch_first=True).eval()
    data = [noise(4, 5, 12, seed=s) for s in range(3)]
    work, told = run(Factorize(dictionary="covariance", last=True), net, data=data)
    assert isinstance(work.network.get_submodule("linear1"), Factored)
    assert any("does not reach it" in line and "self_attn.out_proj" in line for line in told)
    assert work.network(data[0]).isfinite().all()


def test_grids() -> None:
    assert grid_of(nn.Linear(36, 4), (6, 6)) == (1, 6, 6)
    assert grid_of(nn.Linear(36, 4), (1, 4, 9)) == (1, 4, 9)
    assert grid_of(nn.Linear(35, 4), (6, 6)) == grid_of(nn.Linear(35, 4), ()) == (1, 35)
    assert grid_of(nn.Conv2d(3, 4, 5), (6, 6)) == (3, 5, 5)
    work, _ = run(Factorize(dictionary="se", grid=(6, 6)), mlp())
    assert work.made["0.0.weight"].numbers[-3:] == (1, 6, 6)
    assert work.made["2.0.weight"].numbers[-2:] == (1, 64)
    assert work.made["0.0.weight"].numbers[2] == int(np.float32(2).view(np.uint32))
    work, _ = run(Factorize(dictionary="se", ridge=0.5), convs())
    assert work.made["2.0.weight"].numbers[2:] == (*np.float32([3, 0.5]).view(np.uint32).tolist(), 32, 3, 3)


def test_smooth_weights_are_predicted_from_a_few() -> None:
    """The paper's point: weights that are smooth on the grid follow from a quarter of them; rough ones do not."""
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    waves = [torch.sin(a * x / 12 + b * y / 12 + c) for a in (1, 2, 3) for b in (0, 2) for c in (0, 1)]
    smooth = torch.stack(waves).flatten(1).double()
    rough = smooth[:, torch.randperm(144, generator=torch.Generator().manual_seed(0))]
    wanted = Wanted("se", 36, 1, 0, (1, 12, 12), 2.0, 0.1)
    errors = []
    for w in (smooth, rough):
        u, v = factors(wanted, w, None)
        errors.append(float((v @ u - w).square().sum() / w.square().sum()))
    assert errors[0] < 0.01 and errors[1] > 0.2


def test_recipes() -> None:
    step = parse("factorize(dictionary=se, share=0.2, columns=5, grid=[28, 28], layers=[fc1], steps=100)")
    assert step == Factorize(dictionary="se", share=0.2, columns=5, grid=(28, 28), layers=("fc1",), steps=100)
    assert parse(str(step)) == step
    assert Factorize(dictionary="kmeans").needs_data and not Factorize(dictionary="se").needs_data
    for text in ("share=0", "share=1", "columns=0", "grid=[3]", "grid=[0, 3]", "ridge=-1", "batches=0",
                 "dictionary=dct, columns=2", "dictionary=haar"):  # fmt: skip
        with pytest.raises(TersorError, match="factorize"):
            parse(f"factorize({text})")


def digits() -> tuple[list[tuple[torch.Tensor, torch.Tensor]], torch.Tensor, torch.Tensor]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = torch.from_numpy(x[order]).float() / 16, torch.from_numpy(y[order])
    train = list(zip(x[:1297].split(64), y[:1297].split(64), strict=True))
    return train, x[1297:], y[1297:]


def test_on_digits_units_that_see_few_inputs_are_the_worst() -> None:
    """Denil et al.'s experiment in small: 64-256-256-10, a quarter of the weights, trained from the start on labels."""
    pytest.importorskip("sklearn")
    train, x, y = digits()
    settings: dict[str, Any] = {"columns": 4, "steps": 15 * len(train), "label_weight": 1.0}
    right = {}
    for dictionary in ("learned", "identity", "gaussian", "covariance"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
        columns = 1 if dictionary == "learned" else 4
        step = Factorize(**settings | {"dictionary": dictionary, "columns": columns})
        work, _ = run(step, net.eval(), data=train, labelled=True)
        right[dictionary] = float((work.network(x).argmax(1) == y).float().mean())
    others = [value for name, value in right.items() if name != "identity"]
    assert right["identity"] < min(others) - 0.01 and min(others) > 0.92, right
