from __future__ import annotations

import torch

from tersor.checkpoint import count_zeros, open_checkpoint


def test_zeros_of_either_sign_and_any_type_are_counted() -> None:
    values = torch.tensor([[0.0, -0.0, 1.0], [float("nan"), 2.0, 0.0]])
    state = {
        "plain": values, "half": values.half(), "turned": values.t(),
        "double": torch.full((3,), 5e-324, dtype=torch.float64),
        "none": torch.zeros(0, 3), "number": torch.tensor(0.0), "whole": torch.arange(4),
    }  # fmt: skip
    found = count_zeros(open_checkpoint(state), list(state))
    assert found == {"plain": 3, "half": 3, "turned": 3, "double": 0, "none": 0, "number": 1, "whole": 1}
    assert count_zeros(open_checkpoint(state), ["half"]) == {"half": 3}
    tied = open_checkpoint({"a": values, "b": values})
    assert count_zeros(tied, ["b"]) == {"b": 3}
