"""The leaky readout at the ends of its range."""

import pytest
import torch

from spikingssm.layers import LeakyReadout


def test_a_readout_that_hardly_leaks_is_finite_and_one_of_another_state_is_refused() -> None:
    readout = LeakyReadout(4, 2)
    with torch.no_grad():
        readout.tau.fill_(90.0)
    x = torch.rand(3, 7, 4)
    logits, state = readout(x)
    traces = (x @ readout.weight.T).cumsum(1).mean(1)  # alpha = 1
    torch.testing.assert_close(logits, traces)
    logits.sum().backward()
    assert torch.isfinite(readout.tau.grad).all()
    with pytest.raises(ValueError, match=r"\(3, 2\).*needs \(2, 2\)"):
        readout(x[:2], state)
