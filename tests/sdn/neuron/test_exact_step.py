"""A single step in inference takes a short way, and is bit for bit what the whole sequence does."""

import copy

import pytest
import torch
from own_neurons import AdEx

import sdn
from sdn.checks import kept as keeping
from sdn.checks.kept import kept
from sdn.solvers import exact_step as short

NEURONS = {
    "lif": sdn.LIF(0.8), "lif soft": sdn.LIF(0.8, reset="soft"), "alif": sdn.ALIF(), "rf": sdn.RF(8.0, threshold=0.02),
    "brf": sdn.BRF(8.0), "hrf": sdn.HRF(8.0), "izhikevich": sdn.IzhikevichRF(8.0), "adex": AdEx(),
}  # fmt: skip


def currents(neuron, steps=400):
    torch.manual_seed(0)
    return 1.5 * neuron.dynamics.default_std * torch.randn(3, steps, neuron.channels)


@pytest.mark.parametrize("name", NEURONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_are_the_sequence_bit_for_bit(name, dtype, monkeypatch):
    neuron = sdn.Neuron(NEURONS[name], 7, learn={"threshold": None} if name == "lif" else {})
    x = currents(neuron).to(dtype)
    whole, last = neuron(x)
    used = []
    original = short._ready
    monkeypatch.setattr(short, "_ready", lambda *given: used.append(original(*given)) or used[-1])
    with torch.no_grad():
        state, spikes = None, []
        for now in x.unbind(1):
            fired, state = neuron.step(now, state)
            spikes.append(fired)
    assert torch.equal(torch.stack(spikes, 1), whole)
    assert all(map(torch.equal, state, last))
    assert spikes[0].dtype == dtype
    assert 0.01 < whole.mean() < 0.7
    assert len(used) == 400
    assert (used[0] is None) == (name == "adex")  # whose exponential compiled code rounds otherwise


def test_a_change_of_a_parameter_is_seen_however_it_is_made():
    neuron = sdn.Neuron(sdn.LIF(0.5), 4, learn={"threshold": 1.0})
    x = torch.full((1, 4), 0.9)
    with torch.no_grad():
        assert neuron.step(x)[0].sum() == 0
        for change in (
            lambda p: p.data.sub_(1),  # which no version of the tensor counts
            lambda p: p.add_(1),
            lambda p: setattr(p, "data", p.data - 1),
        ):
            before = neuron.step(x)[0].sum()
            change(neuron.learned["threshold"])
            assert neuron.step(x)[0].sum() != before
        neuron.dynamics = sdn.LIF(0.5, threshold=0.1)
        neuron.learned["threshold"].fill_(5)
        assert neuron.step(x)[0].sum() == 0


def test_what_it_refuses_is_what_the_layer_refuses():
    neuron = sdn.Neuron(sdn.ALIF(), 3)
    with torch.no_grad():
        for x, state, says in (
            (torch.full((2, 3), torch.nan), None, "currents are NaN or infinite"),
            (torch.zeros(2, 3), neuron.initial_state(5), "another batch|has shape"),
            (torch.zeros(2, 4), None, "4 channels|must be"),
        ):
            with pytest.raises(ValueError, match=says) as quick:
                neuron.step(x, state)
            with torch.enable_grad(), pytest.raises(ValueError) as slow:
                neuron.step(x, state)
            assert str(quick.value) == str(slow.value)
        broken = sdn.Neuron(sdn.LIF(0.5), 3, learn={"threshold": None})
        broken.learned["threshold"][1] = torch.nan
        with pytest.raises(ValueError, match="threshold of neuron 1 is nan"):
            broken.step(torch.zeros(1, 3))


def test_somebody_who_looks_at_the_call_is_called():
    neuron, seen = sdn.Neuron(sdn.LIF(0.5), 3), []
    neuron.register_forward_hook(lambda *given: seen.append(given))
    with torch.no_grad():
        neuron.step(torch.zeros(1, 3))
    assert len(seen) == 1


def test_a_gradient_goes_through_a_step_still():
    neuron = sdn.Neuron(sdn.LIF(0.5), 3)
    x = torch.full((1, 3), 0.9, requires_grad=True)
    neuron.step(x)[0].sum().backward()
    assert x.grad.abs().sum() > 0


def test_kept_values_follow_their_sources_and_go_with_their_module():
    module, made = torch.nn.Linear(2, 2), []
    with torch.no_grad():
        for _ in range(3):
            kept(module, "a", [module.weight], lambda: made.append(1) or len(made))
        assert made == [1]
        assert kept(module, "b", [module.weight], lambda: 7) == 7
        module.weight.data[0, 0] += 1
        assert kept(module, "a", [module.weight], lambda: 2) == 2
        module.weight[0, 0] = torch.nan  # is never the same
        assert [kept(module, "a", [module.weight], lambda n=n: n) for n in (3, 4)] == [3, 4]
    assert kept(module, "a", [module.weight], lambda: 5) == 5  # with a gradient
    assert "_KEPT" not in vars(module)
    assert copy.deepcopy(module).state_dict().keys() == module.state_dict().keys()
    count = len(keeping._KEPT)
    del module
    assert len(keeping._KEPT) == count - 1
