"""Small networks and measures that the tests of several rooms share."""

from __future__ import annotations

from collections.abc import Mapping

import torch

State = dict[str, torch.Tensor]


def network(seed: int = 0, width: int = 16) -> State:
    """A small conv net's state dict: kernels, a matrix, vectors, a counter, a mask; values like trained ones."""
    g = torch.Generator().manual_seed(seed)

    def laplacian(*shape: int) -> torch.Tensor:
        scale = torch.rand(shape[0], *[1] * (len(shape) - 1), generator=g) + 0.2
        uniform = torch.rand(shape, generator=g) - 0.5
        return -0.05 * scale * uniform.sign() * torch.log1p(-2 * uniform.abs() + 1e-6)

    return {
        "conv.weight": laplacian(width, width, 3, 3),
        "point.weight": laplacian(2 * width, width, 1, 1),
        "norm.weight": torch.rand(width, generator=g),
        "norm.num_batches_tracked": torch.tensor(17),
        "fc.weight": laplacian(width, 4 * width),
        "fc.bias": laplacian(width),
        "mask": torch.rand(width, generator=g) > 0.5,
    }


def nbytes(state: Mapping[str, torch.Tensor]) -> int:
    """Bytes of all tensors; tied ones once."""
    distinct = {(t.data_ptr(), t.shape) if t.numel() else (name, t.shape): t for name, t in state.items()}
    return sum(t.numel() * t.element_size() for t in distinct.values())


def raw(tensor: torch.Tensor) -> bytes:
    """The bytes of the elements in row-major order: equal exactly when the values are, NaN included."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def assert_same(state: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Names in order, shapes, types and every bit of every value are the same."""
    assert list(state) == list(expected)
    for name, want in expected.items():
        assert (state[name].shape, state[name].dtype) == (want.shape, want.dtype), name
        assert raw(state[name]) == raw(want), name


def error_of(state: Mapping[str, torch.Tensor], original: Mapping[str, torch.Tensor], *names: str) -> float:
    """Squared error of some tensors (of all floats, if none are named)."""
    chosen = names or [name for name, t in original.items() if t.is_floating_point()]
    return sum(float((state[n].double() - original[n].double()).square().sum()) for n in chosen)
