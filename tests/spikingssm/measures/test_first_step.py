"""The training step of each model that `sdn doctor --gpu` compares."""

import torch

from spikingssm.measures.first_step import steps


def test_a_step_is_the_same_each_time_and_reaches_every_layer():
    for name, step in steps().items():
        loss, grads = step("cpu")
        again, same = step("cpu")
        assert loss == again
        assert 0.3 < loss < 3
        assert len(grads) >= 4, name
        assert all(torch.equal(grads[n], same[n]) and grads[n].abs().sum() > 0 for n in grads), name


def test_the_random_numbers_of_the_caller_stay_as_they_are():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    steps()["RSNN"]("cpu")
    assert torch.equal(torch.rand(1), expected)
