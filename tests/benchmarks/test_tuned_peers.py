"""The tuned baselines: what they write is what they compute with, and no longer than allowed."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from benchmarks.peers import integer, nncodec, nncodec_tuned, pruning, uniform_tuned
from torch import nn

from tersor.tune.distill import distill

STEPS = 60


class Net(nn.Module):
    """Weights used by function, and tied; kept tensors of several types."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 24, 3, padding=1)
        self.norm = nn.BatchNorm2d(24)
        self.second = nn.Conv2d(24, 24, 3, padding=1, bias=False)
        self.tied = nn.Linear(24, 24)
        self.again = nn.Linear(24, 24)
        self.again.weight = self.tied.weight
        self.head = nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm(self.conv(x)))
        y = F.relu(F.conv2d(y, self.second.weight, padding=1)).mean((2, 3))
        return self.head(self.again(F.relu(self.tied(y))))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return Net()


@pytest.fixture(scope="module")
def data() -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return [torch.randn(8, 3, 6, 6, generator=g) for _ in range(6)]


MAKERS = {
    "pruning": lambda net: pruning.Student(net, 2600, STEPS),
    "pruning-lamp": lambda net: pruning.Student(net, 2600, STEPS, score="lamp"),
    "pruning-16": lambda net: pruning.Student(net, 3200, STEPS, survivor_bits=16),
    "uniform": lambda net: uniform_tuned.Student(net, 2600, STEPS),
    "uniform-per-tensor": lambda net: uniform_tuned.Student(net, 2600, STEPS, per_tensor=True),
    "integer": lambda net: integer.Student(net, 0, STEPS, bits=3),
    "integer-edges": lambda net: integer.Student(net, 0, STEPS, bits=2, edge_bits=8),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_trained_student_is_its_file(name, net, data):
    before = copy.deepcopy(net.state_dict())
    student = MAKERS[name](net)
    distill(student, net, data, steps=STEPS, after_step=student.after_step, norm_batches=3)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    blob = student.file()
    if student.budget:
        assert 0.98 * student.budget <= len(blob) <= student.budget
    student.load(blob)
    shown, out = [w.detach() for w in student.weights()], student(data[0])
    assert student.file() == blob
    fresh = MAKERS[name](net).eval()
    fresh.load(blob)
    assert all(torch.equal(a, b) for a, b in zip(shown, fresh.weights(), strict=True))
    assert torch.equal(fresh(data[0]), out)
    assert fresh.file() == blob
    assert fresh.network.tied.weight is fresh.network.again.weight
    assert torch.equal(fresh.network.norm.running_mean, fresh.network.norm.running_mean.bfloat16().float())
    assert int(fresh.network.norm.num_batches_tracked) == int(student.network.norm.num_batches_tracked)


@pytest.mark.parametrize("name", ["pruning", "uniform", "integer"])
def test_loading_does_not_change_coded_weights(name, net, data):
    student = MAKERS[name](net)
    distill(student, net, data, steps=STEPS, after_step=student.after_step, norm_batches=3)
    blob = student.file()
    before = [w.detach().clone() for w in student.weights()]
    student.load(blob)
    assert all(torch.equal(a, b) for a, b in zip(before, student.weights(), strict=True))


def test_pruning_rises_and_then_the_mask_stays(net, data):
    student = pruning.Student(net, 2600, STEPS)
    alive, masks = [], []

    def after(step: int) -> None:
        student.after_step(step)
        alive.append(sum(int(m.sum()) for m in student.masks))
        masks.append(torch.cat([m.flatten().clone() for m in student.masks]))

    distill(student, net, data, steps=STEPS, after_step=after, norm_batches=0)
    end = round(pruning.PRUNING * STEPS)
    assert alive[0] > 2 * alive[end - 1]
    assert all(a >= b for a, b in pairwise(alive[: end * 3 // 4]))
    changed = int((masks[end - 1] ^ masks[-1]).sum())
    assert changed <= 0.1 * alive[-1]
    student(data[0]).sum().backward()
    for latent, mask in zip(student.latents, student.masks, strict=True):
        assert torch.all(latent.grad[~mask] == 0)
        assert torch.any(latent.grad[mask] != 0)
    for weight, mask in zip(student.weights(), student.masks, strict=True):
        assert torch.all(weight[~mask] == 0)


def test_pruning_at_one_size_prunes_the_smallest(net):
    student = pruning.Student(net, 2600, STEPS)
    student._mask(500)
    values = torch.cat([v.abs().flatten() for v in student.dense()])
    alive = torch.cat([m.flatten() for m in student.masks])
    assert int(alive.sum()) == 500
    assert values[alive].sort().values[len(student.masks) :].min() >= values[~alive].max()


def test_uniform_keeps_its_size_while_it_trains(net, data):
    student = uniform_tuned.Student(net, 2600, STEPS)
    sizes = []

    def after(step: int) -> None:
        student.after_step(step)
        sizes.append(len(student.written()))

    distill(student, net, data, steps=STEPS, after_step=after, norm_batches=0)
    assert max(sizes) < 1.1 * 2600 and min(sizes) > 0.9 * 2600


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_integers_are_in_range_and_come_back(bits, net, data):
    student = integer.Student(net, 0, STEPS, bits=bits, entropy=False)
    distill(student, net, data, steps=20, after_step=student.after_step, norm_batches=0)
    assert all(p.grad is not None and torch.any(p.grad != 0) for p in student.logs)
    for (scaled, step), weight in zip(student._scaled(), student.weights(), strict=True):
        assert len(torch.unique(weight[0] / step[0])) <= 2**bits
        assert torch.equal(step, step.half().float())
        assert scaled.shape == weight.shape
    levels = np.random.default_rng(0).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), 301)
    assert np.array_equal(integer.unpack(integer.pack(levels, bits), bits, 301), levels)
    assert len(integer.pack(levels, bits)) == -(-301 * bits // 8)


def test_a_file_of_another_method_is_refused(net):
    with pytest.raises(ValueError, match="is no file of"):
        pruning.Student(net, 2600, STEPS).load(integer.Student(net, 0, STEPS, bits=8).file())


@pytest.mark.skipif(not (nncodec.VENV / ".ready").exists(), reason="NNCodec's environment is not there")
def test_nncodec_keeps_its_weights_and_trains_the_rest(net, data):
    student = nncodec_tuned.Student(net, 2600, 10)
    bias = student.network.head.bias.detach().clone()
    distill(student, net, data, steps=10, after_step=student.after_step, norm_batches=3)
    blob = student.file()
    assert 0.96 * 2600 <= len(blob) <= 2600
    weights = [w.clone() for w in student.weights()]
    student.stream = b""
    student.load(blob)
    assert student.file() == blob
    assert all(torch.equal(a, b) for a, b in zip(weights, student.weights(), strict=True))
    assert not torch.equal(bias, student.network.head.bias)
