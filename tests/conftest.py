"""One thread (the machines are shared) and one seed before every test."""

import pytest
import torch

pytest.register_assert_rewrite("helpers")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(20240828)
