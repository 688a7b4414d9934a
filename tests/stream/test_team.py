"""Processes that work together: what they tell each other, and that the end of one is the end of all."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from large import shards, state
from torch.distributed import HashStore

import tersor
from tersor.errors import TersorError
from tersor.stream import team as teams
from tersor.stream.start import agree
from tersor.stream.team import Team


def together(size: int, work: Callable[[Team], object]) -> list[object]:
    """What each of `size` threads, standing for processes, returned or raised."""
    store, out = HashStore(), [None] * size

    def one(rank: int) -> None:
        try:
            team = teams.Processes(store, rank, size)
            out[rank] = work(team)
            team.close()
        except Exception as error:
            out[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return out


def test_one_alone_needs_nobody() -> None:
    team = Team()
    assert team.gather("x", 3) == [3] and team.share("y", lambda: [1]) == [1]
    assert list(team.claims("z", 3)) == [0, 1, 2] and team.claim("other") == 0
    team.check()
    team.close()


def test_all_hear_all_and_each_number_is_taken_once() -> None:
    def work(team: Team) -> object:
        mine = list(team.claims("numbers", 20))
        return team.gather("mine", [team.rank, mine]), team.share("first", lambda: team.rank)

    found = together(3, work)
    assert all(f == found[0] for f in found)
    said, first = found[0]  # type: ignore[misc]
    assert [rank for rank, _ in said] == [0, 1, 2] and first == 0
    assert sorted(n for _, mine in said for n in mine) == list(range(20))


def test_the_failure_of_one_is_told_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teams, "_BEAT", 0.05)

    def work(team: Team) -> object:
        if team.rank == 1:
            team.close("its disk is full")
            raise TersorError("its disk is full")
        team.gather("never", None)
        return None

    found = together(3, work)
    for rank in (0, 2):
        assert isinstance(found[rank], TersorError)
        assert f"process 1 of 3 ({socket.gethostname()}) stopped: its disk is full" in str(found[rank])


def test_one_that_falls_silent_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teams, "_BEAT", 0.05)
    monkeypatch.setattr(teams, "LOST", 0.5)

    def work(team: Team) -> object:
        if team.rank == 1:
            team._closed.set()  # type: ignore[attr-defined]
            raise RuntimeError("gone without a word")
        for _ in range(500):
            team.check()
            time.sleep(0.01)
        return None

    found = together(2, work)
    assert (
        isinstance(found[0], TersorError) and "has not been heard of" in str(found[0]) and "--resume" in str(found[0])
    )


def test_a_lost_connection_is_one_clear_line() -> None:
    class Broken:
        def add(self, *_: object) -> int:
            raise RuntimeError("Connection reset by peer\n at c10d")

        set = check = get = add

    with pytest.raises(TersorError, match=r"connection to the other processes is lost; .*--resume"):
        teams.Processes(Broken(), 0, 2)


def test_processes_that_would_do_something_else_are_told() -> None:
    def work(team: Team) -> None:
        recipe = {"bpp": 2} if team.rank < 2 else {"bpp": 3}
        agree(team, {"recipe": recipe, "input a": f"8 B, abc, changed {team.rank}"})

    for error in together(3, work):
        assert "process 2 of 3 differs from the first (recipe was {'bpp': 2} and is {'bpp': 3})" in str(error)


# ---------------------------------------------------------------------- real processes
def large_enough(folder: Path) -> Path:
    """A checkpoint of more values than are trained on."""
    g = torch.Generator().manual_seed(0)
    pool = torch.randn(1 << 20, generator=g)
    return shards(folder, {**state(), **{f"w{i}": pool.roll(i).reshape(1024, 1024) * 0.02 for i in range(6)}})


def command(folder: Path, out: Path, *options: str) -> list[str]:
    return ["-m", "tersor", "compress", str(folder), str(out), "--bpp", "1", "--effort", "draft", *options]


def torchrun(processes: int, *arguments: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
        *arguments,
    ]


def test_processes_that_torchrun_starts_write_the_same_bytes(tmp_path: Path) -> None:
    folder = large_enough(tmp_path / "in")
    subprocess.run([sys.executable, *command(folder, tmp_path / "one")], check=True, stdout=subprocess.DEVNULL)
    found = subprocess.run(
        torchrun(2, *command(folder, tmp_path / "two", "--memory", "2GB")), check=True, capture_output=True, text=True
    )
    assert found.stdout.count("bits per parameter") == 1
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    small = shards(tmp_path / "small", state())
    subprocess.run(torchrun(2, *command(small, tmp_path / "few")), check=True, capture_output=True)
    assert (tmp_path / "few").read_bytes() == tersor.compress(small, tersor.Recipe(bpp=1.0, effort="draft")).to_bytes()


def test_when_a_process_is_killed_the_others_stop_and_a_resumed_run_ends_the_same(tmp_path: Path) -> None:
    folder, out, expected = large_enough(tmp_path / "in"), tmp_path / "x", tmp_path / "expected"
    subprocess.run([sys.executable, *command(folder, expected)], check=True, stdout=subprocess.DEVNULL)
    run = subprocess.Popen(
        torchrun(2, *command(folder, out)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    work = Path(f"{out}.work")
    until = time.monotonic() + 60
    while not any(work.glob("block-*")) and time.monotonic() < until:
        time.sleep(0.005)
    children = subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)
    told, _ = run.communicate(timeout=60)
    assert run.returncode != 0 and not out.exists() and any(work.glob("block-*"))
    assert "tersor: " in told and "--resume" in told
    subprocess.run([sys.executable, *command(folder, out, "--resume")], check=True, stdout=subprocess.DEVNULL)
    assert out.read_bytes() == expected.read_bytes() and not work.exists()


def test_machines_with_other_recipes_do_not_work_together(tmp_path: Path) -> None:
    folder, processes = large_enough(tmp_path / "in"), []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for rank in range(2):
        place = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        options = ("--seed", "1") if rank else ()
        processes.append(
            subprocess.Popen(
                [sys.executable, *command(folder, tmp_path / "x", *options)],
                env={**os.environ, **place},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for process in processes:
        _, told = process.communicate(timeout=60)
        assert process.returncode == 1 and told.count("\n") == 1
        assert "process 1 of 2 differs from the first (recipe was " in told
