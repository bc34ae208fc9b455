"""Neurons of other libraries and what `sdn.from_...` makes of them: spikes equal in every step, gradients too.

`make test-peers` runs these tests where the libraries are. Elsewhere they are skipped.
"""

import importlib
import math
import warnings

import pytest
import torch

import sdn

BATCH, LENGTH, CHANNELS = 4, 400, 48
GRADIENT = 2e-4
"""How far gradients may lie apart, relative to the largest: sums of 400 steps in another order."""


def library(name):
    """A module of a peer, or a skipped test; what it warns of while it is imported is its own affair."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            pytest.skip(f"{name} is not installed ({error.name}); make test-peers")


def drawn(seed, low, high, size=()):
    return low + (high - low) * torch.rand(size, generator=torch.Generator().manual_seed(seed))


def currents(seed, mean, std, channels=CHANNELS):
    generator = torch.Generator().manual_seed(seed)
    return mean + std * torch.randn(BATCH, LENGTH, channels, generator=generator)


def agree(peer, found, x, *, gradients=True):
    """The same spikes in every step, at a rate that says something, and the same gradient of the input."""
    x = x.clone().requires_grad_()
    theirs = peer(x)
    ours = found.neuron(x.shape[-1], learn={}, return_state=False)(x)
    rate = ours.mean().item()
    assert 0.02 < rate < 0.6, rate
    wrong = (ours != theirs).sum().item()
    assert wrong == 0, f"{wrong} of {ours.numel()} steps differ, rate {rate:.3f}"
    if gradients:
        incoming = torch.randn(x.shape, generator=torch.Generator().manual_seed(7))
        (want,) = torch.autograd.grad(theirs, x, incoming)
        (got,) = torch.autograd.grad(ours, x, incoming)
        assert want.abs().max() > 0
        far = ((got - want).abs().max() / want.abs().max()).item()
        assert far < GRADIENT, far
    return rate


# ---- snnTorch
def run_snntorch(neuron):
    def run(x):
        neuron.reset_mem()  # it keeps its own state
        return torch.stack([neuron(now)[0] for now in x.unbind(1)], 1)

    return run


@pytest.mark.parametrize("delay", [True, False], ids=["delayed", "at-once"])
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("seed", range(6))
def test_leaky(reset, delay, seed):
    snn = library("snntorch")
    beta, threshold = drawn(seed, 0.2, 0.98).item(), drawn(seed + 50, 0.3, 1.6).item()
    neuron = snn.Leaky(beta=beta, threshold=threshold, reset_mechanism=reset, reset_delay=delay)
    x = currents(seed, 0.0, threshold * (0.9 * (1 - beta**2) ** 0.5 if reset == "none" else 0.8))
    agree(run_snntorch(neuron), sdn.from_snntorch(neuron), x)


def test_leaky_with_a_beta_a_channel_that_is_learned():
    snn = library("snntorch")
    beta = drawn(3, 0.1, 0.95, (CHANNELS,))
    neuron = snn.Leaky(beta=beta, threshold=drawn(4, 0.5, 1.5, (CHANNELS,)), learn_beta=True, learn_threshold=True)
    found = sdn.from_snntorch(neuron)
    assert found.learn == ("decay", "threshold")
    x = currents(5, 0.1, 0.8)
    agree(run_snntorch(neuron), found, x)
    layer = found.neuron(CHANNELS)
    spikes = layer(x)[0]
    # the parameters pass through logit and log: their gradients are those of the values by the chain rule
    (spikes * x).sum().backward()
    (run_snntorch(neuron)(x) * x).sum().backward()
    slope = beta * (1 - beta)
    got, want = layer.learned["decay"].grad, neuron.beta.grad * slope
    assert ((got - want).abs().max() / want.abs().max()) < GRADIENT
    got, want = layer.learned["threshold"].grad, neuron.threshold.grad * neuron.threshold
    assert ((got - want).abs().max() / want.abs().max()) < GRADIENT


@pytest.mark.parametrize("seed", range(3))
def test_lapicque(seed):
    snn = library("snntorch")
    for values in ({"R": 1.0 + seed, "C": 5.0}, {"beta": drawn(seed, 0.6, 0.95).item()}):
        neuron = snn.Lapicque(**values, threshold=0.3)
        agree(run_snntorch(neuron), sdn.from_snntorch(neuron), currents(seed, 0.3, 1.0), gradients=True)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("reset", "delay"), [("subtract", True), ("subtract", False), ("zero", False), ("none", True)])
def test_synaptic(reset, delay, seed):
    snn = library("snntorch")
    alpha, beta = drawn(seed, 0.1, 0.8).item(), drawn(seed + 9, 0.2, 0.9).item()
    neuron = snn.Synaptic(alpha=alpha, beta=beta, threshold=1.2, reset_mechanism=reset, reset_delay=delay)
    std = 1.1 * (1 - alpha**2) ** 0.5 * (1 - beta if reset == "none" else 1)
    agree(run_snntorch(neuron), sdn.from_snntorch(neuron), currents(seed, 0.05, std))


@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
def test_alpha(reset):
    snn = library("snntorch")
    neuron = snn.Alpha(alpha=0.85, beta=0.7, threshold=0.7, reset_mechanism=reset)
    agree(run_snntorch(neuron), sdn.from_snntorch(neuron), currents(1, 0.1, 1.0))


@pytest.mark.parametrize("name", ["atan", "fast_sigmoid", "sigmoid", "straight_through_estimator"])
def test_gradients_of_snntorch(name):
    snn, surrogate = library("snntorch"), library("snntorch.surrogate")
    # their sigmoid is NaN from 88 / slope below the threshold on: 3.5 with the slope of 25 that it has by itself
    first = {"slope": 8.0} if name == "sigmoid" else {}
    for values in (first, {"alpha": 3.0} if name == "atan" else {"slope": 5.0} if "sigmoid" in name else {}):
        neuron = snn.Leaky(beta=0.8, spike_grad=getattr(surrogate, name)(**values))
        agree(run_snntorch(neuron), sdn.from_snntorch(neuron), currents(2, 0.1, 0.7))


def test_rleaky_through_recurrent():
    """What the error about RLeaky says to write."""
    snn = library("snntorch")
    neuron = snn.RLeaky(beta=1.0, linear_features=CHANNELS)
    with torch.no_grad():  # multiples of 1/64 without a leak: no sum is rounded, in whatever order
        for parameter in neuron.recurrent.parameters():
            parameter.copy_((64 * parameter).round() / 64)
    with pytest.raises(ValueError, match=r"sdn.recurrent\(x, weight"):
        sdn.from_snntorch(neuron)
    found = sdn.from_snntorch("Leaky", beta=neuron.beta)
    x = (64 * currents(6, 0.1, 0.7)).round() / 64
    weight = torch.cat([torch.eye(CHANNELS), neuron.recurrent.weight.detach()], 1)
    ours, _ = sdn.recurrent(
        x, weight, found.dynamics, bias=neuron.recurrent.bias.detach(), spike_gradient=found.spike, detach_reset=True
    )
    assert 0.02 < ours.mean() < 0.6
    assert torch.equal(ours, run_snntorch(neuron)(x))


# ---- SpikingJelly
def run_spikingjelly(node):
    functional = library("spikingjelly.activation_based.functional")
    node.step_mode = "m"

    def run(x):
        functional.reset_net(node)
        return node(x.transpose(0, 1)).transpose(0, 1)

    return run


@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("v_reset", [None, 0.0, 0.2, -0.3], ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_lifnode(v_reset, decay_input, seed):
    neuron = library("spikingjelly.activation_based.neuron")
    tau, threshold = 1.05 + drawn(seed, 0, 12).item(), drawn(seed + 30, 0.4, 1.5).item()
    node = neuron.LIFNode(tau, decay_input, threshold, v_reset, detach_reset=bool(seed % 2))
    scale = tau if decay_input else 1.0
    agree(run_spikingjelly(node), sdn.from_spikingjelly(node), currents(seed, 0.1, 0.8 * threshold) * scale)


@pytest.mark.parametrize("decay_input", [True, False])
def test_parametric_lifnode(decay_input):
    neuron = library("spikingjelly.activation_based.neuron")
    node = neuron.ParametricLIFNode(3.5, decay_input)
    found = sdn.from_spikingjelly(node)
    x = currents(8, 0.1, 0.9) * (3.5 if decay_input else 1.0)
    agree(run_spikingjelly(node), found, x)
    layer = found.neuron(CHANNELS)
    (layer(x)[0] * x).sum().backward()
    (run_spikingjelly(node)(x) * x).sum().backward()
    assert math.isclose(layer.learned["rate"].grad.sum().item(), node.w.grad.item(), rel_tol=1e-3)  # of one w, of all


@pytest.mark.parametrize("v_reset", [None, 0.0, 0.3], ids=str)
def test_ifnode(v_reset):
    neuron = library("spikingjelly.activation_based.neuron")
    node = neuron.IFNode(0.9, v_reset)
    agree(run_spikingjelly(node), sdn.from_spikingjelly(node), currents(9, 0.15, 0.7))


NAMES = ["Sigmoid", "ATan", "PiecewiseQuadratic", "PiecewiseExp", "SoftSign", "SuperSpike", "Erf", "Rect"]


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_spikingjelly(name):
    neuron = library("spikingjelly.activation_based.neuron")
    surrogate = library("spikingjelly.activation_based.surrogate")
    for values in ({}, {"alpha": 1.7}):
        node = neuron.LIFNode(2.5, surrogate_function=getattr(surrogate, name)(**values))
        found = sdn.from_spikingjelly(node)
        assert "same function" in found.notes["gradient"]
        agree(run_spikingjelly(node), found, currents(10, 0.2, 2.5))


# ---- norse
def run_norse(cell):
    def run(x):
        spikes, state = [], None
        for now in x.unbind(1):
            spike, state = cell(now, state)
            spikes.append(spike)
        return torch.stack(spikes, 1)

    return run


@pytest.mark.parametrize("dt", [0.001, 0.0005, 0.004])
@pytest.mark.parametrize("seed", range(4))
def test_norse_lif(dt, seed):
    norse = library("norse.torch")
    inverse = [drawn(seed + at, 20, 240).clone() for at in (0, 10)]
    p = norse.LIFParameters(*inverse, v_th=drawn(seed, 0.2, 0.5), v_reset=drawn(seed, -0.3, 0.1))
    cell = norse.LIFCell(p, dt=dt)
    x = currents(seed, 0.0, 0.7 if dt == 0.004 else 1.0)
    agree(run_norse(cell), sdn.from_norse(cell), x)
    assert sdn.from_norse(p, dt=dt).dynamics == sdn.from_norse(cell).dynamics
    assert sdn.from_norse(norse.LIF(p, dt=dt)).dynamics == sdn.from_norse(cell).dynamics


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("reset", ["reset_value", "reset_subtract"])
def test_norse_box(reset, seed):
    norse, resets = library("norse.torch"), library("norse.torch.functional.reset")
    box = library("norse.torch.functional.lif_box")
    p = box.LIFBoxParameters(
        drawn(seed, 30, 400), v_th=drawn(seed, 0.3, 1.0), v_reset=torch.tensor(0.1), reset_method=getattr(resets, reset)
    )
    cell = norse.LIFBoxCell(p, dt=0.002)
    agree(run_norse(cell), sdn.from_norse(cell), currents(seed, 0.1, 2.0))


def test_norse_with_millivolts():
    """Rest at -65, threshold at -50: counted from rest here."""
    norse = library("norse.torch")
    lif = library("norse.torch.functional.lif")
    cell = norse.LIFCell(lif.default_bio_parameters, dt=0.4)
    found = sdn.from_norse(cell)
    assert found.dynamics.threshold == 15
    agree(run_norse(cell), found, currents(11, 100.0, 400.0))


def test_norse_iaf():
    norse = library("norse.torch")
    cell = norse.IAFCell()
    agree(run_norse(cell), sdn.from_norse(cell), currents(12, 0.2, 0.5))


@pytest.mark.parametrize("method", ["super", "triangle", "tanh", "heavi_erfc"])
def test_gradients_of_norse(method):
    norse, box = library("norse.torch"), library("norse.torch.functional.lif_box")
    p = box.LIFBoxParameters(torch.tensor(300.0), method=method, alpha=torch.tensor(1.5))
    cell = norse.LIFBoxCell(p, dt=0.001)
    found = sdn.from_norse(cell)
    assert "same function" in found.notes["gradient"]
    agree(run_norse(cell), found, currents(13, 0.3, 3.0))


# ---- sinabs
def run_sinabs(layer):
    def run(x):
        layer.reset_states()
        return layer(x)

    return run


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("least", [None, -0.4], ids=str)
@pytest.mark.parametrize("synapse", [None, 4.0], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_sinabs_lif(norm, least, synapse, seed):
    layers, activation = library("sinabs.layers"), library("sinabs.activation")
    tau, threshold = drawn(seed, 1.5, 25).item(), drawn(seed, 0.4, 1.4).item()
    layer = layers.LIF(tau, synapse, torch.tensor(threshold), activation.SingleSpike, min_v_mem=least, norm_input=norm)
    scale = 1 / (1 - math.exp(-1 / tau)) if norm else 1.0
    x = currents(seed, 0.05, 0.7 * threshold) * scale / (1 if synapse is None else 2.0)
    agree(run_sinabs(layer), sdn.from_sinabs(layer), x)


@pytest.mark.parametrize("value", [0.0, 0.05])
def test_sinabs_reset_to_a_value(value):
    layers, activation = library("sinabs.layers"), library("sinabs.activation")
    reset = activation.MembraneReset(value)
    layer = layers.LIF(10.0, spike_fn=activation.SingleSpike, reset_fn=reset, norm_input=False)
    agree(run_sinabs(layer), sdn.from_sinabs(layer), currents(14, 0.1, 0.6))


def test_sinabs_iaf_and_alif():
    layers, activation = library("sinabs.layers"), library("sinabs.activation")
    layer = layers.IAF(spike_fn=activation.SingleSpike, reset_fn=activation.MembraneSubtract(0.8), min_v_mem=-1.0)
    agree(run_sinabs(layer), sdn.from_sinabs(layer), currents(15, 0.1, 0.6))
    with pytest.raises(ValueError, match="spike_fn=MultiSpike cannot be held"):
        sdn.from_sinabs(layers.IAF())
    for seed in range(4):
        tau, adapt = drawn(seed, 3, 20).item(), drawn(seed, 10, 90).item()
        layer = layers.ALIF(tau, adapt, adapt_scale=1.2, spike_threshold=torch.tensor(0.4))
        agree(run_sinabs(layer), sdn.from_sinabs(layer), currents(seed, 0.5, 0.5 * tau), gradients=False)


@pytest.mark.parametrize("name", ["SingleExponential", "Gaussian", "MultiGaussian"])
def test_gradients_of_sinabs(name):
    layers, activation = library("sinabs.layers"), library("sinabs.activation")
    layer = layers.LIF(
        8.0, spike_threshold=torch.tensor(0.7), spike_fn=activation.SingleSpike,
        surrogate_grad_fn=getattr(activation, name)(grad_scale=1.3),
    )  # fmt: skip
    found = sdn.from_sinabs(layer)
    assert "same function" in found.notes["gradient"]
    agree(run_sinabs(layer), found, currents(16, 0.3, 4.0))
