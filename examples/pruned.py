"""Prunes a checkpoint by global magnitude; compares files that keep the zeros with files that do not, at equal error.

    python examples/pruned.py ../shared/data/resnet20-cifar10jpeg.safetensors --zeros 0.8 --bpp 1 1.5 2

The file at each rate that treats zeros as numbers like others (`sparsity="ignore"`) sets the error; the file that keeps
them (`"keep"`) is made as small as it can be at that error.
"""

from __future__ import annotations

import argparse
import math

import torch
from safetensors.torch import load_file

import tersor
from tersor.usage import describe

State = dict[str, torch.Tensor]


def pruned(state: State, share: float) -> State:
    """The state dict with that share of its weights (of two dimensions or more), the smallest, set to zero."""
    names = [n for n, t in state.items() if t.is_floating_point() and t.dim() > 1 and t.numel() >= 256]
    magnitudes = torch.cat([state[n].abs().flatten() for n in names])
    limit = magnitudes.sort().values[int(share * len(magnitudes))]
    return {n: t * (t.abs() >= limit) if n in names else t for n, t in state.items()}


def decibels(archive: tersor.Archive, state: State) -> float:
    """Energy over squared error."""
    found = archive.state_dict()
    floats = [n for n, t in state.items() if t.is_floating_point()]
    error = sum(float((found[n].double() - state[n].double()).square().sum()) for n in floats)
    return 10 * math.log10(sum(float(state[n].double().square().sum()) for n in floats) / max(error, 1e-300))


def smallest(state: State, error: float, largest: int) -> tersor.Archive:
    """The smallest archive that keeps the zeros and has no more error than `error` decibels, by bisection."""
    low, high, best = 0.02 * largest, 1.1 * largest, None
    while best is None or high / low > 1.005:
        size = math.sqrt(low * high) if best is not None else high
        try:
            archive = tersor.compress(state, tersor.Recipe(size=int(size), sparsity="keep"))
        except tersor.TersorError:  # smaller than the smallest file there is
            low = size
            continue
        if decibels(archive, state) >= error:
            best, high = archive, size
        elif best is None:
            high *= 1.5
        else:
            low = size
    return best


def masks(archive: tersor.Archive, state: State) -> str:
    """What the masks take, and would with one probability per tensor; nothing where there are none."""
    weights, bits, plain = 0, 0.0, 0.0
    for t in describe(archive)["tensors"]:
        if t.get("mask_bits_per_weight") is not None:
            count, ones = state[t["name"]].numel(), int(state[t["name"]].count_nonzero())
            weights, bits = weights + count, bits + t["mask_bits_per_weight"] * count
            plain += sum(-n * math.log2(n / count) for n in (ones, count - ones) if n)
    return f"masks of {bits / weights:.3f} bits, {plain / weights:.3f} without structure" if weights else ""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("source", help="a .safetensors checkpoint")
    arguments.add_argument("--zeros", type=float, default=0.8)
    arguments.add_argument("--bpp", type=float, nargs="+", default=[1.0, 1.5, 2.0])
    options = arguments.parse_args()
    state = pruned(load_file(options.source), options.zeros)
    for bpp in options.bpp:
        for what, groups in (("as ever", "kernel"), ("without a basis", "one")):
            dense = tersor.compress(state, tersor.Recipe(bpp=bpp, sparsity="ignore", groups=groups))
            error, found = decibels(dense, state), dense.state_dict()
            lost = sum(int(((found[n] != 0) & (t == 0)).sum()) for n, t in state.items())
            sparse = smallest(state, error, dense.size)
            how = masks(sparse, state) or "zeros among the symbols"
            print(
                f"{error:.2f} dB: {what} {dense.size:,} B, {lost:,} zeros lost; kept {sparse.size:,} B ({how}), "
                f"{1 - sparse.size / dense.size:+.1%} smaller"
            )


if __name__ == "__main__":
    main()
