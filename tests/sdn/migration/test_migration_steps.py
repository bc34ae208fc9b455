"""Steps of neurons of other libraries beside their loops, written out."""

import math
import types

import pytest
import torch
from peer_neurons import SingleSpike, stand_in
from torch import nn

import sdn

B, L, H = 3, 120, 6


def currents(seed, mean, std):
    generator = torch.Generator().manual_seed(seed)
    return mean + std * torch.randn(B, L, H, generator=generator, dtype=torch.float64)


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
