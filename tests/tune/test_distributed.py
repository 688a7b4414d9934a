"""DistributedDataParallel: gradients are averaged, codes are not sent around, all ranks end with the same file."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from tunables import noise, pair, train

import tersor
from tersor.errors import TersorError
from tersor.tune.distill import distill

INPUTS = noise(8, 12)
both = pytest.mark.parametrize("moving", [False, True])


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of this process only."""
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@both
def test_a_world_of_one_trains_as_usual(alone: None, moving: bool) -> None:
    net, _, _ = pair("convs", moving=moving, scheme="2x8d9+lattice", scales="tensor", ratio=2)
    twin, _, _ = pair("convs", moving=moving, scheme="2x8d9+lattice", scales="tensor", ratio=2)
    parallel = DistributedDataParallel(net)
    images = (noise(3, 3, 6, 6),)
    steps = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (parallel, twin)]
    for _ in range(3):
        for model, optimizer, inner in zip((parallel, twin), steps, (net, twin), strict=True):
            optimizer.zero_grad()
            (model(*images) - 1).square().mean().backward()
            optimizer.step()
            if moving:
                inner.choose()
    assert net.freeze().to_bytes() == twin.freeze().to_bytes()


@both
def test_codes_are_not_sent_around(alone: None, moving: bool) -> None:
    net, _, _ = pair("convs", moving=moving, scheme="2x8d9+lattice", scales="row", ratio=1.8)
    parallel = DistributedDataParallel(net)
    sent = {id(buffer) for buffer in parallel.modules_buffers}
    assert sent == {id(buffer) for buffer in net.network.buffers()} and len(sent) == 3
    assert len(list(net.groups.buffers())) > 3


def test_distill_takes_a_wrapped_network_whose_codes_stay(alone: None) -> None:
    data = [noise(8, 12, seed=s) for s in range(4)]
    files = []
    for wrap in (DistributedDataParallel, lambda net: net):
        net, model, _ = pair()
        distill(wrap(net), model, data, steps=8)
        files.append(net.freeze().to_bytes())
    assert files[0] == files[1]
    net, model, _ = pair(moving=True)
    with pytest.raises(TersorError, match="codes that move"):
        distill(DistributedDataParallel(net), model, data, steps=8)


def rank_of_two(rank: int, folder: str, port: int) -> None:
    """What each of two processes does: half of every batch is its own."""
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    for moving in (False, True):
        net, _, _ = pair(moving=moving, scheme="2x8d4+lattice", ratio=2)
        parallel = DistributedDataParallel(net)
        optimizer = torch.optim.Adam(net.parameter_groups(1e-2))
        for _ in range(4):
            optimizer.zero_grad()
            (parallel(INPUTS[rank::2]) - 1).square().mean().backward()
            optimizer.step()
            if moving:
                net.choose()
        net.freeze().save(Path(folder) / f"{moving}-{rank}.tersor")
    dist.destroy_process_group()


def test_two_processes_end_with_one_and_the_same_file(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(rank_of_two, (str(tmp_path), port), nprocs=2)  # type: ignore[attr-defined]
    for moving in (False, True):
        files = [tmp_path / f"{moving}-{rank}.tersor" for rank in range(2)]
        assert files[0].read_bytes() == files[1].read_bytes()
        net, _, _ = pair(moving=moving, scheme="2x8d4+lattice", ratio=2)
        train(net, (INPUTS,))
        apart, whole = (a.state_dict() for a in (tersor.open(files[0]), net.freeze()))
        for name, value in whole.items():
            scale = float(value.abs().max())
            torch.testing.assert_close(apart[name], value, rtol=0.01, atol=(0.2 if moving else 0.02) * scale)
