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
from tersor.tune.importance import importance
from tersor.tune.ranks import started

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
    torch.multiprocessing.spawn(rank_of_two, (str(tmp_path), free_port()), nprocs=2)  # type: ignore[attr-defined]
    for moving in (False, True):
        files = [tmp_path / f"{moving}-{rank}.tersor" for rank in range(2)]
        assert files[0].read_bytes() == files[1].read_bytes()
        net, _, _ = pair(moving=moving, scheme="2x8d4+lattice", ratio=2)
        train(net, (INPUTS,))
        apart, whole = (a.state_dict() for a in (tersor.open(files[0]), net.freeze()))
        for name, value in whole.items():
            scale = float(value.abs().max())
            torch.testing.assert_close(apart[name], value, rtol=0.01, atol=(0.2 if moving else 0.02) * scale)


def ready_made(rank: int, folder: str, port: int) -> None:
    """Importance and the ready loop on two processes, which share six batches."""
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
    data = [noise(8, 12, seed=s) for s in range(6)]
    with started() as ranks:
        assert (ranks.rank, ranks.size) == (rank, 2)
        assert [int(x) for x in ranks.share(range(6), start=1)] == [2 + rank, 4 + rank]
        _, model, _ = pair()
        for kind in ("fisher", "activation"):
            found = importance(model, data, kind=kind, distributed=True)
            torch.save(found, Path(folder) / f"{kind}-{rank}.pt")
        for moving in (False, True):
            net, model, _ = pair(moving=moving)
            checkpoint = Path(folder) / f"{moving}.pt"
            result = distill(
                net, model, data, steps=8, checks=2, held_out=data[:2], distributed=True, checkpoint=checkpoint
            )
            assert result.step == 8 or result.held_out is not None
            net.freeze().save(Path(folder) / f"ready-{moving}-{rank}.tersor")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_processes_share_the_batches_of_importance_and_of_the_ready_loop(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(ready_made, (str(tmp_path), free_port()), nprocs=2)  # type: ignore[attr-defined]
    _, model, _ = pair()
    data = [noise(8, 12, seed=s) for s in range(6)]
    for kind in ("fisher", "activation"):
        found = [torch.load(tmp_path / f"{kind}-{rank}.pt", weights_only=True) for rank in range(2)]
        for name, alone in importance(model, data, kind=kind).items():
            torch.testing.assert_close(found[0][name], alone, rtol=1e-4, atol=1e-7)
            torch.testing.assert_close(found[0][name], found[1][name], rtol=0, atol=0)
    for moving in (False, True):
        files = [(tmp_path / f"ready-{moving}-{rank}.tersor").read_bytes() for rank in range(2)]
        assert files[0] == files[1]
        net, model, _ = pair(moving=moving)
        both = [torch.cat(data[i : i + 2]) for i in range(0, 6, 2)]  # what the two learn from in a step
        distill(net, model, both, steps=8, checks=2, held_out=data[:2])
        apart, whole = tersor.Archive(files[0]).state_dict(), net.freeze().state_dict()
        for name, value in whole.items():
            scale = float(value.abs().max())
            torch.testing.assert_close(apart[name], value, rtol=0.02, atol=(0.3 if moving else 0.02) * scale)


def test_without_a_group_it_is_said(tmp_path: Path) -> None:
    net, model, _ = pair()
    with pytest.raises(TersorError, match="needs a process group"):
        distill(net, model, [INPUTS], steps=1, distributed=True)
