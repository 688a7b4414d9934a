from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from tersor.errors import TersorError
from tersor.files import atomic_output


def write(path: Path, data: bytes = b"new", *, force: bool = False) -> None:
    with atomic_output(path, force=force) as out:
        out.write(data)


def test_the_content_appears_at_the_end_of_the_block(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with atomic_output(path) as out:
        out.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["x"]


def test_a_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write(tmp_path / "x")
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_failed_block_leaves_all_as_it_was(tmp_path: Path, error: type[BaseException], old: bytes | None) -> None:
    path = tmp_path / "x"
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(error), atomic_output(path, force=True) as out:
        out.write(b"half")
        raise error
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([] if old is None else [old])


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "disk is full"),
        (errno.EIO, "Input/output"),
        (errno.EROFS, "no perm"),
    ],
)
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failing_disk_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, number: int, reason: str
) -> None:
    def fail(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(TersorError, match=f"cannot write .*{reason}") as caught:
        write(tmp_path / "x")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_failing_read_in_the_block_names_what_failed(tmp_path: Path) -> None:
    with pytest.raises(TersorError, match=r"No such file.*missing"), atomic_output(tmp_path / "x"):
        (tmp_path / "missing").read_bytes()
    assert not list(tmp_path.iterdir())


def test_an_existing_file_needs_force(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(TersorError, match=r"--force \(force=True\)"):
        write(path)
    assert path.read_bytes() == b"old"
    write(path, force=True)
    assert path.read_bytes() == b"new"


def test_a_file_that_appeared_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with pytest.raises(TersorError, match="--force"), atomic_output(path) as out:
        out.write(b"new")
        path.write_bytes(b"other")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"other"]


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", force=True)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (".", "is a folder"),
        ("missing/x", "does not exist"),
        ("x" * 300, "too long"),
        ("/dev/null", "not a regular file"),
    ],
)
def test_an_impossible_output_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(TersorError, match=reason):
        write(tmp_path / name, force=True)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*args: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("builtins.open", deny)  # permissions of the folder itself would not stop an administrator
    with pytest.raises(TersorError, match="no permission in"):
        write(tmp_path / "x")
