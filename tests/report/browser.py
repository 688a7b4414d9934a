"""Headless Chromium, and the pictures it makes."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--enable-logging=stderr",
)  # fmt: skip


def chromium() -> str:
    """Where it is; without one the test is skipped, but fails where all tests are to run (CI or TERSOR_CI is set)."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is not None:
        return found
    missing = f"no {', '.join(_NAMES)} on PATH: what pages look like was not tested"
    if os.environ.get("CI") or os.environ.get("TERSOR_CI"):
        pytest.fail(missing)
    pytest.skip(missing)


def run(page: Path, *flags: str) -> tuple[str, str]:
    """Open a page with an empty profile; gives what was printed, and the log."""
    with tempfile.TemporaryDirectory() as profile:
        command = [chromium(), *_FLAGS, f"--user-data-dir={profile}", *flags, page.resolve().as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def pixels(path: Path) -> NDArray[np.uint8]:
    """A PNG of 8 bits per channel as [height, width, channels]."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, packed = 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            assert depth == 8 and colour in (2, 6) and not interlaced
        packed += body if kind == b"IDAT" else b""
        at += 12 + length
    channels = 3 if colour == 2 else 4
    raw = np.frombuffer(zlib.decompress(packed), dtype=np.uint8).reshape(height, 1 + width * channels)
    out = np.zeros((height + 1, width + 1, channels), dtype=np.uint8)  # a row above and a column before, of zeros
    for y in range(height):
        _unfilter(int(raw[y, 0]), raw[y, 1:].reshape(width, channels), out[y], out[y + 1])
    return out[1:, 1:]


def _unfilter(kind: int, given: NDArray[np.uint8], above: NDArray[np.uint8], row: NDArray[np.uint8]) -> None:
    """One row of pixels from its differences; the filters of the PNG specification, section 9."""
    if kind == 0:
        row[1:] = given
    elif kind == 1:
        row[1:] = np.cumsum(given, axis=0, dtype=np.uint8)
    elif kind == 2:
        row[1:] = given + above[1:]
    else:
        for channel in range(row.shape[1]):
            left, corner = 0, 0
            ups, deltas = above[1:, channel].tolist(), given[:, channel].tolist()
            for x, (up, delta) in enumerate(zip(ups, deltas, strict=True), 1):
                guess = (left + up) // 2 if kind == 3 else _paeth(left, up, corner)
                left, corner = (delta + guess) & 255, up
                row[x, channel] = left


def _paeth(left: int, up: int, corner: int) -> int:
    a, b, c = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    return left if a <= b and a <= c else up if b <= c else corner
