"""Networks that decode their weights when they use them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import tersor
from networks import raw
from packed.archives import archives
from tersor.errors import TersorError
from tersor.lazy.coded import CodedTensor
from tersor.lazy.linear import held, tables_of
from tersor.lazy.network import HOLDS, lazy

Maker = Callable[[], tersor.Archive]
ARCHIVES = [kind for kind in archives() if not str(kind.id).startswith("v1-wide")]
"""Without those that have a module named `half`, which no module of torch can have."""


class Bag(nn.Module):
    """Parameters of any names and shapes, in modules by the names' dots."""

    def __init__(self, archive: tersor.Archive) -> None:
        super().__init__()
        state = archive.state_dict()
        for entry in archive.entries:
            *path, leaf = entry.name.split(".")
            owner: nn.Module = self
            for part in path:
                if part not in owner._modules:
                    owner.add_module(part, nn.Module())
                owner = owner._modules[part]  # type: ignore[assignment]
            value = torch.zeros_like(state[entry.name])
            if value.is_floating_point():
                owner.register_parameter(leaf, nn.Parameter(value, requires_grad=False))
            else:
                owner.register_buffer(leaf, value)


def value_of(network: nn.Module, name: str) -> torch.Tensor:
    path, _, leaf = name.rpartition(".")
    value = getattr(network.get_submodule(path), leaf)
    assert isinstance(value, torch.Tensor)
    return value


@pytest.mark.parametrize("hold", HOLDS)
@pytest.mark.parametrize("made", ARCHIVES)
def test_weights_are_those_of_the_file_bit_for_bit(made: Maker, hold: str) -> None:
    archive = made()
    network = lazy(Bag(archive), archive, hold=hold)
    for name, want in archive.state_dict().items():
        for _ in range(2):
            found = value_of(network, name)
            assert (found.shape, found.dtype) == (want.shape, want.dtype) and raw(found) == raw(want), name


class Net(nn.Module):
    """Layers of many kinds; a tied head, and a recurrent one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.depth = nn.Conv2d(16, 32, 3, groups=16)
        self.up = nn.ConvTranspose2d(32, 16, 2)
        self.embed = nn.Embedding(40, 32)
        self.lstm = nn.LSTM(32, 32)
        self.attention = nn.MultiheadAttention(32, 4)
        self.wide = nn.Linear(32, 100)
        self.head = nn.Linear(32, 40, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, image: torch.Tensor, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = self.up(self.depth(self.norm(self.conv(image)).relu()))
        read, _ = self.lstm(self.embed(words))
        read, _ = self.attention(read, read, read)
        return seen, self.head(read) + self.wide(read).sum()


def network(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net().eval()


def inputs(batch: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, 8, 8, generator=g), torch.randint(0, 40, (5, batch), generator=g)


@pytest.fixture(scope="module", params=["auto", "additive", "int4/32"])
def archive(request: pytest.FixtureRequest) -> tersor.Archive:
    recipe = tersor.Recipe(scheme=request.param, bpp=None if request.param.startswith("int") else 5)
    return tersor.compress(network(), recipe)


@pytest.mark.parametrize("hold", HOLDS)
def test_any_module_answers_as_with_loaded_weights(archive: tersor.Archive, hold: str) -> None:
    model = network(2)
    before = copy.deepcopy(model.state_dict())
    want = archive.apply_(network(3))(*inputs())
    made = lazy(model, archive, hold=hold)
    assert isinstance(made, Net) and isinstance(made.lstm, nn.LSTM)
    for _ in range(2):
        torch.testing.assert_close(made(*inputs()), want)
    torch.testing.assert_close(copy.deepcopy(made)(*inputs()), want)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()), "the model given is not changed"


def test_the_dense_weights_are_not_in_memory(archive: tersor.Archive) -> None:
    made = lazy(network(), archive)
    held_ = {id(t): t.nbytes for t in (*made.parameters(), *made.buffers())}
    kept = sum(v.nbytes for v in archive.apply_(network()).state_dict().values() if v.ndim < 2)
    dense = sum(v.nbytes for v in network().parameters())
    assert sum(held_.values()) - kept < 0.5 * dense
    assert not any(p.ndim > 1 for p in made.parameters())


def test_a_model_on_the_meta_device_is_enough(archive: tersor.Archive) -> None:
    want = archive.apply_(network())(*inputs())
    with torch.device("meta"):
        empty = Net()
    torch.testing.assert_close(lazy(empty, archive)(*inputs()), want)


def test_export_and_compile_take_it(archive: tersor.Archive, tmp_path: Path) -> None:
    made = lazy(network(), archive)
    want = archive.apply_(network())(*inputs())
    with torch.no_grad():
        program = torch.export.export(made, inputs())
    torch.testing.assert_close(program.module()(*inputs()), want)
    torch.testing.assert_close(torch.compile(made, backend="eager")(*inputs()), want)
    sizes = {v.numel() for v in program.state_dict.values() if v.is_floating_point()}
    assert 40 * 32 not in sizes and 100 * 32 not in sizes


def test_file_is_no_form_to_export(archive: tersor.Archive) -> None:
    with pytest.raises(Exception, match="hold='codes'"):
        torch.export.export(lazy(network(), archive, hold="file"), inputs())


def test_types_and_devices_move(archive: tersor.Archive) -> None:
    made = lazy(network(), archive).double()
    want = archive.apply_(network()).double()
    image, words = inputs()
    torch.testing.assert_close(made(image.double(), words), want(image.double(), words))
    assert made.wide.weight.dtype == torch.float64


def test_what_does_not_fit_is_told(archive: tersor.Archive) -> None:
    with pytest.raises(TersorError, match="does not fit Linear: missing in the archive: bias, weight"):
        lazy(nn.Linear(3, 3), archive)
    with pytest.raises(TersorError, match="hold 'all' is unknown; take codes, file, dense"):
        lazy(network(), archive, hold="all")


class Rotary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 64)
        self.register_buffer("angles", torch.arange(4.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + self.angles.sum()


def test_a_buffer_in_no_state_dict_cannot_stay_on_the_meta_device() -> None:
    archive = tersor.compress(Rotary(), tersor.Recipe(bpp=6))
    with torch.device("meta"):
        empty = Rotary()
    with pytest.raises(TersorError, match="angles of Rotary are on the meta device"):
        lazy(empty, archive)


# ---------------------------------------------------------------------- look-up tables
def linear(scheme: str, rows: int = 96, columns: int = 130, bpp: float = 3.5) -> tuple[nn.Linear, tersor.Archive]:
    torch.manual_seed(0)
    layer = nn.Linear(columns, rows)
    nn.init.normal_(layer.weight)
    return layer, tersor.compress(layer, tersor.Recipe(bpp=bpp, scheme=scheme, min_size=1))


@pytest.mark.parametrize("scheme", ["lattice", "2x64d2", "1x256d5"])
@pytest.mark.parametrize("columns", [130, 131])
def test_few_rows_are_computed_from_tables(scheme: str, columns: int) -> None:
    layer, archive = linear(scheme, columns=columns)
    made = lazy(layer, archive)
    dense = archive.apply_(nn.Linear(columns, 96))
    coded = made._modules["tersor_codes"]._modules["weight_"]  # type: ignore[union-attr]
    assert isinstance(coded, CodedTensor)
    if tables_of(coded) is None:  # vectors run across rows
        assert columns % 2 or columns % 5
    for shape in ((columns,), (1, columns), (2, 2, columns), (9, columns)):
        x = torch.randn(shape)
        torch.testing.assert_close(made(x), dense(x), rtol=1e-4, atol=1e-4)


def test_tables_hold_the_escapes() -> None:
    layer, archive = linear("lattice", columns=1000)
    with torch.no_grad():
        made = lazy(layer, archive)
    tables = held(made._modules["tersor_codes"]._modules["weight_"])  # type: ignore[union-attr,arg-type]
    assert tables is not None and tables.fixes is not None and len(tables.fixes[0]) > 0
    x = torch.eye(1000)[::97]
    dense = archive["weight"]
    torch.testing.assert_close(tables.multiply(x), x @ dense.T, rtol=1e-5, atol=1e-6)


def test_a_layer_without_escapes_among_others_that_have_some() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 1000, bias=False), nn.Linear(1000, 8, bias=False))
    with torch.no_grad():
        model[0].weight.normal_()
        model[1].weight.copy_(torch.randint(-1, 2, (8, 1000)))
    archive = tersor.compress(model, tersor.Recipe(bpp=4, scheme="lattice", min_size=1))
    made, dense = lazy(model, archive), archive.apply_(copy.deepcopy(model))
    books = [held(layer._modules["tersor_codes"]._modules["weight_"]) for layer in made]  # type: ignore[union-attr,arg-type]
    assert books[0] is not None and all(tables is None or tables.codebooks.shape[1] <= 256 for tables in books)
    x = torch.randn(1, 64)
    torch.testing.assert_close(made(x), dense(x), rtol=1e-4, atol=1e-3)


def two() -> tuple[nn.Module, tersor.Archive, nn.Module]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64))
    archive = tersor.compress(model, tersor.Recipe(bpp=4))
    return lazy(model, archive), archive, archive.apply_(copy.deepcopy(model))


def test_tables_step_aside_for_what_records_or_traces_or_casts() -> None:
    made, _, dense = two()
    x = torch.randn(1, 64)
    torch.testing.assert_close(torch.jit.trace(made, torch.randn(1, 64))(x), dense(x))
    torch.testing.assert_close(torch.func.vmap(made)(torch.randn(3, 1, 64) * 0 + x), dense(x).expand(3, 1, 64))
    torch.testing.assert_close(torch.fx.experimental.proxy_tensor.make_fx(made)(torch.randn(1, 64))(x), dense(x))
    wanted = x.clone().requires_grad_()
    made(wanted).sum().backward()
    assert wanted.grad is not None and bool(wanted.grad.any())
    with torch.autocast("cpu", torch.bfloat16):
        assert made(x).dtype == made(torch.randn(9, 64)).dtype == torch.bfloat16


def test_half_weights_are_rounded_whatever_the_batch() -> None:
    model = nn.Linear(128, 64, bias=False).bfloat16()
    archive = tersor.compress(model, tersor.Recipe(bpp=4, min_size=1))
    made = lazy(nn.Linear(128, 64, bias=False), archive)
    torch.testing.assert_close(made(torch.eye(128)[:2]), archive["weight"].float().T[:2], rtol=0, atol=0)


class Scaled(nn.Sequential):
    """Runs its children, and has a parameter of its own."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.scale = nn.Parameter(torch.randn(64, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.children():
            x = layer(x)
        out: torch.Tensor = super().forward(x) @ self.scale
        return out


def test_who_runs_its_children_does_not_meet_the_codes() -> None:
    torch.manual_seed(0)
    model = Scaled(nn.Linear(64, 64), nn.ReLU())
    archive = tersor.compress(model, tersor.Recipe(bpp=4))
    made, x = lazy(model, archive), torch.randn(9, 64)
    assert len(made) == 2
    torch.testing.assert_close(made(x), archive.apply_(copy.deepcopy(model))(x))
    torch.testing.assert_close(made.double()(x.double()), archive.apply_(copy.deepcopy(model)).double()(x.double()))
