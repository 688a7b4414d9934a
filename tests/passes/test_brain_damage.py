"""Optimal Brain Damage on digits, in small: what ../shared/research/methods.md (W1) calls safe to assert."""

from __future__ import annotations

import torch
from benchmarks.papers import _error, _masked, _settle, _tanh

from benchmarks import digits
from tersor.passes.prune import keep_best, saliency
from tersor.passes.sweep import backward_sweep


def test_saliency_beats_magnitude_and_predicts_the_rise() -> None:
    x, y, _, _ = digits.data()
    x, target = x.double(), torch.full((len(x), 10), -0.8).double()
    target[torch.arange(len(y)), y] = 0.8
    net = _tanh(0)
    _settle(net, x, target, 400)
    every = dict(net.named_parameters())
    h = backward_sweep(net, x, target, levenberg=True)
    names = ["0.weight", "2.weight"]
    scores = {
        "obd": {n: saliency(every[n].detach(), h[n]) for n in names},
        "magnitude": {n: every[n].detach().abs() for n in names},
        "random": {n: torch.rand(every[n].shape, generator=torch.Generator().manual_seed(0)) for n in names},
    }
    base = _error(net, x, target)
    for share in (0.3, 0.4):
        keep = {kind: keep_best(score, share, "global") for kind, score in scores.items()}
        rise = {kind: _error(_masked(net, mask), x, target) - base for kind, mask in keep.items()}
        predicted = sum(float(scores["obd"][n][~keep["obd"][n]].sum()) for n in names)
        assert rise["obd"] < 0.5 * rise["magnitude"]
        assert 0.25 < predicted / rise["obd"] < 1.5
        assert rise["random"] > 100 * rise["obd"]
