"""Spike gradients of other libraries, what is learned there, and numbers of every kind."""

import math
import pickle

import pytest
import torch
from peer_neurons import SingleSpike, closure, stand_in
from torch import nn

import sdn
from sdn.migration.gradients import FastSigmoid

B, L, H = 3, 120, 6


def currents(seed, mean, std):
    generator = torch.Generator().manual_seed(seed)
    return mean + std * torch.randn(B, L, H, generator=generator, dtype=torch.float64)


# ---- spike gradients: the slopes of the peers, written out
V = torch.linspace(-3, 3, 301, dtype=torch.float64)


GRADIENTS = [
    (lambda: sdn.from_snntorch("Leaky", beta=0.9), lambda v: 1 / (1 + (math.pi * v) ** 2)),
    (lambda: _snn("atan", alpha=3.0), lambda v: 1.5 / (1 + (math.pi / 2 * 3 * v) ** 2)),
    (lambda: _snn("fast_sigmoid", slope=25), lambda v: 1 / (25 * v.abs() + 1) ** 2),
    (lambda: _snn("sigmoid", slope=5), lambda v: 5 * torch.exp(-5 * v) / (torch.exp(-5 * v) + 1) ** 2),
    (lambda: _snn("straight_through_estimator"), lambda v: torch.ones_like(v)),
    (sdn.from_spikingjelly, lambda v: 4 * torch.sigmoid(4 * v) * (1 - torch.sigmoid(4 * v))),
    (lambda: _jelly("ATan", 1.7), lambda v: 0.85 / (1 + (math.pi / 2 * 1.7 * v) ** 2)),
    (lambda: _jelly("PiecewiseQuadratic", 1.7), lambda v: (1.7 - 1.7**2 * v.abs()).clamp(min=0)),
    (lambda: _jelly("PiecewiseExp", 1.7), lambda v: 0.85 * torch.exp(-1.7 * v.abs())),
    (lambda: _jelly("SoftSign", 1.7), lambda v: 1 / (2 * 1.7 * (1 / 1.7 + v.abs()) ** 2)),
    (lambda: _jelly("SuperSpike", 1.7), lambda v: 1.7 / (v.abs() + 1) ** 2),
    (lambda: _jelly("Erf", 1.7), lambda v: 1.7 / math.sqrt(math.pi) * torch.exp(-((1.7 * v) ** 2))),
    (lambda: _jelly("Rect", 1.7), lambda v: 1.7 * (v.abs() < 0.5 / 1.7).double()),
    (sdn.from_norse, lambda v: 1 / (v.abs() + 1) ** 2),
    (lambda: sdn.from_norse(method="triangle", alpha=0.3), lambda v: 0.3 * torch.relu(1 - v.abs())),
    (lambda: sdn.from_norse(method="tanh", alpha=1.5), lambda v: 1 - (1.5 * v).tanh() ** 2),
    (
        lambda: sdn.from_norse(method="heavi_erfc", alpha=1.5),
        lambda v: 2 * torch.exp(-((1.5 * v) ** 2)) / math.sqrt(math.pi),
    ),
    (lambda: _sin(None, threshold=0.7), lambda v: 1 / 0.35 * torch.exp(-v.abs() / 0.35)),
    (
        lambda: _sin("Gaussian", sigma=0.4, grad_scale=1.3),
        lambda v: 1.3 * torch.exp(-(v**2) / (2 * 0.4**2)) / (0.4 * math.sqrt(2 * math.pi)),
    ),
]


def _snn(name, **kept):
    return sdn.from_snntorch("Leaky", beta=0.9, spike_grad=closure(name, **kept))


def _jelly(name, alpha):
    return sdn.from_spikingjelly(surrogate_function=stand_in(name, alpha=alpha, spiking=True))


def _sin(name, threshold=1.0, **values):
    function = name and type(name, (), values)()
    return sdn.from_sinabs(
        "LIF", tau_mem=9.0, spike_fn="SingleSpike", surrogate_grad_fn=function, spike_threshold=threshold
    )


@pytest.mark.parametrize(("make", "slope"), GRADIENTS)
def test_spike_gradients(make, slope):
    found = make()
    assert "the same function" in found.notes["gradient"]
    assert torch.allclose(found.spike.slope(V), slope(V), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    "make",
    [
        lambda: _snn("triangular", threshold=1),
        lambda: _jelly("LeakyKReLU", 1.0),
        lambda: sdn.from_norse(method="circ"),
        lambda: _sin("PeriodicExponential"),
    ],
)
def test_a_spike_gradient_without_a_counterpart_is_named(make):
    assert "has no counterpart" in make().notes["gradient"]


# ---- learned values, and numbers of every kind
@pytest.mark.parametrize(
    ("word", "gradient"),
    [("atan", sdn.ArcTan(2.0)), ("sigmoid", sdn.Sigmoid(25.0)), ("fast_sigmoid", FastSigmoid(25.0))],
)
def test_a_word_is_the_spike_gradient_of_that_name(word, gradient):
    found = sdn.from_snntorch("Leaky", beta=0.9, spike_grad=word)
    assert found.spike == gradient
    assert "no counterpart" not in found.notes["gradient"]


def test_what_is_learned_there_is_learned_here():
    neuron = stand_in("Leaky", beta=nn.Parameter(torch.tensor([0.5, 0.9])), threshold=nn.Parameter(torch.tensor(0.5)))
    found = sdn.from_snntorch(neuron)
    assert sorted(found.learn) == ["decay", "threshold"]
    layer = found.neuron(2)
    assert torch.allclose(layer.current_dynamics().decay, torch.tensor([0.5, 0.9]))
    assert not found.dynamics.decay.requires_grad
    assert not list(found.neuron(2, learn={}).parameters())
    layer.learned["decay"].data += 1.0
    assert torch.equal(found.dynamics.decay, torch.tensor([0.5, 0.9]))  # the peer's own values stay as they are
    assert torch.equal(neuron.beta, torch.tensor([0.5, 0.9]))
    with pytest.raises(ValueError, match=r"'decay' has shape \(2,\), the neuron has 3 channels"):
        found.neuron(3)
    for tau in (torch.tensor(9.0), torch.tensor([9.0, 12.0])):
        layer = stand_in("LIF", tau_mem=nn.Parameter(tau), spike_fn=SingleSpike)
        decay = sdn.from_sinabs(layer).neuron(2).current_dynamics().decay
        assert torch.allclose(decay, torch.exp(-1 / tau).expand(2))
        assert decay.requires_grad
    with pytest.raises(ValueError, match=r"has no synapse; write learn=\{'synapse': start\}"):
        sdn.from_sinabs(layer).neuron(2, learn={"synapse": None})
    tau = torch.tensor([2.0, 3.0], requires_grad=True)
    assert sdn.from_spikingjelly("LIFNode", tau=tau).neuron(2).learned.keys() == {"rate"}
    assert sdn.from_spikingjelly("LIFNode", tau=tau, decay_input=False).neuron(2).learned.keys() == {"decay"}
    found = sdn.from_snntorch("Leaky", beta=nn.Parameter(torch.tensor(1.0)))
    with pytest.raises(ValueError, match=r"learning 'decay' .* Write neuron\(2, learn=\{\}\) to learn nothing"):
        found.neuron(2)
    assert not list(found.neuron(2, learn={}).learned)


def test_it_is_a_value():
    found = sdn.from_snntorch("Leaky", beta=0.9)
    same_neuron = sdn.from_snntorch(stand_in("Leaky", beta=torch.tensor(0.9)))
    assert found == same_neuron == pickle.loads(pickle.dumps(found))
    assert hash(found) == hash(same_neuron)
    assert found != sdn.from_snntorch("Leaky", beta=0.8)


def test_a_level_a_channel():
    found = sdn.from_spikingjelly("LIFNode", v_reset=torch.tensor([0.0, 0.2]), tau=math.inf, decay_input=False)
    assert torch.allclose(found.dynamics.threshold, torch.tensor([1.0, 0.8]))
    assert "membranes are counted from v_reset" in found.notes["state"]


@pytest.mark.parametrize("beta", [0.9, torch.tensor(0.9), torch.tensor([0.9]), nn.Parameter(torch.tensor(0.9))])
def test_a_number_of_any_kind(beta):
    assert sdn.from_snntorch("Leaky", beta=beta).dynamics.decay == 0.9  # not 0.8999999761581421


@pytest.mark.parametrize(("beta", "decay"), [(1.4, 1.0), (-0.2, 0.0), (torch.tensor([-0.2, 1.4]), [0.0, 1.0])])
def test_beta_is_clamped_as_there(beta, decay):
    assert sdn.from_snntorch("Leaky", beta=beta).dynamics.facts()["decay"] == decay


def test_keywords_go_before_what_the_object_says():
    neuron = stand_in("Leaky", beta=0.9, inhibition=True, graded_spikes_factor=torch.tensor(2.0))
    found = sdn.from_snntorch(neuron, inhibition=False, graded_spikes_factor=1.0, threshold=0.5)
    assert (found.dynamics.decay, found.dynamics.threshold) == (0.9, 0.5)
