"""Calling the command line, and a module of a user's own."""

from __future__ import annotations

from tersor.cli import main

NETS = '''
import torch
from torch import nn
from networks import network

class Net(nn.Sequential):
    """Conv and linear; with weights like trained ones."""
    def logits_of(self, x):
        return self(x)

def small():
    state = network(width=16)
    model = Net(nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 16))
    model[0].weight.data.copy_(state["conv.weight"])
    model[0].bias.data.copy_(state["norm.weight"])
    model[3].weight.data.copy_(state["fc.weight"])
    model[3].bias.data.copy_(state["fc.bias"])
    return model.eval()

def state():
    return small().state_dict()

def wide():
    return nn.Sequential(nn.Linear(64, 64))

def images(count=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(8, 16, 4, 4, generator=g) for _ in range(count)]

def batches():
    yield from images()

def more():
    yield from images(2, seed=1)

def labelled():
    return [(x, torch.zeros(8, dtype=torch.long)) for x in images()]

def nothing():
    return []

def misshapen():
    return [torch.randn(8, 3)]

def broken(*_):
    raise ValueError("no images\\nhere")

def not_a_number():
    yield images()[0]
    while True:
        yield torch.full((8, 16, 4, 4), float("nan"))

def interrupted():
    yield images()[0]
    raise KeyboardInterrupt

def closeness(model):
    """100 minus the percentage of the outputs' energy that is lost."""
    assert isinstance(model, Net), type(model)
    truth = small()
    with torch.no_grad():
        pairs = [(truth(x), model.logits_of(x)) for x in images(1, seed=2)]
    lost = sum(float((a - b).square().sum()) for a, b in pairs)
    return 100 - 100 * lost / sum(float(a.square().sum()) for a, _ in pairs)

def nan(model):
    return float("nan")
'''


def run(*arguments: object) -> int:
    """Exit code of a call."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0
