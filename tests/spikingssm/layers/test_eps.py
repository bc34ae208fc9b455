"""A published loss that is a sum over T steps, trained as a mean with eps / T: the very same updates of Adam."""

import pytest
import torch

from spikingssm.models import RSNN
from spikingssm.tasks import EveryStepClassification
from spikingssm.training.module import SequenceModule


def test_a_mean_with_eps_over_t_is_a_sum_with_eps():
    steps, x, y = 64, torch.rand(8, 64, 3, dtype=torch.float64), torch.arange(8) % 4
    found = []
    for scale, eps in ((steps, 1e-8), (1, 1e-8 / steps), (1, 1e-8)):
        torch.manual_seed(0)
        model = RSNN(3, 4, 6).double()
        with torch.no_grad():
            model.layers[0].input.weight.mul_(1e-4)  # gradients as small as eps, as at the start of psMNIST
            model.readout.weight.mul_(1e-6)
        adam = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.0, eps=eps)
        for _ in range(2):
            adam.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x)[0].flatten(0, 1), y.repeat_interleave(steps))
            (scale * loss).backward()
            adam.step()
        found.append(torch.nn.utils.parameters_to_vector(model.parameters()).detach())
    assert (found[0] - found[1]).abs().max() < 1e-9
    assert (found[0] - found[2]).abs().max() > 1e-4


def test_the_module_hands_eps_on():
    module = SequenceModule(RSNN(3, 4, 6), EveryStepClassification(), classes=4, eps=3e-11)
    assert module.eps == 3e-11
    with pytest.raises(ValueError, match=r"eps must be > 0, got 0"):
        SequenceModule(RSNN(3, 4, 6), EveryStepClassification(), classes=4, eps=0)
