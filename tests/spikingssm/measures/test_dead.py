"""`spikingssm.dead_neurons`: which neurons never fire and which always do, in networks of every kind."""

import pytest
import torch
from torch import nn

import sdn
import spikingssm
from spikingssm import RSNN, SpikingSSM, dead_neurons, spikes_of

CURRENTS = torch.tensor([-1.0, 0.0, 5.0, 5.0, 0.6, -2.0])
"""Of six neurons LIF(0.9): three never fire, two always do, and one sometimes does."""


def biased(wrap=sdn.Sequential, **more):
    """A map that gives each neuron a constant current, whatever it reads, and a second layer that gets all of it."""
    torch.manual_seed(0)
    first, second = nn.Linear(2, 6), nn.Linear(6, 3)
    with torch.no_grad():
        first.weight.zero_()
        first.bias.copy_(CURRENTS)
        second.weight.fill_(0.1)
        second.bias.zero_()
    return wrap(first, sdn.Neuron(sdn.LIF(0.9), 6, **more), second, sdn.Neuron(sdn.LIF(0.5), 3, **more))


@pytest.mark.parametrize("wrap", [sdn.Sequential, nn.Sequential], ids=["sdn", "torch"])
def test_it_names_the_neurons_of_every_layer(wrap):
    net = biased(wrap, return_state=wrap is sdn.Sequential)
    found = dead_neurons(net, torch.randn(3, 20, 2))
    assert list(found) == ["1", "3"]
    assert found["1"].silent.tolist() == [0, 1, 5]
    assert found["1"].loud.tolist() == [2, 3]
    assert (found["1"].silent_share, found["1"].loud_share) == (1 / 2, 1 / 3)
    assert found["1"].rates[4] == pytest.approx(0.5)
    assert found["3"].silent_share == 1
    assert net.training


def test_it_is_a_table_when_it_is_printed():
    found = dead_neurons(biased(), torch.randn(3, 20, 2))
    head, first, second = str(found).splitlines()
    assert head.split("  ")[0] == "layer"
    assert first.split() == ["1", "6", "3", "(", "50.00%)", "2", "(", "33.33%)", "0.4167"]
    assert second.split()[:4] == ["3", "3", "3", "(100.00%)"]
    assert found.rates == {"1": pytest.approx(5 / 12), "3": 0.0}


def test_modules_that_were_frozen_stay_so():
    net = biased().train()
    net[0].eval()
    dead_neurons(net, torch.randn(2, 20, net[0].in_features))
    assert [part.training for part in net] == [False, *[True] * (len(net) - 1)]
    assert net.training


def test_limits_move_the_line():
    found = dead_neurons(biased(), torch.randn(3, 20, 2), silent=0.5, loud=0.9)
    assert found["1"].silent.tolist() == [0, 1, 4, 5]
    found = dead_neurons(biased(), torch.randn(3, 20, 2), loud=0.5)
    assert found["1"].loud.tolist() == [2, 3, 4]


def test_padding_does_not_count_whoever_is_told_of_it():
    """A neuron that fires in the padding only is silent."""
    net = nn.Sequential(nn.Linear(1, 2, bias=False), sdn.Neuron(sdn.LIF(), 2, return_state=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
    x = torch.full((2, 10, 1), -2.0)
    x[:, 6:] = 2.0
    lengths = torch.tensor([6, 5])
    assert dead_neurons(net, x)["1"].silent.tolist() == []
    assert dead_neurons(net, x, lengths)["1"].silent.tolist() == [
        0,
    ]
    assert dead_neurons(net, x, lengths)["1"].loud.tolist() == [
        1,
    ]
    model = SpikingSSM(3, 4, 16, 1, solver="fused").eval()
    x, lengths = 3 * torch.randn(2, 30, 3), torch.tensor([30, 11])
    (name, found), *_ = dead_neurons(model, x, lengths).items()
    spikes = spikes_of(model, x)[name]  # what comes behind cannot change what was
    wanted = (spikes[0].sum(0) + spikes[1, :11].sum(0)) / 41
    assert 0.02 < wanted.mean() < 0.8
    torch.testing.assert_close(found.rates, wanted.double())


def test_networks_of_this_project():
    torch.manual_seed(1)
    quiet = dead_neurons(RSNN(3, 4, 12, start="published"), torch.randn(2, 40, 3))
    assert quiet["layers.0"].silent_share == 1
    assert spikingssm.dead_neurons is dead_neurons


REFUSED = [
    (lambda: dead_neurons(nn.Linear(2, 2), torch.ones(1, 2)), r"Linear holds no sdn\.SpikingLayer"),
    (lambda: dead_neurons(biased(), torch.ones(1, 3, 2), silent=0.5, loud=0.5), "0 <= silent < loud <= 1.*0.5 and 0.5"),
    (lambda: dead_neurons(biased(), [1.0]), "x must be a tensor, got list"),
    (lambda: dead_neurons(biased(), torch.ones(2, 3, 2), torch.ones(3)), r"lengths must be \(2,\) for x \(2, 3, 2\)"),
    (lambda: dead_neurons(Idle(), torch.ones(1, 3, 2)), r"Idle has run none of its neurons on x \(1, 3, 2\)"),
    (lambda: dead_neurons(Half(), torch.ones(1, 4, 2), torch.tensor([3])), r"\(1, 2\) rows and steps.*of \(1, 4\)"),
]  # fmt: skip


class Idle(nn.Module):
    def __init__(self):
        super().__init__()
        self.neuron = sdn.Neuron(sdn.LIF(), 2)

    def forward(self, x):
        return x


class Half(Idle):
    def forward(self, x):
        return self.neuron(x[:, ::2])[0]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_refusals(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
