"""What cannot be held of other libraries, and what is said about it."""

import math
import re

import pytest
import torch
from peer_neurons import SingleSpike, closure, stand_in
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
        for module in [module for module in (sdn, spikingssm) if not hasattr(module, name)]:
            with pytest.raises(AttributeError, match=re.escape(f"has no attribute {name!r}; write {text}")):
                getattr(module, name)
        for code in re.findall(r"sdn\.from_\w+\(.*?\)(?=\.neuron)|sdn\.migration\.\w+\(.*?\)", text):
            assert eval(code, {"sdn": sdn}) is not None
    with pytest.raises(AttributeError, match=r"has no attribute 'LIF'; write sdn\.LIF"):
        _ = spikingssm.LIF
    assert not hasattr(sdn, "NoSuchName")
    with pytest.raises(AttributeError, match=r"no attribute 'load_model'; write spikingssm\.load_model"):
        _ = sdn.load_model


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
