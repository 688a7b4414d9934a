"""Which neurons of a layer can be merged, in which order, and at what cost.

Source: Srinivas and Babu, "Data-free Parameter Pruning for Deep Neural Networks", BMVC 2015: the saliency, the surgery,
and the greedy order. Ours: `parallel`, our reading of the automatic cut-off, and the bookkeeping that makes a removal
cost O(h) instead of O(h^2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tersor.errors import TersorError

Array = NDArray[np.float64]

_CLOSE = 1e-9  # relative squared distances below this lose their digits in a product of matrices: subtracted instead
_CHUNK = 4096


@dataclass(frozen=True)
class Merges:
    """What was merged, in order.

    Attributes:
        pairs: (i, j, c): neuron j went, and its outgoing weights were added to those of i, times c (1 for twins).
        saliencies: of each removal, [removals].
        keep: neurons that stay, ascending.
        columns: outgoing weights of those that stay, after the surgery, [neurons, outputs].
    """

    pairs: list[tuple[int, int, float]]
    saliencies: Array
    keep: NDArray[np.int64]
    columns: Array


def incoming(weight: torch.Tensor, bias: torch.Tensor | None) -> Array:
    """Each neuron's weights with its bias as one coordinate more: [neurons, inputs + 1], float64.

    Args:
        weight: [neurons, ...].
        bias: [neurons] or None for zeros.
    """
    rows = weight.detach().double().reshape(len(weight), -1)
    last = torch.zeros(len(weight), 1).to(rows) if bias is None else bias.detach().double().reshape(-1, 1)
    return torch.cat([rows, last], 1).cpu().numpy()


def outgoing(weight: torch.Tensor, neurons: int) -> Array:
    """What the next layer does with each neuron: [neurons, outputs * positions], float64.

    Args:
        weight: of the next layer: [outputs, neurons, ...], or [outputs, neurons * positions] after a flatten.
        neurons: of this layer.
    """
    spread = weight.detach().double().reshape(len(weight), neurons, -1)
    return spread.transpose(0, 1).reshape(neurons, -1).cpu().numpy()


def distances(rows: Array, parallel: bool = False) -> tuple[Array, Array]:
    """What it costs to let neuron i stand for neuron j, and by which factor c it does.

    Args:
        rows: [neurons, inputs + 1].
        parallel: ours: let c W_i stand for W_j, with the best c of zero or more, which is exact where the activation
            is positively homogeneous (ReLU). Else c is 1.

    Returns:
        Squared distances |W_j - c W_i|^2, [i, j], infinite on the diagonal, and c, [i, j].
    """
    product = rows @ rows.T
    norm = product.diagonal().copy()
    if parallel:
        positive = np.maximum(product, 0)
        factor = np.divide(positive, norm[:, None], out=np.zeros_like(product), where=norm[:, None] > 0)
        found = norm[None, :] - factor * positive
        close = found <= _CLOSE * norm[None, :]
    else:
        factor = np.ones_like(product)
        found = norm[:, None] + norm[None, :] - 2 * product
        close = found <= _CLOSE * (norm[:, None] + norm[None, :])
    i, j = np.nonzero(close)
    for start in range(0, len(i), _CHUNK):
        a, b = i[start : start + _CHUNK], j[start : start + _CHUNK]
        found[a, b] = np.square(rows[b] - factor[a, b, None] * rows[a]).sum(1)
    np.fill_diagonal(found, math.inf)
    return np.maximum(found, 0), factor


def saliency(rows: Array, columns: Array, parallel: bool = False) -> Array:
    """`s[i, j] = mean(a_j^2) |W_i - W_j|^2`: the cost of deleting j while i stands for it; not symmetric.

    A mean over the next layer's outputs of their squared change is at most `s * |(x, 1)|^2`, for activations that are
    1-Lipschitz.
    """
    cost, _ = distances(rows, parallel)
    energy = np.square(columns).mean(1)
    with np.errstate(invalid="ignore"):
        found = cost * energy[None, :]
    np.fill_diagonal(found, math.inf)
    return found


def merged(
    rows: Array, columns: Array, count: int | None = None, limit: float = math.inf, parallel: bool = False
) -> Merges:
    """Merge greedily: the pair of least saliency first; a_i becomes a_i + a_j, and neuron j goes.

    Only the energy of i changes by a removal, so each neuron's nearest other is kept, and looked for again only where
    that one went.

    Args:
        rows: [neurons, inputs + 1].
        columns: [neurons, outputs]; not changed.
        count: of removals, at most; one neuron stays always.
        limit: a removal of a higher saliency ends it.
        parallel: see `distances`.
    """
    cost, factor = distances(rows, parallel)
    columns = columns.copy()
    energy = np.square(columns).mean(1)
    who = cost.argmin(0)
    near = cost[who, np.arange(len(rows))]
    alive = np.ones(len(rows), dtype=bool)
    most = len(rows) - 1
    pairs, saliencies = [], []
    for _ in range(most if count is None else min(count, most)):
        with np.errstate(invalid="ignore"):
            scores = np.where(alive, energy * near, math.inf)
        j = int(scores.argmin())
        if scores[j] > limit:
            break
        i, c = int(who[j]), float(factor[who[j], j])
        pairs.append((i, j, c))
        saliencies.append(float(scores[j]))
        columns[i] += c * columns[j]
        energy[i] = np.square(columns[i]).mean()
        alive[j] = False
        cost[j] = math.inf
        stale = np.flatnonzero((who == j) & alive)
        who[stale] = cost[:, stale].argmin(0)
        near[stale] = cost[who[stale], stale]
    keep = np.flatnonzero(alive)
    return Merges(pairs, np.array(saliencies), keep, columns[keep])


def curve(
    weight: torch.Tensor, bias: torch.Tensor | None, following: torch.Tensor, parallel: bool = False
) -> torch.Tensor:
    """Saliencies of successive removals until one neuron is left, [neurons - 1], float64.

    Args:
        weight: of the layer, [neurons, ...].
        bias: [neurons] or None.
        following: weight of the next layer, as for `outgoing`.
        parallel: see `distances`.
    """
    found = merged(incoming(weight, bias), outgoing(following, len(weight)), parallel=parallel)
    return torch.from_numpy(found.saliencies)


def cutoff(saliencies: torch.Tensor) -> float:
    """The saliency beyond which neurons are not merged: the mode of the histogram of a curve's saliencies.

    That the mode is taken is the paper's; how its histogram is made could not be verified. Ours: of logarithms (in
    saliencies themselves the first bin holds nearly all), in bins by the rule of Freedman and Diaconis, far outliers
    left out; the middle of the fullest. Without any saliency above zero, zero.
    """
    logs = saliencies[saliencies > 0].double().log().numpy()
    if len(logs) == 0:
        return 0.0
    low, high = np.quantile(logs, [0.25, 0.75])
    inner = logs[(logs >= low - 3 * (high - low)) & (logs <= high + 3 * (high - low))]
    counts, edges = np.histogram(inner, bins="fd")
    fullest = int(counts.argmax())
    return math.exp((edges[fullest] + edges[fullest + 1]) / 2)


def plot(curves: dict[str, torch.Tensor], path: str) -> None:
    """Draw curves of saliency, one for each layer, with their cut-offs, into an SVG file.

    Raises:
        TersorError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise TersorError("a plot of saliencies needs matplotlib; pip install tersor[report]") from error
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for number, (name, values) in enumerate(curves.items()):
        color = f"C{number % 10}"
        axes.plot(range(1, len(values) + 1), values.numpy(), color=color, label=name)
        axes.axhline(cutoff(values), color=color, linewidth=0.6, linestyle="--")
    axes.set(xlabel="neurons removed", ylabel="saliency of the removal", yscale="symlog" if not curves else "log")
    if curves:
        axes.legend(fontsize="small")
    try:
        figure.savefig(path, format="svg", metadata={"Date": None})
    except OSError as error:
        raise TersorError(f"{path}: cannot write the plot ({error.strerror})") from error
