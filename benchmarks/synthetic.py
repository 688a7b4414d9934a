"""Large checkpoints of realistic shapes and heavy-tailed weights, written shard by shard: nothing public is that large.

A transformer (attention, gated feed-forward, norms, embedding) with a few 3x3 convolutions in front, as vision and
speech networks have. Weights are Student's t of 5 degrees over the root of fan-in, times a log-normal scale per row;
they are cut from a pool at places that follow from name and seed, since drawing two billion numbers takes minutes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

Shapes = dict[str, tuple[int, ...]]

SIZES = {"10M": (320, 8), "50M": (640, 9), "250M": (1280, 12), "2000M": (4096, 10)}
"""Width and number of layers by about how many weights there are."""

_POOL = 1 << 24


def shards(width: int, layers: int) -> Iterator[Shapes]:
    """Shapes of each shard: embedding and convolutions, then layer by layer."""
    inner, channels = width * 11 // 4, width // 4
    yield {
        "embed.weight": (4 * width, width),
        **{f"stem.{i}.weight": (channels, channels, 3, 3) for i in range(4)},
    }
    for i in range(layers):
        name = f"layers.{i}"
        yield {
            **{f"{name}.attention.{k}.weight": (width, width) for k in "qkvo"},
            **{f"{name}.feed.{k}.weight": (inner, width) for k in ("gate", "up")},
            f"{name}.feed.down.weight": (width, inner),
            **{f"{name}.norm{k}.weight": (width,) for k in (1, 2)},
        }


def write(folder: Path, size: str) -> Path:
    """A checkpoint of that size in a folder of shards with an index; made once, and found again."""
    folder = folder / f"synthetic-{size}"
    index = folder / "model.safetensors.index.json"
    if index.exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    pool = np.random.default_rng(0).standard_t(5, _POOL).astype(np.float32)
    places: dict[str, str] = {}
    for i, shapes in enumerate(shards(*SIZES[size])):
        shard = f"model-{i:05d}.safetensors"
        save_file({name: _values(name, shape, pool) for name, shape in shapes.items()}, folder / shard)
        places |= dict.fromkeys(shapes, shard)
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def _values(name: str, shape: tuple[int, ...], pool: NDArray[np.float32]) -> NDArray[np.float32]:
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) == 1:
        return generator.normal(1, 0.1, shape).astype(np.float32)
    width = int(np.prod(shape[1:]))
    starts = generator.integers(0, _POOL - width, shape[0])
    scales = np.exp(generator.normal(0, 0.2, shape[0])) / np.sqrt(width)
    out = np.empty((shape[0], width), dtype=np.float32)
    for row, start, scale in zip(out, starts, scales.astype(np.float32), strict=True):
        np.multiply(pool[start : start + width], scale, out=row)
    return out.reshape(shape)
