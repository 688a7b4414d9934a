"""Recipes with passes, end to end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import tersor
from tersor.errors import TersorError
from tersor.passes.chain import Chain


class Net(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 10)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn1(self.conv1(x)).relu()
        return self.head(self.bn2(self.conv2(x)).relu().mean((2, 3)))


def data() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(16, 3, 8, 8, generator=generator) for _ in range(3)]


CHAINS = {
    "fold": ("fold()",),
    "merge": ("merge(share=0.3)",),
    "ssl": ("ssl(over=filters, strength=0.01, steps=4, share=0.3)",),
    "channels": ("channels(share=0.5)",),
    "lowrank": ("lowrank(share=0.5)",),
    "factorize gaussian": ("factorize(dictionary=gaussian, share=0.5)",),
    "factorize learned": ("factorize(dictionary=learned, share=0.05)",),
    "factorize, prune": ("factorize(dictionary=gaussian, share=0.5)", "prune(sparsity=0.5)"),
    "prune": ("prune(sparsity=0.7)",),
    "pattern": ("prune(pattern='2:4')",),
    "chain": ("channels(share=0.25)", "train(steps=2)", "lowrank(share=0.7)", "prune(sparsity=0.5, steps=2)"),
    "tuned": ("prune(sparsity=0.7)", "tune(steps=3)"),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_file_of_every_pass_loads_into_the_original_class(name: str, tmp_path: Path) -> None:
    told: list[str] = []
    recipe = tersor.Recipe(ratio=6, passes=CHAINS[name], effort="draft", min_size=64)
    original, state = Net(), {n: v.clone() for n, v in Net().state_dict().items()}
    archive = tersor.compress(original, recipe, data=data(), out=tmp_path / "x.tersor", tell=told.append)
    assert all(torch.equal(state[n], v) for n, v in original.state_dict().items())  # the user's network is not changed
    assert archive.size <= 4 * sum(v.numel() for v in state.values()) / 6 + 8  # ratio is of the network as it came
    assert archive.recipe.passes == CHAINS[name]
    archive.verify()
    loaded = archive.apply_(Net(3))
    values = archive.state_dict()
    assert all(torch.equal(values[n], v) for n, v in loaded.state_dict().items())
    assert loaded(data()[0]).shape == (16, 10) and bool(loaded(data()[0]).isfinite().all())
    assert len([line for line in told if " B -> " in line]) == len(CHAINS[name])
    again = tersor.compress(Net(), recipe, data=data())
    assert again.to_bytes() == archive.to_bytes()


@pytest.mark.parametrize("name", ["merge", "ssl", "channels", "lowrank", "factorize learned", "chain"])
def test_memory_format_does_not_matter(name: str) -> None:
    recipe = tersor.Recipe(bpp=8, passes=CHAINS[name], effort="draft", min_size=64)
    net = Net().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    archive = tersor.compress(net, recipe, data=data())
    assert bool(archive.apply_(Net())(data()[0]).isfinite().all())


def test_what_is_loaded_is_what_was_coded() -> None:
    """At a size that loses next to nothing, the loaded network answers as the one that passes made."""
    recipe = tersor.Recipe(
        bpp=14, passes=("fold()", "channels(share=0.5)", "lowrank(share=0.6)", "prune(sparsity=0.3)"), min_size=64
    )
    chain = Chain(Net(), recipe, data=data())
    chain.prepare()
    archive = tersor.compress(Net(), recipe, data=data())
    torch.testing.assert_close(archive.apply_(Net(5))(data()[0]), chain.work.network(data()[0]), rtol=0.02, atol=0.02)


def test_integers_trained_to_be_so_are_stored_as_they_are() -> None:
    recipe = tersor.Recipe(scheme="int4", passes=("quantize(bits=4, activations=8, steps=4)",), min_size=64)
    chain = Chain(Net(), recipe, data=data())
    chain.prepare()
    archive = tersor.compress(Net(), recipe, data=data())
    values, made = archive.state_dict(), chain.work.network.state_dict()
    assert set(values) == set(made) and "conv1.input_grid" in values
    assert all(torch.equal(values[n], made[n]) for n in values if n != "num_batches_tracked")
    loaded = archive.apply_(Net(5))
    assert torch.equal(loaded(data()[0]), chain.work.network(data()[0]))


def test_tuning_starts_from_the_file_where_the_original_has_another_shape(tmp_path: Path) -> None:
    archive = tersor.compress(
        Net(), tersor.Recipe(ratio=4, passes=("channels(share=0.5)",), effort="draft", min_size=64), data=data()
    )
    for moving in (False, True):
        net = tersor.tunable(Net(), archive, moving=moving)
        tersor.distill(net, Net(), data(), steps=2)
        frozen = net.freeze()
        assert frozen.apply_(Net())(data()[0]).shape == (16, 10)


def test_a_file_does_not_load_into_another_class() -> None:
    recipe = tersor.Recipe(scheme="int8", passes=("prune(sparsity=0.5)",))
    archive = tersor.compress(nn.Sequential(nn.Linear(32, 32)), recipe)
    other = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
    with pytest.raises(TersorError, match=r"does not fit.*missing in the archive: 1\.bias, 1\.weight"):
        archive.apply_(other)


def test_zeros_of_kept_tensors_stay_in_tuning() -> None:
    net = nn.Sequential(nn.Linear(32, 40), nn.ReLU(), nn.Linear(40, 4))
    recipe = tersor.Recipe(ratio=3, passes=("prune(sparsity=0.6, scope=layer)", "tune(steps=4)"))
    archive = tersor.compress(net, recipe, data=[torch.randn(16, 32)])
    assert int((archive["2.weight"] == 0).sum()) >= 96 and archive.index.kept  # 160 weights are too few to be coded


def test_rules_hold_in_half_precision() -> None:
    net = Net().to(torch.bfloat16)
    recipe = tersor.Recipe(bpp=6, passes=("factorize(dictionary=gaussian, share=0.5)",), min_size=64)
    batches = [batch.to(torch.bfloat16) for batch in data()]
    archive = tersor.compress(net, recipe, data=batches)
    assert archive.index.made and bool(archive.apply_(Net().to(torch.bfloat16))(batches[0]).isfinite().all())


def test_nothing_to_tune_is_told_before_any_work() -> None:
    recipe = tersor.Recipe(scheme="bf16", passes=("prune(sparsity=0.5)", "tune(steps=3)"))
    with pytest.raises(TersorError, match="leaves nothing to tune"):
        tersor.compress(Net(), recipe, data=data())
    with pytest.raises(TersorError, match="matches no tensor"):
        tersor.compress(Net(), tersor.Recipe(ratio=4, passes=("prune(sparsity=0.5)",), exclude=("nothing.*",)))


def test_importance_goes_with_the_tensors_it_is_of() -> None:
    weights = {"conv2.weight": torch.rand(16, 16, 3, 3) + 0.1}
    recipe = tersor.Recipe(ratio=6, passes=("prune(sparsity=0.5)", "tune(steps=2)"), effort="draft", min_size=64)
    weighed = tersor.compress(Net(), recipe, data=data(), importance=weights)
    assert weighed.to_bytes() != tersor.compress(Net(), recipe, data=data()).to_bytes()
    shrunk = tersor.Recipe(ratio=6, passes=("channels(share=0.5)",))
    with pytest.raises(TersorError, match="changes the tensors that importance is of"):
        tersor.compress(Net(), shrunk, data=data(), importance=weights)
    with pytest.raises(TersorError, match="network lacks: other"):
        tersor.compress(Net(), recipe, data=data(), importance={"other": torch.rand(3, 3)})


def test_random_state_is_left_alone() -> None:
    chain = Chain(Net(), tersor.Recipe(ratio=2, passes=("prune(sparsity=0.5, steps=2)",)), data=data())
    before = torch.random.get_rng_state()
    chain.prepare()
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("passes", "what"),
    [
        (("prune(sparsity=0.5, criterion=obd)",), "needs data"),
        (("prune(sparsity=0.5, steps=5)",), "needs data"),
        (("prune(sparsity=0.5)", "merge(share=0.3)"), "cannot come after"),
        (("purne(sparsity=0.5)",), "did you mean prune"),
    ],
)
def test_what_cannot_be_fails_before_any_work(passes: tuple[str, ...], what: str) -> None:
    with pytest.raises(TersorError, match=what):
        tersor.compress(Net(), tersor.Recipe(ratio=4, passes=passes))


def test_passes_need_the_network() -> None:
    with pytest.raises(TersorError, match="give the module"):
        tersor.compress(Net().state_dict(), tersor.Recipe(ratio=4, passes=("prune(sparsity=0.5)",)))


def test_labels_that_are_not_there() -> None:
    recipe = tersor.Recipe(ratio=4, passes=("train(steps=2, label_weight=1.0)",))
    with pytest.raises(TersorError, match="labelled=True"):
        tersor.compress(Net(), recipe, data=data())
