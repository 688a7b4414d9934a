"""The papers' own figures on digits, and bookkeeping that needs no accuracy.

Cases, chosen with `--cases`: `obd` (Optimal Brain Damage's figure 1), `merge` (Srinivas and Babu: neurons merged
without data), `denil` (the order of dictionaries), `ham` (HAM and sHAM against entropy), `entropy` (masks and values as
stored against their entropy, on real networks pruned by magnitude), `speed` (networks with half of their filters).
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import logging
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

import tersor
from benchmarks import digits, store, weights
from benchmarks.environment import environment
from benchmarks.options import Options
from tersor.codec import ham as hams
from tersor.passes.chain import Chain
from tersor.passes.prune import keep_best, saliency
from tersor.passes.sweep import backward_sweep
from tersor.representations import symbols
from tersor.representations.sharing import kmeans

log = logging.getLogger("benchmarks")

NAME = "papers"
CASES = ("obd", "merge", "denil", "ham", "entropy", "speed")
SEEDS = 3


def run(options: Options) -> None:
    """All cases, or those named."""
    for case in options.cases or CASES:
        if case not in CASES:
            sys.exit(f"papers has no case {case!r}; there are: {', '.join(CASES)}")
        log.info("papers: %s", case)
        rows = globals()[case](options.quick)
        results = store.read(NAME)
        results[case] = {"environment": environment(), "quick": options.quick, "rows": rows}
        store.write(NAME, results)
        if case == "obd":
            from benchmarks import obd_chart

            obd_chart.draw(rows)


SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def obd(quick: bool) -> list[dict[str, Any]]:
    """Rise of the training error when a share of the weights is deleted, nothing retrained: LeCun et al., figure 1a.

    64-12-10 with tanh, targets of plus and minus 0.8, L-BFGS on squared error and 1e-4 times the squared weights.
    """
    rows = []
    x, y, _, _ = digits.data()
    x, target = x.double(), torch.full((len(x), 10), -0.8).double()
    target[torch.arange(len(y)), y] = 0.8
    for seed in range(1 if quick else SEEDS):
        net = _tanh(seed)
        _settle(net, x, target, 30 if quick else 400)
        names = [n for n, p in net.named_parameters() if p.ndim == 2]
        every = dict(net.named_parameters())
        h = backward_sweep(net, x, target, levenberg=True)
        generator = torch.Generator().manual_seed(seed)
        scores = {
            "obd": {n: saliency(every[n].detach(), h[n]) for n in names},
            "magnitude": {n: every[n].detach().abs() for n in names},
            "random": {n: torch.rand(every[n].shape, generator=generator) for n in names},
        }
        base = _error(net, x, target)
        for share in SHARES:
            row: dict[str, Any] = {"seed": seed, "share": share, "error": base}
            for name, score in scores.items():
                keep = keep_best(score, share, "global")
                row[name] = _error(_masked(net, keep), x, target) - base
                if name == "obd":
                    row["predicted"] = sum(float(score[n][~keep[n]].sum()) for n in names)
            rows.append(row)
    return rows


def _tanh(seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 10), nn.Tanh()).double()


def _settle(net: nn.Module, x: torch.Tensor, target: torch.Tensor, steps: int) -> None:
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=steps, history_size=30, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (net(x) - target).square().sum(1).mean()
        loss = loss + 1e-4 * torch.stack([p.square().sum() for p in net.parameters()]).sum()
        loss.backward()
        return loss

    optimizer.step(closure)


@torch.no_grad()
def _error(net: nn.Module, x: torch.Tensor, target: torch.Tensor) -> float:
    return float((net(x) - target).square().sum(1).mean())


@torch.no_grad()
def _masked(net: nn.Module, keep: dict[str, torch.Tensor]) -> nn.Module:
    made = copy.deepcopy(net)
    for name, p in made.named_parameters():
        if name in keep:
            p.mul_(keep[name])
    return made


def merge(quick: bool) -> list[dict[str, Any]]:
    """Test accuracy when k of 256 neurons of both hidden layers go, merged or just removed; no data, no retraining."""
    rows = []
    for seed in range(1 if quick else SEEDS):
        net = digits.trained(digits.mlp, seed=seed)
        for count in (64, 128, 160, 192, 224):
            recipe = tersor.Recipe(bpp=8, passes=(f"merge(share={count / 256})",))
            chain = Chain(net, recipe, data=[digits.data()[0][:32]])
            chain.prepare()
            removed = {"seed": seed, "removed": count, "base": accuracy(net)}
            rows.append({**removed, "merged": accuracy(chain.work.network), "smallest": accuracy(_removed(net, count))})
    return rows


@torch.no_grad()
def _removed(net: nn.Module, count: int) -> nn.Module:
    """The neurons of the smallest weights (and bias) are removed, one layer after the other."""
    made = copy.deepcopy(net)
    linear = [m for m in made if isinstance(m, nn.Linear)]  # type: ignore[attr-defined]
    for layer, following in itertools.pairwise(linear):
        size = layer.weight.square().sum(1) + layer.bias.square()
        following.weight[:, size.argsort()[:count]] = 0
    return made


@torch.no_grad()
def accuracy(net: nn.Module) -> float:
    """On the test digits, per cent."""
    _, _, x, y = digits.data()
    return float(100 * (net(x).argmax(1) == y).double().mean())


DICTIONARIES = ("learned", "identity", "gaussian", "se", "covariance")


def denil(quick: bool) -> list[dict[str, Any]]:
    """Test accuracy with both hidden layers as U V, U fixed (but for learned), V learned by distillation.

    Four columns where U costs a seed, one where it is stored; none where U and V would be no smaller than W.
    """
    rows = []
    steps = 40 if quick else 15 * len(digits.data()[0]) // digits.BATCH
    task = digits.TASKS["digits-mlp"]
    for share in (0.5, 0.25, 0.1, 0.05):
        for dictionary in DICTIONARIES:
            found = []
            for seed in range(1 if quick else SEEDS):
                net = digits.trained(digits.mlp, seed=seed)
                grid = ", grid=[8, 8], layers=['0']" if dictionary == "se" else ""
                columns = 1 if dictionary in ("learned", "covariance") else 4
                settings = f"share={share}, columns={columns}, steps={steps}"
                passes = [f"factorize(dictionary={dictionary}, {settings}{grid})"]
                if dictionary == "se":  # hidden units have no grid: covariance there, as the paper does
                    passes.append(f"factorize(dictionary=covariance, share={share}, steps={steps}, layers=['2'])")
                chain = Chain(net, tersor.Recipe(bpp=8, passes=tuple(passes), seed=seed), data=task.data(seed))
                with contextlib.suppress(tersor.TersorError):  # no smaller
                    chain.prepare()
                    found.append(accuracy(chain.work.network))
            rows.append({"share": share, "dictionary": dictionary, "accuracy": found})
            log.info("papers: %s", rows[-1])
    return rows


def ham_sizes(matrix: np.ndarray, size: int, zero: int | None) -> dict[str, float]:
    """Bits per weight by every code of symbols, and their entropy."""
    found = {name: 8 * len(data) / matrix.size for name, data in symbols.every(matrix, size, zero).items()}
    share = np.bincount(matrix.ravel(), minlength=size) / matrix.size
    share = share[share > 0]
    return {**found, "entropy": float(-(share * np.log2(share)).sum())}


def ham(quick: bool) -> list[dict[str, Any]]:
    """Gaussian weights pruned by magnitude to a share of survivors, 16 values by k-means."""
    side, rows = 256 if quick else 1024, []
    weight = np.random.default_rng(0).standard_normal((side, side)).astype(np.float32)
    for share in (1.0, 0.5, 0.3, 0.1, 0.07, 0.05, 0.02):
        limit = np.quantile(np.abs(weight), 1 - share)
        pruned = np.where(np.abs(weight) > limit, weight, np.float32(0)) if share < 1 else weight
        shared = kmeans(pruned, 16)
        zero = int(np.flatnonzero(shared.palette == 0)[0]) if share < 1 else None
        count = int((pruned != 0).sum())
        rows.append(
            {
                "survivors": share,
                **ham_sizes(shared.codes, len(shared.palette), zero),
                "ham_bound": 32 * hams.ham_bound(side, side, len(shared.palette)),
                "sham_bound": 32 * hams.sham_bound(side, side, 16, count),
                "sham_printed": 32 * (share * (1 + 4) / 32 + 6 * 16 / side**2 + (2 * side + 1) / side**2),
            }
        )
    return rows


ENTROPY_SPARSITY = 0.8


def entropy(quick: bool) -> list[dict[str, Any]]:
    """Tensors of real networks, 80 % pruned by global magnitude, 32 shared values: bytes as stored over entropy.

    The entropy is of zeros and values, symbol by symbol and tensor by tensor, tables for free.
    """
    rows = []
    for name in weights.select(None)[: 2 if quick else None]:
        state = {n: torch.from_numpy(np.array(v)) for n, v in weights.load(name).items()}
        keep = keep_best({n: v.abs() for n, v in state.items()}, ENTROPY_SPARSITY, "global")
        pruned = {n: v * keep[n] for n, v in state.items()}
        archive = tersor.compress(pruned, tersor.Recipe(scheme="shared32", min_size=0))
        stored = ideal = 0.0
        methods: dict[str, int] = {}
        for g, record in enumerate(archive.index.scalars):
            reader = archive.scalar_group(g)
            first = archive.sections.firsts[len(archive.index.groups) + g]
            for t in range(len(record.tensors)):
                share = np.bincount(reader.symbols(t).ravel()) / reader.symbols(t).size
                share = share[share > 0]
                ideal += float(-(share * np.log2(share)).sum()) * reader.symbols(t).size / 8
                stored += archive.index.lengths[first + 1 + t]
                method = symbols.METHODS[record.methods[t]]
                methods[method] = methods.get(method, 0) + 1
        rows.append({"checkpoint": name, "stored": stored, "entropy": ideal, "over": stored / ideal - 1, **methods})
        log.info("papers: %s", rows[-1])
    return rows


def speed(quick: bool) -> list[dict[str, Any]]:
    """Milliseconds per batch of 32 on one thread, dense and with half of the filters gone, medians taking turns."""
    from benchmarks.tasks import zoo

    nets: dict[str, tuple[Callable[[], nn.Module], torch.Tensor]] = {
        "vgg-like, 8 convolutions of 64 to 256": (_vgg, torch.randn(32, 3, 32, 32)),
        "resnet20-cifar10jpeg": (lambda: zoo().load("resnet20-cifar10jpeg"), torch.randn(32, 3, 32, 32)),
    }
    rows = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, (make, x) in nets.items():
            net = make()
            chain = Chain(net, tersor.Recipe(bpp=8, passes=("channels(share=0.5, scope=layer)",)), data=[x])
            chain.prepare()
            pair = {"dense": net, "shrunk": chain.work.network.eval()}
            times: dict[str, list[float]] = {key: [] for key in pair}
            with torch.no_grad():
                for _ in range(4 if quick else 30):
                    for key, one in pair.items():
                        started = time.perf_counter()
                        one(x)
                        times[key].append(1e3 * (time.perf_counter() - started))
            row: dict[str, Any] = {"network": name}
            for key, one in pair.items():
                row[key] = statistics.median(times[key][2:])
                row[f"{key}_parameters"] = sum(p.numel() for p in one.parameters())
            rows.append({**row, "faster": row["dense"] / row["shrunk"]})
            log.info("papers: %s", rows[-1])
    finally:
        torch.set_num_threads(threads)
    return rows


def _vgg() -> nn.Module:
    """Plain convolutions, as the paper speeds up in AlexNet."""
    layers: list[nn.Module] = []
    before = 3
    for width, pool in ((64, 0), (64, 1), (128, 0), (128, 1), (256, 0), (256, 0), (256, 1), (256, 0)):
        layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] * pool
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10)).eval()
