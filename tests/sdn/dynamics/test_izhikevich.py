"""Izhikevich's resonate-and-fire neuron: it fires on the imaginary part and starts again from i."""

import cmath
import math

import pytest
import torch
from helpers import CHANNELS, assert_close, assert_lively, currents

import sdn
from sdn import RF, Loop, Neuron, Surrogate, generate, simulate
from sdn.dynamics import IzhikevichRF


def at(u, v):
    return IzhikevichRF.State(*(torch.tensor([[float(f)]], dtype=torch.float64) for f in (u, v)))


def still(length):
    return torch.zeros(1, length, 1, dtype=torch.float64)


def test_below_threshold_it_is_a_complex_power():
    neuron = IzhikevichRF(omega=12.0, damping=2.0, dt=0.02)
    factor = complex(1 - 0.02 * 2.0, 0.02 * 12.0)
    out = simulate(neuron, still(100), at(0.3, -0.8))
    orbit = [complex(0.3, -0.8) * factor**t for t in range(1, 101)]
    assert out.spike.sum() == 0
    assert_close(out.mem.flatten(), torch.tensor([z.imag for z in orbit], dtype=torch.float64))
    assert_close(out.state.u.flatten(), torch.tensor([orbit[-1].real], dtype=torch.float64))


def test_without_spikes_it_is_the_rf_seen_from_the_side():
    x = currents(5.0)
    ours = simulate(IzhikevichRF(omega=17.0, damping=3.0, threshold=9.0), x)
    rf = simulate(RF(omega=17.0, damping=3.0, threshold=9.0), x)
    assert ours.spike.sum() == 0
    assert_close(ours.state.u, rf.state.u)
    assert_close(ours.state.v, rf.state.v)
    assert not torch.equal(ours.mem, rf.mem)


def test_a_spike_sets_the_whole_state_to_i():
    x = currents(100.0, 1, 300, 1)
    neuron = IzhikevichRF()
    out, fired = simulate(neuron, x), 0
    for t in out.spike.flatten().nonzero().flatten().tolist():
        last = simulate(neuron, x[:, : t + 1]).state
        assert (last.u.item(), last.v.item()) == (0.0, 1.0)
        if t + 1 < 300:
            assert out.mem[0, t + 1, 0].item() == pytest.approx(1 - 0.01 * 1.0, abs=1e-14)
        fired += 1
    assert fired > 3


def test_inputs_in_step_with_the_oscillation_fire_it_and_inputs_out_of_step_do_not():
    """Two pulses a period apart add up, half a period apart they cancel: what it is known for."""
    neuron = IzhikevichRF(omega=20.0, damping=2.0, dt=0.005)
    factor = complex(1 - 0.005 * 2.0, 0.005 * 20.0)
    period = round(2 * math.pi / cmath.phase(factor))
    for gap, fires in ((period, True), (period // 2, False)):
        x = still(3 * period)
        x[0, [0, gap]] = 0.85 / 0.005
        assert bool(simulate(neuron, x).spike.any()) == fires


def test_the_input_of_a_step_moves_only_the_next_potential():
    neuron, x = IzhikevichRF(), still(2)
    x[0, 0] = 1e6
    out = simulate(neuron, x)
    assert neuron.gain == 0
    assert out.mem[0, :, 0].tolist() == [0.0, pytest.approx(0.01 * 10.0 * 0.01 * 1e6)]
    assert out.spike[0, :, 0].tolist() == [0.0, 1.0]


def test_just_above_the_refused_thresholds_a_reset_neuron_falls_silent():
    """And one just below them would fire for ever: that is why they are refused."""
    last = 1 - 0.01 * 1.0
    assert simulate(IzhikevichRF(threshold=last), still(1000), at(0.0, 1.0)).spike.sum() == 0
    below = IzhikevichRF(threshold=torch.tensor([last - 1e-6]))  # tensors are not checked
    assert simulate(below, still(1000), at(0.0, 1.0)).spike.all()
    with pytest.raises(ValueError, match="fire for ever"):
        IzhikevichRF(threshold=last - 1e-6)


def test_numbers_are_refused_where_the_free_oscillation_grows():
    edge = math.sqrt(1 - (1 - 0.01 * 2.0) ** 2) / 0.01
    IzhikevichRF(omega=edge * (1 - 1e-9), damping=2.0)
    with pytest.raises(ValueError, match="grows by"):
        IzhikevichRF(omega=edge * (1 + 1e-9), damping=2.0)


def test_the_default_currents_make_it_fire_at_a_sensible_rate():
    assert_lively(generate(IzhikevichRF(), 100, 512).spike, 0.03, 0.2)  # and without a warning


def test_it_learns_under_the_loop_through_time():
    x = currents(150.0, dtype=torch.float32).requires_grad_()
    neuron = Neuron(IzhikevichRF(), CHANNELS, learn={"omega": 12.0, "damping": 1.5}, solver=Loop())
    spikes, _ = neuron(x)
    assert_lively(spikes)
    spikes[:, 40].sum().backward()
    assert (x.grad[:, 40] == 0).all(), "a spike does not depend on the input of its own step"
    assert (x.grad[:, 39] != 0).any()
    assert all(p.grad.abs().min() > 0 for p in neuron.learned.values())


def test_solvers_that_cannot_run_it_say_why():
    network = sdn.Artifact(sdn.ReducedSDN().eval(), {"dynamics": IzhikevichRF().facts()})
    with pytest.raises(ValueError, match=r"IzhikevichRF: .*gain is 0.*use rounds, or solver='loop'"):
        Neuron(IzhikevichRF(), CHANNELS, solver=Surrogate(network))
    Neuron(IzhikevichRF(), CHANNELS, solver=Surrogate())  # the shipped one has rounds
