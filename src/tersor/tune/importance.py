"""How much a squared error of each weight matters: what `tersor.compress(..., importance=)` takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice

import torch
from torch import nn

from tersor.errors import TersorError
from tersor.tune.activation import Activation
from tersor.tune.batches import Data, once, split, to_device
from tersor.tune.fisher import Fisher
from tersor.tune.ranks import Ranks

_APART = 1_000_003  # between the seeds of batches


def importance(
    model: nn.Module,
    data: Data,
    *,
    kind: str = "fisher",
    batches: int | None = None,
    labelled: bool = False,
    class_dim: int | None = None,
    samples: int = 1,
    seed: int = 0,
    floor: float = 0.01,
    distributed: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, torch.Tensor]:
    """A weight for the squared error of each element of the model's parameters, measured on data.

    `"fisher"` is the diagonal of the Fisher information, the mean squared derivative of log p(label | item) where
    labels are drawn from the model's own outputs (Martens, "New insights and perspectives on the natural gradient
    method", JMLR 2020, section 5): half of it times the squared error is, to second order and with independent errors,
    the divergence of the outputs in nats, so that it compares weights of any tensors. The data's labels would give the
    "empirical Fisher", which lacks that meaning (Kunstner, Balles and Hennig, NeurIPS 2019). Derivatives are taken item
    by item; an item's log-likelihood is the sum over its positions ([B, T, V], [B, C, H, W]), padding included.
    `"activation"` is the mean square of the feature that a weight of a linear or convolution layer multiplies (of the
    channel, for kernels): the diagonal of E[x x^T] in GPTQ (Frantar et al., ICLR 2023), what AWQ (Lin et al., MLSys
    2024) scales by. For embeddings it is the frequency of the token. It needs one forward pass, and compares the
    weights of one layer.

    Args:
        model: runs in eval mode, on its own device; its mode, gradients and `requires_grad` are afterwards as before.
        data: batches (`tersor.tune.batches`); for fisher, tensors of the batch whose first dimension is the number of
            items are cut into items, others are given whole to each.
        kind: "fisher" or "activation".
        batches: at most so many of the data's batches; None for one pass.
        labelled: batches end with labels, which are left out.
        class_dim: of the logits, None for 1 from four dimensions on, else the last (fisher).
        samples: labels drawn per item and position (fisher).
        seed: of the labels drawn; global random state is left alone.
        floor: this share of each tensor's mean is added to its elements. What stayed at zero in the data at hand (dead
            units, unseen tokens) would be free to take any value; the floor is per tensor, since 1 % of the mean over
            all would drown the differences within tensors that matter little. For a tensor of zeros the mean over all
            stands in.
        distributed: share the batches among the processes of torch.distributed's group; all get the same result.
        progress: called with "importance", batches done and batches expected (one more than done, where unknown).

    Returns:
        By state-dict name non-negative float32 on the CPU, shaped like the parameter; tied ones once, under the first
        name. Fisher: all floating-point parameters. Activation: the weights of linear, convolution and embedding
        layers that were called; the sum over layers that share a weight.

    Raises:
        TersorError: the data yields nothing, the output has no logits of at least two classes, one output per item is
            not what the model gives, importance is not finite or zero everywhere, an option is out of range.
    """
    if kind not in ("fisher", "activation"):
        raise TersorError(f"importance kind {kind!r} is not known; say 'fisher' or 'activation'")
    if samples < 1 or (batches is not None and batches < 1) or not 0 <= floor < float("inf"):
        raise TersorError(f"importance needs samples and batches >= 1, floor >= 0; got {samples}, {batches}, {floor}")
    parameters = {name: p for name, p in model.named_parameters() if p.is_floating_point()}
    if not parameters:
        raise TersorError(f"{type(model).__name__} has no floating-point parameters to weigh; give a model that has")
    device = next(iter(parameters.values())).device
    ranks, generator = Ranks(distributed), torch.Generator(device)
    measure: Fisher | Activation = Activation(model, parameters)
    if kind == "fisher":
        measure = Fisher(model, parameters, class_dim, samples, generator)
    known = [n for n in (batches, len(data) if isinstance(data, Sized) else None) if n is not None]
    done = 0
    with _evaluating(model):
        for number, raw in ranks.share(enumerate(islice(once(data), batches))):
            generator.manual_seed(seed + _APART * number)  # labels of a batch are the same whoever draws them
            done = number + 1
            measure.add(to_device(replace(split(raw, labelled), labels=None), device))
            if progress:
                progress("importance", done, max(min(known), done) if known else done + 1)
    if progress:
        progress("importance", done, done)
    return _floored(measure.result(ranks), floor)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Every module in eval mode, and back in its own."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _floored(values: Mapping[str, torch.Tensor], floor: float) -> dict[str, torch.Tensor]:
    for name, value in values.items():
        if not value.isfinite().all():
            raise TersorError(
                f"importance of {name} has NaN or infinite values; look for them in the data and the model"
            )
    overall = sum(float(v.sum(dtype=torch.float64)) for v in values.values()) / sum(v.numel() for v in values.values())
    if not overall:
        raise TersorError("importance is zero everywhere: the outputs do not depend on the parameters on this data")
    means = {name: float(value.mean(dtype=torch.float64)) for name, value in values.items()}
    return {name: value + floor * (means[name] or overall) for name, value in values.items()}
