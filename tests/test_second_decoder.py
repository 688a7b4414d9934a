"""`examples/decode.py`, written from docs/format.md alone, reads the very same bits, and refuses what is damaged."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import subprocess
import sys
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import tersor
from networks import State, network, raw
from tersor import index as indices
from tersor.errors import ArchiveError, TersorError
from tersor.representations import made

HERE = Path(__file__).parent
SCRIPT = HERE.parent / "examples" / "decode.py"
GOLDEN = sorted((HERE / "golden").glob("*.tersor"))
SMALL = [path for path in GOLDEN if "wide" not in path.name]


def load(path: Path) -> ModuleType:
    """A module from a file that is in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


decode = load(SCRIPT)
hostile = load(HERE / "attacks" / "hostile.py")


def assert_same_bits(found: dict[str, Any], expected: State) -> None:
    assert list(found) == list(expected)
    for name, want in expected.items():
        got = found[name]
        assert (f"torch.{got.dtype}", got.shape, got.array.shape) == (str(want.dtype), want.shape, want.shape), name
        assert got.array.tobytes() == raw(want), name


def agree(data: bytes) -> None:
    assert_same_bits(decode.decode(data), tersor.Archive(data).state_dict())


# ------------------------------------------------------------------ golden files
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_files_decode_to_the_same_bits(path: Path) -> None:
    found = decode.decode(path.read_bytes())
    assert_same_bits(found, tersor.open(path).state_dict())
    hashes = json.loads(path.with_name(f"{path.name[:2]}.json").read_text())[path.name]
    for name, tensor in found.items():
        head = f"torch.{tensor.dtype} {list(tensor.shape)} ".encode()
        assert hashlib.sha256(head + tensor.array.tobytes()).hexdigest() == hashes[name]


# ------------------------------------------------------------------ files made now
def kinds(seed: int = 0) -> State:
    """A network with types, ties, zeros and kept tensors of all sorts."""
    g = torch.Generator().manual_seed(seed)
    pruned = torch.randn(24, 40, generator=g)
    pruned[::3], pruned[:, 5] = 0, 0
    state = network(seed, 32) | {
        "half": torch.randn(20, 18, generator=g).half(),
        "brain": torch.randn(6, 5, 8, generator=g).bfloat16(),
        "double": torch.randn(9, 30, generator=g).double(),
        "long": torch.randn(700, generator=g),
        "pruned": pruned * (torch.rand(24, 40, generator=g) < 0.4),
        "kernels": torch.randn(10, 6, 3, 3, generator=g) * (torch.rand(10, 6, 1, 1, generator=g) < 0.4),
        "gone": torch.zeros(12, 20),
        "pieces": torch.randn(3, 4, generator=g) * torch.tensor(1j),
        "eight": torch.randn(5, 6, generator=g).to(torch.float8_e4m3fn),
        "none": torch.zeros(0, 3),
        "number": torch.tensor(2.5),
        "odd": torch.tensor([math.nan, math.inf, -0.0, 1e-45]),
    }
    return state | {"tied": state["fc.weight"], "tied twice": state["fc.weight"], "half tied": state["half"]}


RATED = [
    {"scheme": "lattice", "bpp": 3}, {"scheme": "lattice", "bpp": 2, "effort": "best", "scales": "row"},
    {"scheme": "lattice", "bpp": 20, "groups": "one"}, {"scheme": "additive", "bpp": 4},
    {"scheme": "3x16d4", "bpp": 5, "scales": "row"}, {"scheme": "2x16d3+lattice", "bpp": 5, "scales": "tensor"},
    {"scheme": "1x64d7+lattice", "bpp": 4, "keep": "bf16"},
    {"scheme": "lattice", "bpp": 3, "sparsity": "keep", "keep": "bf16", "min_size": 1},
    {"scheme": "2x8d2", "bpp": 4, "sparsity": "keep", "scales": "tensor"},
    {"scheme": "1x16d5+lattice", "bpp": 4, "sparsity": "keep", "groups": "one"},
]  # fmt: skip
FIXED = [
    "int8", "int4", "int2", "int4/4", "int8/tensor", "int4+zero", "int3/2+zero", "int5/tensor+zero", "fp16", "bf16",
    "shared16", "shared16/entropy", "shared8/uniform", "shared2", "shared300", "shared1",
]  # fmt: skip


@pytest.mark.parametrize("fields", RATED, ids=lambda fields: f"{fields['scheme']}@{fields['bpp']}")
def test_rated_files(fields: dict[str, Any]) -> None:
    recipe = tersor.Recipe(**{"effort": "draft", "exclude": ["odd"], **fields})
    agree(tersor.compress(kinds(), recipe).to_bytes())


@pytest.mark.parametrize("scheme", FIXED)
def test_files_of_few_values(scheme: str) -> None:
    each = tersor.Recipe(scheme=scheme, exclude=["odd"], groups="tensor" if scheme.startswith("shared") else "kernel")
    agree(tersor.compress(kinds(1), each).to_bytes())


def test_files_of_several_pieces_and_chunks() -> None:
    g = torch.Generator().manual_seed(3)
    state = {f"w{i}": torch.randn(rows, 700, generator=g) for i, rows in enumerate((300, 40, 90))}
    agree(tersor.compress(state, tersor.Recipe(bpp=1, scheme="1x16d4", effort="draft")).to_bytes())


def test_files_of_networks_that_passes_changed() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(36, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 6)).eval()
    passes = ("factorize(dictionary=dct, share=0.5, layers=['0'], grid=[6, 6])", "factorize(dictionary=gaussian)")
    archive = tersor.compress(net, tersor.Recipe(bpp=8, passes=passes, min_size=16))
    assert len(archive.index.made) == 2
    agree(archive.to_bytes())


RULES = {
    "identity": (made.identity(2**63 - 1, 3), (18, 25)),
    "gaussian": (made.gaussian(11, -0.3), (7, 3, 5)),
    "cosine": (made.cosines(3, (4, 5)), (40, 3, 4, 5)),
    "cosine of one side": (made.cosines(1, (31,)), (31, 31)),
    "squared-exponential": (made.squared_exponential(4, 1.5, 0.01, 2, (7, 5), 4), (32, 70)),
    "squared-exponential of a cube": (made.squared_exponential(9, 0.7, 0.5, 1, (4, 3, 4)), (20, 48)),
}


@pytest.mark.parametrize("name", RULES)
def test_rules_make_the_same_bits(name: str) -> None:
    rule, shape = RULES[name]
    found = decode.make((rule.rule, list(rule.numbers)), list(shape))
    assert found.tobytes() == made.make(rule, shape).tobytes()


shapes = st.lists(st.sampled_from([1, 2, 3, 4, 5, 8, 9, 16, 24]), min_size=1, max_size=4)


@st.composite
def states(draw: st.DrawFn) -> State:
    """Some tensors of any shapes, types, magnitudes and shares of zeros."""
    state = {}
    for i in range(draw(st.integers(1, 4))):
        shape = draw(shapes)
        g = np.random.default_rng(draw(st.integers(0, 2**32)))
        values = g.laplace(size=shape) * 10.0 ** draw(st.integers(-6, 3))
        values *= g.random(shape) < draw(st.sampled_from([1, 1, 0.6, 0.1]))
        dtype = draw(st.sampled_from([torch.float32, torch.float32, torch.float16, torch.bfloat16, torch.float64]))
        state[f"{i}.é/weight"] = torch.from_numpy(values).to(dtype)
    return state


@settings(max_examples=40)
@given(
    states(),
    st.sampled_from([*RATED, *({"scheme": scheme} for scheme in FIXED)]),
    st.sampled_from(["auto", "keep", "ignore"]),
    st.sampled_from(["none", "tensor", "row"]),
    st.sampled_from([1, 16, 64]),
)
def test_any_file(state: State, fields: dict[str, Any], sparsity: str, scales: str, least: int) -> None:
    given = {**fields, "effort": "draft", "sparsity": sparsity, "scales": scales, "min_size": least}
    try:
        archive = tersor.compress(state, tersor.Recipe(**given))
    except TersorError as error:  # a tiny checkpoint whose index alone is over the target
        assert "cannot be stored" in str(error)
        return
    agree(archive.to_bytes())


# ------------------------------------------------------------------ damaged files
def refused(data: bytes) -> str:
    with pytest.raises(decode.Refused) as caught:
        decode.decode(data)
    message = str(caught.value)
    assert message and "\n" not in message and len(message) < 300
    return message


@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.stem)
def test_a_flipped_byte_is_refused(path: Path) -> None:
    data = path.read_bytes()
    for at in range(0, len(data), max(1, len(data) // 150)):
        refused(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])


def test_what_is_wrong_is_told() -> None:
    data = SMALL[0].read_bytes()
    assert "section" in refused(data[:-1] + bytes([data[-1] ^ 1])) and "cut off" in refused(data[:-1])
    assert "newer" in refused(hostile.a_newer_version()) and "header" in refused(b"nothing like it")
    refused(data + b"\0")


@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.stem)
def test_missing_sections_are_refused(path: Path) -> None:
    source = tersor.open(path)
    parts = [source.section(i) for i in range(len(source.index.lengths))]
    for count in range(len(parts)):
        fewer = parts[:count]
        lengths, checks = tuple(map(len, fewer)), tuple(map(zlib.crc32, fewer))
        index = msgspec.structs.replace(source.index, lengths=lengths, checks=checks)
        packed = zstandard.compress(indices.encoded(index))
        refused(hostile.packed(packed, b"".join(fewer), source.version))


@pytest.mark.parametrize("attack", hostile.ATTACKS, ids=lambda attack: attack.__name__)
def test_every_attack_is_refused(attack: Any) -> None:
    refused(attack())


@settings(max_examples=150)
@given(st.sampled_from(SMALL), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 255))
def test_what_it_accepts_behind_a_checksum_is_the_same(path: Path, i: int, at: int, flip: int) -> None:
    """It is at least as strict: a damaged section with a good checksum is refused, or read alike by both."""
    source = tersor.open(path)
    i %= len(source.index.lengths)
    section = bytearray(source.section(i))
    if section:
        section[at % len(section)] ^= flip
    data = hostile.rebuilt(source, {i: bytes(section)})
    try:
        found = decode.decode(data)
    except decode.Refused as error:
        assert "\n" not in str(error)
        return
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            assert_same_bits(found, tersor.Archive(data).state_dict())
    except ArchiveError as error:
        pytest.fail(f"accepted what tersor refuses: {error}")


# ------------------------------------------------------------------ the script
def run(*arguments: Path) -> subprocess.CompletedProcess[str]:
    """Run the script where tersor, torch and safetensors cannot be imported."""
    block = "import sys, runpy; sys.modules.update(tersor=None, torch=None, safetensors=None, msgspec=None); "
    code = block + "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_script_needs_no_tersor_and_writes_an_npz(tmp_path: Path) -> None:
    source, out = HERE / "golden" / "v1-both.tersor", tmp_path / "out.npz"
    done = run(source, out)
    assert done.returncode == 0, done.stderr
    assert "experts  bfloat16  [3, 10, 12]  as float32\n" in done.stdout
    state = tersor.open(source).state_dict()
    with np.load(out) as arrays:
        assert sorted(arrays) == sorted(state)
        for name, tensor in state.items():
            want = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
            assert arrays[name].dtype == want.numpy().dtype and arrays[name].tobytes() == raw(want)


def test_the_script_lists_tensors_and_refuses_in_one_line(tmp_path: Path) -> None:
    data = SMALL[0].read_bytes()
    (tmp_path / "bad.tersor").write_bytes(data[:-1] + bytes([data[-1] ^ 4]))
    listed, bad = run(SMALL[0]), run(tmp_path / "bad.tersor", tmp_path / "out.npz")
    assert listed.returncode == 0 and "conv.weight  float32  [24, 8, 3, 3]\n" in listed.stdout
    assert bad.returncode == 1 and not bad.stdout and not (tmp_path / "out.npz").exists()
    assert bad.stderr.count("\n") == 1 and "bad.tersor: " in bad.stderr
    assert run(tmp_path / "missing.tersor").returncode == 1
