"""Coming from another library: the peers' steps written out as plain loops, and stand-ins for their objects."""

import math
import pickle
import re
import types

import pytest
import torch
from torch import nn

import sdn
import spikingssm
from sdn import migration
from sdn.checks.arguments import ArgumentError
from sdn.checks.words import NAMES
from sdn.migration.gradients import FastSigmoid

B, L, H = 3, 120, 6


def currents(seed, mean, std):
    generator = torch.Generator().manual_seed(seed)
    return mean + std * torch.randn(B, L, H, generator=generator, dtype=torch.float64)


def stand_in(name, **attributes):
    """An object of a class of this name with these attributes, as a peer's module has them."""
    module = type(name, (nn.Module,), {})()
    for key, value in attributes.items():
        setattr(module, key, value)
    return module


# ---- the steps, one time after another: (h, s) from the input of a step and what the loop keeps
def snntorch(x, *, beta=0.9, threshold=1.0, reset="subtract", delay=True, alpha=None, gain=1.0):
    """Leaky, Lapicque (with gain) and Synaptic (with alpha)."""
    mem = syn = torch.zeros(B, H, dtype=x.dtype)
    spikes = []
    for now in x.unbind(1):
        due = (mem > threshold).double()
        syn = gain * now if alpha is None else alpha * syn + now
        if reset == "zero" and alpha is None:
            mem = mem * (1 - due)
        mem = beta * mem + syn
        if reset == "subtract":
            mem = mem - due * threshold
        spike = (mem > threshold).double()
        if not delay and reset != "none":
            late = spike - due
            mem = mem - late * (threshold if reset == "subtract" else mem)
        spikes.append(spike)
    return torch.stack(spikes, 1)


def snntorch_alpha(x, alpha, beta, threshold, reset):
    tau = math.log(alpha) / (math.log(beta) - math.log(alpha)) + 1
    exc = inh = mem = torch.zeros(B, H, dtype=x.dtype)
    spikes = []
    for now in x.unbind(1):
        due, old = (mem > threshold).double(), inh
        exc, inh = alpha * exc + now, beta * inh - now
        mem = tau * (exc + inh)
        if reset == "zero":
            exc, inh, mem = exc * (1 - due), inh * (1 - due), mem * (1 - due)
        if reset == "subtract":
            exc, inh, mem = exc - threshold * due, inh * (1 - due), mem + old * due
        spikes.append((mem > threshold).double())
    return torch.stack(spikes, 1)


def spikingjelly(x, tau, v_threshold=1.0, v_reset=0.0, decay_input=True):
    rest = 0.0 if v_reset is None else v_reset
    v = torch.full((B, H), rest, dtype=x.dtype)
    spikes = []
    for now in x.unbind(1):
        leak = 0.0 if tau is None else (v - rest) / tau
        h = v - leak + (now / tau if tau is not None and decay_input else now)
        spike = (h >= v_threshold).double()
        v = h - spike * v_threshold if v_reset is None else (1 - spike) * h + spike * v_reset
        spikes.append(spike)
    return torch.stack(spikes, 1)


def norse(x, mem_inv, dt, *, syn_inv=None, v_leak=0.0, v_th=1.0, v_reset=0.0, subtract=False):
    v, i = torch.full((B, H), v_leak, dtype=x.dtype), torch.zeros(B, H, dtype=x.dtype)
    spikes = []
    for now in x.unbind(1):
        i = now if syn_inv is None else i + now
        h = v + dt * mem_inv * (v_leak - v + i)
        i = i - dt * (syn_inv or 0.0) * i
        spike = (h > v_th).double()
        v = h - spike * v_th if subtract else (1 - spike) * h + spike * v_reset
        spikes.append(spike)
    return torch.stack(spikes, 1)


def sinabs(x, alpha, *, synapse=None, threshold=1.0, norm=True, zero=None, subtract=None, least=None, adapt=None):
    """LIF, IAF (alpha 1), and ALIF with adapt=(decay, scale)."""
    v, i, b = (torch.zeros(B, H, dtype=x.dtype) for _ in range(3))
    decay, scale = adapt or (0.0, 0.0)
    spikes = []
    for now in x.unbind(1):
        i = now if synapse is None else synapse * (i + now)
        v = alpha * v + ((1 - alpha) * i if norm else i)
        in_force = threshold + scale * b
        spike = (v >= in_force).double()
        taken = in_force if subtract is None else subtract
        v = v - spike * taken if zero is None else v * (1 - spike) + zero
        b = decay * b + (1 - decay) * spike
        v = v if least is None else v.clamp(min=least)
        spikes.append(spike)
    return torch.stack(spikes, 1)


def same(found, theirs, x, least=0.02):
    ours = sdn.simulate(found.dynamics, x).spike
    assert least < ours.mean() < 0.6, ours.mean()
    assert torch.equal(ours, theirs)


every_seed = pytest.mark.parametrize("seed", range(5))


def drawn(seed, low, high):
    return (
        low + (high - low) * torch.rand((), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).item()
    )


@every_seed
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("delay", [True, False])
def test_leaky(seed, reset, delay):
    beta, threshold = drawn(seed, 0.2, 0.97), drawn(seed + 20, 0.4, 1.5)
    x = currents(seed, 0.0, threshold * (1.2 * (1 - beta**2) ** 0.5 if reset == "none" else 0.7))
    found = sdn.from_snntorch(
        "Leaky", beta=beta, threshold=threshold, reset_mechanism=reset, reset_delay=delay, init_hidden=True
    )
    same(found, snntorch(x, beta=beta, threshold=threshold, reset=reset, delay=delay), x)
    neuron = stand_in("Leaky", beta=beta, threshold=threshold, reset_mechanism=reset, reset_delay=delay)
    assert sdn.from_snntorch(neuron).dynamics == found.dynamics


def test_a_reset_at_once_is_no_soft_reset():
    """What stays above the threshold counts as a reset that is due again: the defect of snnTorch is held too."""
    x = torch.zeros(B, 4, H, dtype=torch.float64)
    x[:, 0] = 2.5
    found = sdn.from_snntorch("Leaky", beta=1.0, reset_delay=False)
    spikes = sdn.simulate(found.dynamics, x).spike
    assert torch.equal(spikes, snntorch(x, beta=1.0, delay=False))
    assert spikes[0, :, 0].tolist() == [1, 0, 0, 0]  # a soft reset gives 1, 1, 0, 0


@every_seed
def test_lapicque(seed):
    r, c, dt = drawn(seed, 0.5, 2), drawn(seed + 5, 3, 12), drawn(seed + 9, 0.5, 1)
    x = currents(seed, 1.0, 5.0)
    found = sdn.from_snntorch("Lapicque", R=r, C=c, time_step=dt)
    same(found, snntorch(x, beta=1 - dt / (r * c), gain=dt / c), x)


@every_seed
@pytest.mark.parametrize(("reset", "delay"), [("subtract", True), ("subtract", False), ("zero", False), ("none", True)])
def test_synaptic(seed, reset, delay):
    alpha, beta = drawn(seed, 0.1, 0.8), drawn(seed + 9, 0.2, 0.9)
    x = currents(seed, 0.0, 1.5 * (1 - alpha**2) ** 0.5 * ((1 - beta**2) ** 0.5 if reset == "none" else 1))
    found = sdn.from_snntorch("Synaptic", alpha=alpha, beta=beta, reset_mechanism=reset, reset_delay=delay)
    same(found, snntorch(x, alpha=alpha, beta=beta, reset=reset, delay=delay), x)


@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
def test_alpha(reset):
    x = currents(4, 0.1, 1.0)
    found = sdn.from_snntorch("Alpha", alpha=0.85, beta=0.7, threshold=0.7, reset_mechanism=reset)
    same(found, snntorch_alpha(x, 0.85, 0.7, 0.7, reset), x)


@every_seed
@pytest.mark.parametrize("v_reset", [None, 0.0, 0.2, -0.4], ids=str)
@pytest.mark.parametrize("decay_input", [True, False])
def test_lifnode(seed, v_reset, decay_input):
    tau, threshold = drawn(seed, 1.0, 12), drawn(seed + 20, 0.4, 1.5)
    x = currents(seed, 0.1, 0.8 * threshold) * (tau if decay_input else 1)
    values = {"tau": tau, "v_threshold": threshold, "v_reset": v_reset, "decay_input": decay_input}
    found = sdn.from_spikingjelly("LIFNode", **values, step_mode="m")
    same(found, spikingjelly(x, **values), x)
    assert isinstance(found.dynamics, sdn.LIF) is not decay_input
    assert sdn.from_spikingjelly(stand_in("LIFNode", **values)).dynamics == found.dynamics


def test_ifnode_and_parametric_lifnode():
    x = currents(5, 0.1, 0.7)
    for v_reset in (None, 0.0, 0.3):
        found = sdn.from_spikingjelly("IFNode", v_reset=v_reset, v_threshold=0.9)
        same(found, spikingjelly(x, None, 0.9, v_reset), x)
    node = stand_in("ParametricLIFNode", w=nn.Parameter(torch.tensor(-1.0, dtype=torch.float64)), decay_input=True)
    found = sdn.from_spikingjelly(node)
    same(found, spikingjelly(3 * x, 1 + math.e), 3 * x)
    raw = found.neuron(2).learned["rate"]
    assert torch.allclose(raw, torch.full((2,), -1.0), atol=1e-6)  # the very parameter w


@every_seed
def test_norse(seed):
    values = {"tau_mem_inv": drawn(seed, 30, 240), "tau_syn_inv": drawn(seed + 4, 30, 300)}
    rest = drawn(seed, -1, 1)
    levels = {"v_leak": rest, "v_reset": rest + drawn(seed + 2, -0.5, 0.2), "v_th": rest + 0.4}
    x = currents(seed, 0.1, 1.5)
    found = sdn.from_norse("LIFCell", **values, **levels, dt=0.002)
    same(found, norse(x, values["tau_mem_inv"], 0.002, syn_inv=values["tau_syn_inv"], **levels), x)
    p = types.SimpleNamespace(**values, **levels, method="super", alpha=100.0)
    assert sdn.from_norse(stand_in("LIFCell", p=p, dt=0.002)).dynamics == found.dynamics
    assert sdn.from_norse(stand_in("LIF", p=p, dt=0.001), dt=0.002).dynamics == found.dynamics
    assert sdn.from_norse(type("LIFParameters", (types.SimpleNamespace,), {})(**vars(p)), dt=0.002).dynamics == (
        found.dynamics
    )
    found = sdn.from_norse("LIFBoxCell", tau_mem_inv=values["tau_mem_inv"], **levels, dt=0.002)
    same(found, norse(2 * x, values["tau_mem_inv"], 0.002, **levels), 2 * x)


def test_norse_by_subtraction_and_without_a_leak():
    x = currents(6, 0.2, 2.0)
    found = sdn.from_norse("LIFBoxCell", tau_mem_inv=300.0, reset_method=_reset_subtract)
    same(found, norse(x, 300.0, 0.001, subtract=True), x)
    found = sdn.from_norse("IAFCell", v_reset=0.1)
    ours = sdn.simulate(found.dynamics, 0.3 * x).spike
    assert 0.02 < ours.mean() < 0.6
    assert torch.equal(ours, spikingjelly(0.3 * x, None, 1.0, 0.1))


def _reset_subtract():
    raise AssertionError("never called: its name says what it does")


_reset_subtract.__name__ = "reset_subtract"


@every_seed
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("least", [None, -0.3], ids=str)
@pytest.mark.parametrize("tau_syn", [None, 3.0], ids=str)
def test_sinabs(seed, norm, least, tau_syn):
    tau = drawn(seed, 1.5, 20)
    alpha, synapse = (float(torch.exp(-1 / torch.tensor(t))) if t else None for t in (tau, tau_syn))
    x = currents(seed, 0.05, 0.7) / (1 - alpha if norm else 1)
    values = {"tau_mem": tau, "norm_input": norm, "min_v_mem": least, "tau_syn": tau_syn}
    found = sdn.from_sinabs("LIF", **values, spike_fn="SingleSpike")
    same(found, sinabs(x, alpha, synapse=synapse, norm=norm, least=least), x)
    assert sdn.from_sinabs(stand_in("LIF", **values, spike_fn=SingleSpike)).dynamics == found.dynamics


class SingleSpike:
    """What a spike function of sinabs is: a class that is never made."""


def test_resets_of_sinabs_and_its_other_neurons():
    x = currents(7, 0.1, 0.6)
    reset = type("MembraneReset", (), {"reset_value": 0.05})()
    alpha = float(torch.exp(-1 / torch.tensor(8.0)))
    found = sdn.from_sinabs("LIF", tau_mem=8.0, norm_input=False, spike_fn="SingleSpike", reset_fn=reset)
    same(found, sinabs(x, alpha, norm=False, zero=0.05), x)
    reset = type("MembraneSubtract", (), {"subtract_value": 0.7})()
    found = sdn.from_sinabs("IAF", spike_fn=SingleSpike, reset_fn=reset, min_v_mem=-1.0)
    same(found, sinabs(x, 1.0, norm=False, subtract=0.7, least=-1.0), x)
    decay = float(torch.exp(-1 / torch.tensor(30.0)))
    found = sdn.from_sinabs("ALIF", tau_mem=8.0, tau_adapt=30.0, adapt_scale=1.2, spike_threshold=0.4)
    same(found, sinabs(5 * x, alpha, threshold=0.4, adapt=(decay, 1.2)), 5 * x)
    layer = stand_in("LIF", train_alphas=True, alpha_mem=torch.tensor(alpha), spike_fn=SingleSpike, norm_input=True)
    assert sdn.from_sinabs(layer).dynamics.decay == pytest.approx(alpha, rel=1e-7)


def test_equality_at_the_threshold():
    """Numbers that no sum rounds: snnTorch and norse do not fire at the threshold, the others do."""
    x = torch.full((1, 3, 1), 0.5, dtype=torch.float64)
    strict = [
        sdn.from_snntorch("Leaky", beta=1.0), sdn.from_snntorch("Synaptic", alpha=0.0, beta=1.0),
        sdn.from_norse("IAFCell"),
    ]  # fmt: skip
    at_once = [
        sdn.from_spikingjelly("IFNode"), sdn.from_sinabs("IAF", spike_fn="SingleSpike"),
        sdn.from_spikingjelly("LIFNode", tau=1.0, v_threshold=0.5),
    ]  # fmt: skip
    for found in strict:
        assert sdn.simulate(found.dynamics, x).spike.flatten().tolist() == [0, 0, 1]
    assert [sdn.simulate(found.dynamics, x).spike.flatten().tolist() for found in at_once] == [
        [0, 1, 0], [0, 1, 0], [1, 1, 1],
    ]  # fmt: skip


COMPILED = [
    lambda: sdn.from_snntorch("Leaky", beta=0.9),
    lambda: sdn.from_snntorch("Synaptic", alpha=0.5, beta=0.8, reset_delay=False),
    lambda: sdn.from_snntorch("Alpha", alpha=0.85, beta=0.7, threshold=0.5),
    lambda: sdn.from_spikingjelly("LIFNode", tau=2.0),
    lambda: sdn.from_norse("LIFCell", v_th=0.1, dt=0.002),
    lambda: sdn.from_sinabs("LIF", tau_mem=2.0, tau_syn=2.0, min_v_mem=-0.5, spike_fn="SingleSpike"),
    lambda: sdn.from_sinabs("ALIF", tau_mem=2.0, tau_adapt=30.0, spike_threshold=0.4),
]


@pytest.mark.parametrize("make", COMPILED, ids=lambda make: make().source)
def test_they_are_compiled_stored_and_read_again(make):
    found = make()
    x = currents(8, 0.1, 1.0)
    want = sdn.simulate(found.dynamics, x)
    assert 0.01 < want.spike.mean() < 0.6
    spikes, state = found.neuron(H, learn={})(x)
    assert torch.equal(spikes, want.spike)
    for got, expected in zip(state, want.state, strict=True):
        assert torch.allclose(got, expected, rtol=1e-12)
    assert sdn.Dynamics.from_facts(found.dynamics.facts()) == found.dynamics


def test_gradients_go_through_the_reset_where_they_do_there():
    for found, detached in (
        (sdn.from_snntorch("Leaky", beta=0.9), True),
        (sdn.from_snntorch("Leaky", beta=0.9, reset_delay=False), False),
        (sdn.from_spikingjelly("LIFNode"), False),
        (sdn.from_spikingjelly("LIFNode", detach_reset=True), True),
        (sdn.from_norse("LIFCell"), False),
        (sdn.from_sinabs("LIF", tau_mem=9.0, spike_fn="SingleSpike"), False),
        (sdn.from_sinabs("LIF", tau_mem=9.0, spike_fn="SingleSpike", reset_fn="MembraneReset"), True),
    ):
        assert found.detach_reset is detached
        assert found.neuron(2).solver == sdn.Fused(detach_reset=detached)
        assert found.neuron(2, solver="loop").solver == sdn.Loop(detach_reset=detached)
        assert found.neuron(2, solver=sdn.Loop(not detached)).solver == sdn.Loop(not detached)
        assert ("do not flow" in found.notes["reset"]) is detached


# ---- spike gradients: the slopes of the peers, written out
V = torch.linspace(-3, 3, 301, dtype=torch.float64)


def closure(name, **kept):
    """A function that keeps these values, made by a function of this name."""

    def of_one(value):
        return lambda x: (value, x)

    def of_none():
        return lambda x: x

    made = of_one(*kept.values()) if kept else of_none()
    made.__qualname__ = f"{name}.<locals>.inner"
    made.__code__ = made.__code__.replace(co_freevars=tuple(kept))
    return made


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


# ---- what cannot be held
def _of(library, name):
    return type(name, (nn.Module,), {"__module__": f"{library}.neuron"})()


Leaky = type("Leaky", (nn.Module,), {"beta": 0.9})
REFUSED = [
    (lambda: sdn.from_snntorch("Leaky"), r'Leaky needs beta; write from_snntorch\("Leaky", beta=\.\.\.\)'),
    (lambda: sdn.from_snntorch("Leaky", beta=0.9, bta=3), r"Leaky has no 'bta'; write beta=3"),
    (lambda: sdn.from_snntorch("Leaky", beta=0.9, tau=3), r"Leaky has no 'tau'; it takes beta, threshold"),
    (lambda: sdn.from_snntorch("Leeky", beta=0.9), r"did you mean 'Leaky'\? it reads Leaky, Lapicque"),
    (lambda: sdn.from_snntorch(Leaky), r"got the class Leaky; pass a neuron, such as Leaky\(\.\.\.\)"),
    (lambda: sdn.from_snntorch(type("Mine", (Leaky,), {})()), r"Mine is a class of your own.*sdn\.Dynamics"),
    (lambda: sdn.from_snntorch(nn.Sequential(Leaky())), r"got a Sequential, which holds other modules; pass its neuro"),
    (lambda: sdn.from_snntorch(0.9), r"from_snntorch: got 0.9; it reads Leaky"),
    (lambda: sdn.from_snntorch(sdn.LIF()), r"got the LIF of sdn, which is read already"),
    (lambda: sdn.from_snntorch(_of("spikingjelly", "LIFNode")), r"LIFNode is of spikingjelly; write sdn.from_spikingj"),
    (lambda: sdn.from_norse(stand_in("LIF", tau_mem=9.0)), r"this LIF has no attribute 'p'; give its values by keyw"),
    (lambda: sdn.from_snntorch("Leaky", beta=torch.ones((), device="meta")), r"beta is on the device meta"),
    (
        lambda: sdn.from_snntorch("Leaky", beta=0.9, graded_spikes_factor=nn.Parameter(torch.tensor(1.0))),
        r"graded_spikes_factor=.* cannot be held",
    ),
    (lambda: sdn.from_sinabs("LIF", tau_mem=9.0, spike_fn=None), r"spike_fn=None cannot be held: it never spikes"),
    (lambda: sdn.from_snntorch("RLeaky"), r"RLeaky reads its own spikes.*sdn\.recurrent"),
    (lambda: sdn.from_snntorch("SLSTM"), r"SLSTM is none of Leaky"),
    (
        lambda: sdn.from_snntorch("Leaky", beta=0.9, inhibition=True),
        r"inhibition=True cannot be held.*inhibition=False",
    ),
    (lambda: sdn.from_snntorch("Leaky", beta=0.9, state_quant=len), r"state_quant cannot be held"),
    (lambda: sdn.from_snntorch("Leaky", beta=0.9, graded_spikes_factor=2.0), r"graded_spikes_factor=2.0 .*next layer"),
    (lambda: sdn.from_snntorch("Leaky", beta=0.9, reset_mechanism="soft"), r"'subtract', 'zero', 'none', got 'soft'"),
    (lambda: sdn.from_snntorch("Leaky", beta=torch.ones(2, 3)), r"beta has shape \(2, 3\).*beta.flatten\(\)"),
    (lambda: sdn.from_snntorch("Leaky", beta="0.9"), r"beta must be a number or numbers of shape \(H,\), got '0.9'"),
    (lambda: sdn.from_snntorch("Leaky", beta=0.9, threshold=-1.0), r"threshold must be in \(0, inf\), got -1"),
    (
        lambda: sdn.from_snntorch("Synaptic", alpha=0.5, beta=0.9, reset_mechanism="zero"),
        r"reset_mechanism='zero' cannot be held: Synaptic also throws away.*reset_delay=False",
    ),
    (lambda: sdn.from_snntorch("Lapicque", R=1.0, C=5.0, reset_mechanism="zero"), r"Lapicque also throws away"),
    (lambda: sdn.from_spikingjelly("LIFNode", tau=0.5), r"tau=0.5 cannot be held.*sdn\.LIF\.from_tau\(0.5\)"),
    (lambda: sdn.from_spikingjelly("LIFNode", tau=0.0), r"tau=0.0 cannot be held.*Give a tau of at least 1, in steps"),
    (lambda: sdn.from_spikingjelly("LIFNode", tau=math.nan), r"from_spikingjelly: tau must be a number, got NaN"),
    (lambda: sdn.from_spikingjelly(tau=torch.tensor([2.0, math.nan])), r"tau must hold numbers, got NaN among"),
    (lambda: sdn.from_spikingjelly(surrogate_function="ATan"), r"object such as surrogate\.ATan\(\) .*got 'ATan'"),
    (lambda: sdn.from_snntorch("Leaky", beta=math.nan), r"from_snntorch: beta must be a number, got NaN"),
    (lambda: sdn.from_snntorch("Lapicque", R=0.0, C=1.0), r"from_snntorch: R must be > 0 and finite, got 0.0"),
    (lambda: sdn.from_snntorch("Lapicque", R=1.0, C=torch.tensor([1.0, -1.0])), r"C must be > 0 and finite, got"),
    (
        lambda: sdn.from_snntorch("Lapicque", R=1.0, C=0.5),
        r"time_step=1.0 with R=1.0 and C=0.5 cannot be held: Euler's",
    ),
    (lambda: sdn.from_snntorch("Lapicque", R=1e-200, C=1e-200), r"time_step=1.0 with R=1e-200 .*at most R C"),
    (lambda: sdn.from_snntorch("Leaky", beta=0.9, spike_grad="atn"), r"one of 'atan', 'sigmoid', .* got 'atn'"),
    (lambda: sdn.from_norse("LIFCell", dt="1"), r"from_norse: dt must be a number or numbers of shape .* got '1'"),
    (lambda: sdn.from_norse("LIFCell", tau_mem_inv="1"), r"tau_mem_inv must be a number or .* got '1'"),
    (lambda: sdn.from_norse("LIFBoxCell", dt=math.nan), r"from_norse: dt must be a number, got NaN"),
    (lambda: sdn.from_spikingjelly("LIFNode", v_reset=1.0), r"v_threshold=1.0 with v_reset=1.0 cannot be held"),
    (lambda: sdn.from_spikingjelly("NonSpikingLIFNode"), r"never spikes.*sdn\.scan"),
    (lambda: sdn.from_spikingjelly("PSN"), r"PSN is none of IFNode"),
    (
        lambda: sdn.from_spikingjelly(surrogate_function=stand_in("ATan", alpha=2.0, spiking=False)),
        r"ATan\(spiking=False\) cannot be held",
    ),
    (lambda: sdn.from_norse("LIFCell", dt=1.0), r"dt tau_mem_inv = 100 cannot be held.*with dt=0.001"),
    (lambda: sdn.from_norse("LIFCell", v_th=-1.0), r"v_th=-1.0 with a rest of 0.0 cannot be held"),
    (lambda: sdn.from_norse("LIFBoxCell", reset_method="mine"), r"reset_method=mine cannot be held"),
    (
        lambda: sdn.from_norse("LIFBoxCell", reset_method="reset_subtract", v_leak=-1.0),
        r"reset_subtract with v_leak=-1.0 cannot be held",
    ),
    (lambda: sdn.from_norse("LIFRecurrentCell"), r"sdn\.recurrent\(x, torch\.cat"),
    (lambda: sdn.from_norse("LSNNCell"), r"LSNNCell is none of LIFCell"),
    (lambda: sdn.from_sinabs("LIF", tau_mem=9.0), r'spike_fn=MultiSpike cannot be held.*spike_fn="SingleSpike"'),
    (lambda: sdn.from_sinabs("LIF", tau_mem=-2.0, spike_fn="SingleSpike"), r"tau_mem=-2.0 cannot be held"),
    (lambda: sdn.from_sinabs("ExpLeak"), r"ExpLeak never spikes.*sdn\.scan"),
    (lambda: sdn.from_sinabs("LIFRecurrent"), r"LIFRecurrent reads its own spikes"),
    (lambda: sdn.from_sinabs("ALIF", tau_mem=9.0, tau_adapt=9.0, tau_syn=3.0), r"tau_syn of ALIF cannot be held"),
    (lambda: sdn.from_sinabs("LIF", tau_mem=9.0, spike_fn=SingleSpike, reset_fn=len), r"reset_fn=.*cannot be held"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_what_cannot_be_held_is_refused_with_the_way_out(make, message):
    with pytest.raises(ValueError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_the_notes_are_printed():
    text = str(sdn.from_snntorch("Leaky", beta=0.9))
    assert text.startswith("snnTorch Leaky -> SnnTorchLeaky(decay=0.9, threshold=1.0")
    for subject in ("step:", "input:", "comparison:", "reset:", "gradient:", "state:", "axes:"):
        assert f"  {subject}" in text
    assert max(map(len, text.splitlines()[1:])) <= 96
    assert "one step after the spike" in text


def test_neurons_of_other_libraries_are_named_where_ours_are_asked_for():
    peer = type("Leaky", (nn.Module,), {"__module__": "snntorch._neurons.leaky"})
    for given in (peer(), peer):
        with pytest.raises(ArgumentError, match=r"Leaky of snntorch; write sdn\.from_snntorch\(neuron\)\.neuron\(cha"):
            sdn.Neuron(given, 8)
    with pytest.raises(ArgumentError, match=r"got a Migrated, which has one; write found\.neuron\(channels\)"):
        sdn.Neuron(sdn.from_snntorch("Leaky", beta=0.9), 8)
    grad = closure("fast_sigmoid", slope=25)
    grad.__module__ = "snntorch.surrogate"
    with pytest.raises(
        ArgumentError, match=r"got a fast_sigmoid of snntorch; write spike=sdn\.from_snntorch\(neuron\)"
    ):
        sdn.Neuron(sdn.LIF(), 8, spike=grad)


def test_the_names_are_public():
    names = {"Migrated", "from_norse", "from_sinabs", "from_snntorch", "from_spikingjelly", "migration"}
    assert names <= set(dir(sdn))
    assert sdn.migration is migration
    assert all(hasattr(migration, name) for name in migration.__all__)


def test_names_of_other_libraries_are_answered_with_what_runs():
    for name, text in NAMES.items():
        for module in (sdn, spikingssm) if name != "layers" else (sdn,):
            with pytest.raises(AttributeError, match=re.escape(f"has no attribute {name!r}; write {text}")):
                getattr(module, name)
        for code in re.findall(r"sdn\.from_\w+\(.*?\)(?=\.neuron)|sdn\.migration\.\w+\(.*?\)", text):
            assert eval(code, {"sdn": sdn}) is not None
    with pytest.raises(AttributeError, match=r"has no attribute 'LIF'; write sdn\.LIF"):
        _ = spikingssm.LIF
    assert not hasattr(sdn, "NoSuchName")


def test_own_gradients_and_what_is_learned_are_kept_by_name_too():
    mine = FastSigmoid(25.0)
    for found in (
        sdn.from_snntorch("Leaky", beta=0.9, spike_grad=mine),
        sdn.from_spikingjelly("LIFNode", tau=2.0, surrogate_function=mine),
        sdn.from_sinabs("LIF", tau_mem=10.0, spike_fn="SingleSpike", surrogate_grad_fn=mine),
    ):
        assert found.spike is mine, found
    found = sdn.from_snntorch("Leaky", beta=0.9, learn_beta=True, learn_threshold=True)
    assert sorted(found.learn) == ["decay", "threshold"]
    neuron = found.neuron(4)
    assert sorted(neuron.state_dict()) == ["learned.decay", "learned.threshold"]
    torch.testing.assert_close(neuron.current_dynamics().decay, torch.full((4,), 0.9))
    assert sdn.from_snntorch("Leaky", beta=0.9, learn_beta=False).learn == ()
    assert sdn.from_snntorch("Synaptic", alpha=0.8, beta=0.9, learn_alpha=True).learn != ()
