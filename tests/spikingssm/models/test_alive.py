"""Networks fire from the start where the input is of unit amplitude; published starts are the published weights."""

import math

import pytest
import torch

import sdn
from spikingssm import RSNN, S5RF, record_spikes
from spikingssm.models.alive import driven


def sines(channels, length, rows=24):
    """Sines of a few periods and some noise, of unit amplitude."""
    phase, pace = torch.rand(rows, 1, channels), 1 + 10 * torch.rand(rows, 1, channels)
    t = torch.arange(length)[None, :, None] / length
    return torch.sin(2 * math.pi * (pace * t + phase)) + 0.3 * torch.randn(rows, length, channels)


BRF = {"learn": {"omega": sdn.uniform(15, 50), "b_offset": sdn.uniform(0.1, 1.0)}}
ALIF = {"dynamics": sdn.ALIF(threshold=0.01), "learn": {"tau_m": sdn.normal(20, 5)}}
NETWORKS = {
    "s5rf": lambda c, **more: S5RF(c, 3, 64, 2, num_blocks=4, **more),
    "brf": lambda c, **more: RSNN(c, 3, 64, n_layers=2, **BRF, **more),
    "alif": lambda c, **more: RSNN(c, 3, 64, n_layers=2, **ALIF, **more),
    "hrf": lambda c, **more: RSNN(c, 3, 64, n_layers=2, dynamics=sdn.HRF(), **more),
}


@pytest.mark.parametrize("data", [(1, 200), (6, 200), (40, 200), (6, 500)])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_layer_fires_in_one_to_twenty_percent_of_the_steps(name, data):
    x = sines(*data)
    model = NETWORKS[name](data[0])
    with record_spikes(model) as record, torch.no_grad():
        model(x)
    least = 0.005 if name != "hrf" or data[1] == 200 else 0.0005  # its band is narrow: slow sines move it less
    assert all(least < rate < 0.2 for rate in record.rates().values()), record.rates()


@pytest.mark.parametrize("name", ["s5rf", "brf"])
def test_published_weights_are_silent_there_and_differ_by_a_factor_alone(name):
    torch.manual_seed(3)
    alive = NETWORKS[name](6)
    torch.manual_seed(3)
    published = NETWORKS[name](6, start="published")
    x = sines(6, 200)
    with record_spikes(published) as record, torch.no_grad():
        published(x)
    assert min(record.rates().values()) < 1e-3
    changed = 0
    for (key, one), other in zip(alive.named_parameters(), published.parameters(), strict=True):
        if not torch.equal(one, other):
            ratio = (one / other).detach()
            assert float(ratio.max() - ratio.min()) < 1e-3 * float(ratio.max()), key
            assert float(ratio.mean()) > 1.5
            changed += 1
    assert changed == 2  # the map into each of the two layers


def test_neurons_that_no_spike_moves_are_left_alone_and_weights_never_shrink():
    weight = torch.rand(5, 3)
    kept = weight.clone()
    driven(weight, sdn.RF())
    assert torch.equal(weight, kept)
    weight = 1e4 * torch.rand(5, 3)
    kept = weight.clone()
    driven(weight, sdn.BRF())
    assert torch.equal(weight, kept)
    small = torch.full((4, 9), 0.5)
    driven(small, sdn.LIF(0.5))  # currents of standard deviation 0.6 of 1
    assert torch.equal(small, torch.full((4, 9), 0.5))
    driven(small.mul_(1e-3), sdn.LIF(0.5))
    torch.testing.assert_close(small, torch.full((4, 9), 0.2))
    with pytest.raises(ValueError, match="start must be one of alive, published, got 'loud'"):
        RSNN(2, 3, 8, start="loud")
    with pytest.raises(ValueError, match="start must be one of alive, published, got 'loud'"):
        S5RF(2, 3, 8, 1, num_blocks=1, start="loud")
