from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from tunables import noise, pair, refusal

from tersor.tune.batches import Batch
from tersor.tune.objective import Objective, divergence, outputs_of

X = noise(6, 12)


def net(seed: int) -> nn.Sequential:
    layers = nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 5))
    for i, p in enumerate(layers.parameters()):
        p.data = noise(*p.shape, seed=10 * seed + i)
    return layers


class Shaped(nn.Module):
    """Gives its input, times a parameter: outputs of any shape."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def loss(objective: Objective, x: torch.Tensor, labels: Any = None) -> torch.Tensor:
    return objective(Shaped(1.0), Shaped(1.7), Batch((x,), {}, labels))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
@pytest.mark.parametrize(
    ("shape", "dim"),
    [((6, 5), 1), ((2, 7, 5), 2), ((2, 5, 3, 4), 1), ((2, 5, 2, 3, 2), 1)],
    ids=["[B, V]", "[B, T, V]", "[B, C, H, W]", "[B, C, D, H, W]"],
)
def test_divergence_is_that_of_torch_times_the_squared_temperature(
    shape: tuple[int, ...], dim: int, temperature: float
) -> None:
    x = 3 * noise(*shape)
    rows = x.movedim(dim, -1).reshape(-1, 5)
    expected = F.kl_div(
        F.log_softmax(rows / temperature, -1), F.softmax(1.7 * rows / temperature, -1), reduction="batchmean"
    )
    found = loss(Objective(temperature), x)
    assert found.shape == () and float(expected) > 0.01
    torch.testing.assert_close(found, temperature**2 * expected)


def test_the_direction_matters_and_equal_outputs_cost_nothing() -> None:
    a, b = noise(4, 5), 3 * noise(4, 5, seed=1)
    assert divergence(a, b, 1.0, -1) != pytest.approx(float(divergence(b, a, 1.0, -1)))
    assert float(divergence(a, a + 7, 3.0, -1)) == pytest.approx(0, abs=1e-6)  # softmax sees differences only


def test_gradients_keep_their_size_as_the_temperature_rises() -> None:
    sizes = []
    for temperature in (1.0, 1e3):
        student = noise(4, 5).requires_grad_()
        divergence(student, student.detach() + 0.1 * noise(4, 5, seed=1), temperature, -1).backward()
        assert student.grad is not None
        sizes.append(float(student.grad.norm()))
    assert 0.3 < sizes[1] / sizes[0] < 3


def test_classes_that_are_ruled_out_count_nothing() -> None:
    student, teacher = noise(4, 6).requires_grad_(), noise(4, 6, seed=1)
    mask = torch.tensor([0, 0, 0, 0, 0, -math.inf])
    found = divergence(student + mask, teacher + mask, 2.0, -1)
    torch.testing.assert_close(found, divergence(student[:, :5], teacher[:, :5], 2.0, -1))
    found.backward()
    assert student.grad is not None and student.grad.isfinite().all()


def test_the_dimension_of_classes_may_be_said() -> None:
    x = noise(2, 5, 7)
    torch.testing.assert_close(loss(Objective(dim=1), x), loss(Objective(), x.transpose(1, 2).contiguous()))
    assert float(loss(Objective(dim=1), x)) != pytest.approx(float(loss(Objective(), x)))


@pytest.mark.parametrize(
    ("shape", "dim", "labels"),
    [((6, 5), None, (6,)), ((2, 7, 5), None, (2, 7)), ((2, 5, 3, 4), None, (2, 3, 4)), ((2, 5, 7), 1, (2, 7))],
)
def test_labels_take_their_share(shape: tuple[int, ...], dim: int | None, labels: tuple[int, ...]) -> None:
    x, y = noise(*shape), torch.randint(0, 5, labels, generator=torch.Generator().manual_seed(0))
    axis = (1 if len(shape) > 3 else -1) if dim is None else dim
    rows = x.movedim(axis, -1).reshape(-1, 5)
    right = F.cross_entropy(rows, y.reshape(-1))
    alone = loss(Objective(label_weight=1.0, dim=dim), x, y)
    torch.testing.assert_close(alone, right)
    mixed = loss(Objective(label_weight=0.3, dim=dim), x, y)
    torch.testing.assert_close(mixed, 0.7 * loss(Objective(dim=dim), x) + 0.3 * right)


def test_labels_alone_need_no_teacher() -> None:
    batch = Batch((X,), {}, torch.tensor([0, 1, 2, 3, 4, 0]))
    student = net(1)
    torch.testing.assert_close(
        Objective(label_weight=1.0)(student, None, batch), F.cross_entropy(student(X), batch.labels)
    )


def test_features_are_matched_in_units_of_the_originals_energy() -> None:
    student, teacher = net(1), net(2)
    plain = Objective()(student, teacher, Batch((X,), {}))
    found = Objective(features=("0", "1"), feature_weight=0.5)(student, teacher, Batch((X,), {}))
    expected = plain
    for cut in (1, 2):
        mine, theirs = student[:cut](X), teacher[:cut](X)
        expected = expected + 0.5 * (mine - theirs).square().mean() / theirs.square().mean()
    torch.testing.assert_close(found, expected)
    found.backward()
    gradient = student[0].weight.grad
    assert gradient is not None and gradient.abs().max() > 0
    assert teacher[0].weight.grad is None
    for network in (student, teacher):
        assert not any(module._forward_hooks for module in network.modules())


def test_features_are_found_under_the_users_names() -> None:
    tunable, model, _ = pair()
    with outputs_of(tunable, ["0", "2"]) as mine, outputs_of(model, ["0", "2"]) as theirs:
        tunable(X)
        model(X)
    assert list(mine) == list(theirs) == ["0", "2"]
    found = Objective(features=("network.0",))(Wrapped(model), Wrapped(model), Batch((X,), {}))
    assert float(found) == pytest.approx(0, abs=1e-6)


class Wrapped(nn.Module):
    """With a submodule that has the name of a tunable network's own."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.network(x)
        return out


def test_a_loss_of_ones_own_takes_the_place_of_both() -> None:
    batch, seen = Batch((X,), {}, labels="mine"), []

    def own(output: torch.Tensor, target: torch.Tensor, given: Batch) -> torch.Tensor:
        seen.append(given)
        return (output - target).square().sum()

    student, teacher = net(1), net(2)
    found = Objective(loss=own)(student, teacher, batch)
    torch.testing.assert_close(found, (student(X) - teacher(X)).square().sum())
    assert seen == [batch] and teacher(X).requires_grad is not False
    assert Objective(loss=lambda output, target, _: output.sum() if target is None else output)(net(1), None, batch)


def test_the_teacher_is_not_trained() -> None:
    teacher = net(2)
    Objective()(net(1), teacher, Batch((X,), {})).backward()
    assert all(p.grad is None for p in teacher.parameters())


def test_outputs_of_half_precision_are_compared_in_float32() -> None:
    student, teacher = net(1).bfloat16(), net(2).bfloat16()
    assert Objective()(student, teacher, Batch((X.bfloat16(),), {})).dtype == torch.float32


class Tuple(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.LSTM(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.inner(x)[0]
        return out


@pytest.mark.parametrize(
    ("objective", "student", "teacher", "words"),
    [
        (Objective(), net(1), None, "label_weight=1"),
        (Objective(label_weight=0.5), net(1), net(2), "labelled=True"),
        (Objective(), net(1), nn.Linear(12, 4), "[6, 5] and [6, 4]"),
        (Objective(features=("9",)), net(1), net(2), "no submodule '9'"),
        (Objective(label_weight=1.0, features=("0",)), net(1), None, "with a teacher's"),
        (Objective(features=("inner",)), Tuple(), Tuple(), "'inner' is a tuple"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    objective: Objective, student: nn.Module, teacher: nn.Module | None, words: str
) -> None:
    labels = torch.zeros(6, dtype=torch.long) if objective.label_weight == 1 else None
    assert words in refusal(lambda: objective(student, teacher, Batch((X,), {}, labels)))
    assert not any(module._forward_hooks for module in student.modules())
