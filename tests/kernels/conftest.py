from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def threads_restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
