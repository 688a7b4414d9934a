"""What the command line decides, passed to every benchmark."""

from __future__ import annotations

from dataclasses import dataclass

PEERS = ("nncodec", "uniform", "faiss", "zstd", "bound")
"""The peers of the rate-distortion benchmark; `benchmarks.peers` holds one file for each."""

CODERS = (*PEERS, "tersor")


@dataclass(frozen=True)
class Options:
    """`checkpoints`: names to run on; `coders`: whom to run in `rate_distortion`; `quick`: few points and
    repeats; `cases`: of the tuning benchmark, all planned ones if empty; `trained`: networks that `classic` trains."""

    checkpoints: tuple[str, ...]
    coders: tuple[str, ...] = CODERS
    quick: bool = False
    cases: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()
