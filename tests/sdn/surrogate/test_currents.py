"""The families of currents are what they say, and the same seed gives the same ones."""

import pytest
import torch

import sdn
from sdn.surrogate.currents import FAMILIES, MIXTURE, currents, rheobase

NEURON = sdn.RF()
STD = NEURON.default_std
SHARES = {"normal": (0, 1), "driven": (0.5, 1), "wide": (0, 2), "correlated": (0, 1), "sparse": (0, 0.9**0.5),
          "sinusoid": (0, 1.09**0.5)}  # fmt: skip
"""Mean and standard deviation in units of the neuron's usual current."""


@pytest.mark.parametrize("family", SHARES)
def test_mean_and_spread(family):
    x = currents(NEURON, family, 400, 1000, seed=1) / STD
    mean, std = SHARES[family]
    assert x.mean() == pytest.approx(mean, abs=0.02)
    assert x.std() == pytest.approx(std, rel=0.02)


@pytest.mark.parametrize(("family", "kept"), [("normal", 0.0), ("wide", 0.0), ("sparse", 0.0), ("correlated", 0.9)])
def test_what_is_kept_from_step_to_step(family, kept):
    x = currents(NEURON, family, 200, 2000, seed=2)
    assert (x[:, 1:] * x[:, :-1]).mean() / x.var() == pytest.approx(kept, abs=0.02)


def test_sparse_currents_come_at_one_step_of_ten():
    assert (currents(NEURON, "sparse", 200, 1000) != 0).float().mean() == pytest.approx(0.1, abs=0.005)


def test_a_sinusoid_has_one_frequency_in_its_range():
    x = currents(NEURON, "sinusoid", 100, 4096, seed=3)
    power = torch.fft.rfft(x).abs().square()
    period = 4096 / power.argmax(1)
    assert period.min() > 7.5
    assert period.max() < 300
    assert period.max() / period.min() > 10
    near = power.unfold(1, 5, 1).sum(2).amax(1) / power.sum(1)
    assert near.median() > 0.8


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.95])
def test_the_rheobase_of_a_lif_is_what_its_leak_takes_away(decay):
    """Closed form: a constant current I leads to I / (1 - decay). The levels that are tried are 9 % apart."""
    found = rheobase(sdn.LIF(decay), 1.0)
    assert 1 - decay <= found < 1.1 * (1 - decay)
    x = currents(sdn.LIF(decay), "near-threshold", 400, 500, seed=4)
    assert x.mean() == pytest.approx(found, rel=0.05)
    assert x.mean(1).min() == pytest.approx(0.8 * found, abs=0.05)
    assert x.mean(1).max() == pytest.approx(1.2 * found, abs=0.05)


def test_a_mixture_has_each_family_in_any_sixteen_rows():
    assert sum(MIXTURE.values()) == 16
    assert set(MIXTURE) == set(FAMILIES)
    x = currents(NEURON, "mixture", 32, 2000, seed=5) / STD
    for some in (x[:16], x[7:23], x[16:]):
        assert ((some == 0).float().mean(1) > 0.8).sum() == MIXTURE["sparse"]
        assert ((some.std(1) - 2).abs() < 0.15).sum() == MIXTURE["wide"]
        assert ((some.mean(1) - 0.5).abs() < 0.1).sum() >= MIXTURE["driven"]


@pytest.mark.parametrize("family", [*FAMILIES, "mixture"])
def test_the_same_seed_gives_the_same_currents(family):
    one, two, other = (currents(NEURON, family, 20, 50, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(currents(NEURON, family, 20, 50, std=STD, seed=1), one)
