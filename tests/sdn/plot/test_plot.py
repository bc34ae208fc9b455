"""`sdn.plot`: what is drawn is what the neurons did, into the axes given, with units, and nothing else changes."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from helpers import CHANNELS, assert_lively, currents, every_dynamics, some_state

import sdn
from sdn.dynamics.replay import replay
from sdn.plot import membrane, phase_plane, raster, rates, traces


@pytest.fixture(autouse=True)
def _close():
    """Figures are closed, and the settings of matplotlib are as they were."""
    before = {name: value for name, value in mpl.rcParams.items() if name != "backend"}
    yield
    plt.close("all")
    assert {name: value for name, value in mpl.rcParams.items() if name != "backend"} == before


def drawn(line):
    return np.asarray(line.get_ydata())


def ticks(axes):
    """Where the ticks of the one collection of a pair of axes stand."""
    return sorted(float(path.vertices[0, 0]) for path in axes.collections[0].get_paths())


@every_dynamics
def test_a_spike_stands_where_the_membrane_reaches_the_threshold(dynamics, std):
    found = sdn.simulate(dynamics, currents(std, dtype=torch.float32))
    assert_lively(found.spike)
    top, middle, bottom = traces(found, dynamics, row=1, neuron=CHANNELS - 1)
    spikes = found.spike[1, :, -1] > 0
    potential, threshold = (drawn(line) for line in middle.lines)
    above = potential - threshold
    assert (above[spikes.numpy()] > -1e-6).all()
    assert (above[~spikes.numpy()] < 1e-6).all()
    assert np.array_equal(drawn(top.lines[0]), found.input[1, :, -1].double().numpy())
    assert ticks(bottom) == spikes.nonzero().flatten().tolist()


def test_the_threshold_of_alif_is_the_one_of_its_paper():
    dynamics = sdn.ALIF(tau_m=7.0, tau_a=31.0, beta=0.9, threshold=0.05)
    found = sdn.simulate(dynamics, currents(1.0))
    middle = traces(found, dynamics)[1]
    rho, a, wanted = np.exp(-1 / 31), 0.0, []
    for spike in [0.0, *found.spike[0, :-1, 0].tolist()]:
        a = rho * a + (1 - rho) * spike
        wanted.append(0.05 + 0.9 * a)
    np.testing.assert_allclose(drawn(middle.lines[1]), wanted, rtol=1e-9)
    assert np.ptp(wanted) > 0.01
    assert [line.get_label() for line in middle.lines] == ["membrane", "threshold in force"]


@pytest.mark.parametrize("dynamics", [sdn.BRF(23.0, 2.5, dt=0.012), sdn.HRF(21.0, 2.5, dt=0.012)], ids=str)
def test_what_the_threshold_has_risen_by_is_in_the_membrane_too(dynamics):
    found = sdn.simulate(dynamics, currents(70.0))
    assert_lively(found.spike)
    states = replay(dynamics, found)
    middle = traces(found, dynamics)[1]
    np.testing.assert_allclose(drawn(middle.lines[0]), states.u[0, 1:, 0], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(drawn(middle.lines[1]), 1 + states.q[0, :-1, 0], rtol=1e-6)


@every_dynamics
def test_states_are_played_again_from_any_start(dynamics, std):
    first = some_state(dynamics)
    current = currents(std)
    found = sdn.simulate(dynamics, current, first)
    states = replay(dynamics, found, first)
    half = sdn.simulate(dynamics, current[:, :20], first).state
    for name in dynamics.State._fields:
        torch.testing.assert_close(getattr(states, name)[:, 0], getattr(first, name))
        torch.testing.assert_close(getattr(states, name)[:, 20], getattr(half, name))
        torch.testing.assert_close(getattr(states, name)[:, -1], getattr(found.state, name))


def test_another_neuron_or_another_start_is_refused():
    dynamics = sdn.ALIF(tau_m=7.0, tau_a=31.0, beta=0.9, threshold=0.05)
    found = sdn.simulate(dynamics, currents(1.0), some_state(dynamics))
    with pytest.raises(
        ValueError, match=r"mem at step 0 is .* give the neuron that made it, and as state= what it had"
    ):
        traces(found, dynamics)
    traces(found, dynamics, state=some_state(dynamics), row=2, neuron=1)
    with pytest.raises(ValueError, match="mem at step 0"):
        traces(found, sdn.ALIF(), state=some_state(dynamics))


def test_a_layer_gives_its_trajectory_and_what_it_has_learned():
    torch.manual_seed(2)
    layer = sdn.Neuron(sdn.LIF(), 4, learn={"threshold": sdn.uniform(0.3, 2.0), "decay": 0.7})
    found = layer(currents(1.0, channels=4, dtype=torch.float32), record="mem")
    assert_lively(found.spike)
    for neuron in range(4):
        middle = traces(found, layer, neuron=neuron)[1]
        assert drawn(middle.lines[1])[0] == pytest.approx(float(layer.current_dynamics().threshold[neuron].detach()))
    assert len(phase_plane(found, neuron=3, dynamics=layer).lines) == 3


def test_without_a_neuron_there_is_no_threshold():
    found = sdn.simulate(sdn.LIF(), currents(1.0))
    middle = traces(found)[1]
    assert len(middle.lines) == 1
    assert np.array_equal(drawn(middle.lines[0]), found.mem[0, :, 0].numpy())
    assert middle.get_ylabel() == "mem, before the input"


def test_trajectories_of_generate_have_no_neuron_axis():
    found = sdn.generate(sdn.LIF(), samples=3, length=50)
    top, _, bottom = traces(found, sdn.LIF(), row=2)
    assert np.array_equal(drawn(top.lines[0]), found.input[2].double().numpy())
    assert ticks(bottom) == found.spike[2].nonzero().flatten().tolist()
    with pytest.raises(ValueError, match="neuron must be from 0 to 0, got 1"):
        traces(found, neuron=1)


def test_time_is_in_steps_or_in_milliseconds():
    found = sdn.simulate(sdn.LIF(), currents(1.0))
    for dt, unit in ((None, "time (steps)"), (0.1, "time (ms)")):
        axes = traces(found, sdn.LIF(), dt=dt)
        assert axes[2].get_xlabel() == unit
        assert axes[1].lines[0].get_xdata()[10] == pytest.approx(10 * (dt or 1))
        assert membrane(found.mem[0, :, 0], dt=dt).get_xlabel() == unit
        assert raster(found.spike[0], dt=dt).get_xlabel() == unit


def test_a_membrane_with_ticks_above_it():
    mem, spikes = torch.linspace(0, 1, 20, requires_grad=True), torch.arange(20) % 7 == 6
    ax = membrane(mem, spikes, 0.8)
    assert ticks(ax) == [6, 13]
    assert ax.get_ylim()[1] > 1.1
    assert drawn(ax.lines[1]).tolist() == [0.8] * 20
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["membrane", "threshold", "spikes"]
    assert ax.lines[0].get_color() != ax.lines[1].get_color()


def test_a_raster_has_a_tick_for_every_spike_and_no_padding():
    spikes = torch.rand(40, 5, generator=torch.Generator().manual_seed(1)) < 0.3
    ax = raster(spikes)
    assert len(ax.collections[0].get_paths()) == int(spikes.sum())
    ax = raster(spikes.numpy(), length=torch.tensor(11))
    places = [path.vertices for path in ax.collections[0].get_paths()]
    assert sorted((v[0, 0], v.mean(0)[1]) for v in places) == sorted(map(tuple, spikes[:11].nonzero().tolist()))
    assert ax.get_xlim() == (-0.5, 10.5)


def test_rates_mark_what_never_fires():
    ax = rates({"one": 0.25, "two": torch.tensor(0.0)})
    assert [bar.get_width() for bar in ax.patches] == [25, 0]
    assert [text.get_text() for text in ax.texts] == ["25", "never fires"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["one", "two"]
    assert ax.get_xlabel() == "spikes per neuron and step (%)"
    assert rates({"a": 0.0}).get_xlim()[1] > 0


def test_the_plane_of_an_oscillator_has_its_threshold_and_its_spikes():
    dynamics = sdn.BRF(23.0, 2.5, dt=0.012)
    found = sdn.simulate(dynamics, currents(70.0))
    ax, states = phase_plane(found, 2, 1, dynamics=dynamics), replay(dynamics, found)
    path, spikes, bar = ax.lines
    assert np.array_equal(drawn(path), states.v[2, :, 1])
    assert np.array_equal(path.get_xdata(), states.u[2, :, 1])
    after = states.u[2, 1:, 1][found.spike[2, :, 1] > 0]
    assert np.array_equal(spikes.get_xdata(), after)
    assert list(bar.get_xdata()) == [1, 1]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("u", "v")
    given = phase_plane(type(states)(*(part[:, 1:] for part in states)), 2, 1, fields=("q", "u"))
    assert (given.get_xlabel(), given.get_ylabel(), len(given.lines)) == ("q", "u", 1)
    assert np.array_equal(drawn(given.lines[0]), states.u[2, 1:, 1])


def test_the_plane_of_one_variable_shows_it_step_by_step():
    dynamics = sdn.LIF(0.9)
    found = sdn.simulate(dynamics, currents(1.0))
    ax, u = phase_plane(found, dynamics=dynamics), replay(dynamics, found).u[0, :, 0]
    assert np.array_equal(ax.lines[0].get_xdata(), u[:-1])
    assert np.array_equal(drawn(ax.lines[0]), u[1:])
    assert set(drawn(ax.lines[1])) == {0.0}  # after a spike
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("u, step before", "u")


def test_izhikevich_fires_on_its_imaginary_part():
    dynamics = sdn.IzhikevichRF(omega=17.0, damping=3.0, dt=0.012, threshold=1.1)
    ax = phase_plane(sdn.simulate(dynamics, currents(90.0)), dynamics=dynamics)
    assert list(ax.lines[-1].get_ydata()) == [1.1, 1.1]


def test_axes_that_are_given_are_drawn_into(monkeypatch):
    figure, axes = plt.subplots(3, 2)
    monkeypatch.setattr(plt, "show", None)
    found = sdn.simulate(sdn.BRF(), currents(70.0))
    assert list(traces(found, sdn.BRF(), axes=axes[:, 0])) == list(axes[:, 0])
    assert [ax.get_xlim() for ax in axes[:, 0]] == [(-0.5, 62.5)] * 3
    assert raster(found.spike[0], axes[0, 1]) is axes[0, 1]
    assert rates({"a": 0.1}, axes[1, 1]) is axes[1, 1]
    assert phase_plane(found, ax=axes[2, 1], dynamics=sdn.BRF()) is axes[2, 1]
    assert membrane(found.mem[0, :, 0], ax=axes[2, 1]) is axes[2, 1]
    assert plt.get_fignums() == [figure.number]


FOUND = sdn.simulate(sdn.LIF(), currents(1.0))
REFUSED = [
    (lambda: traces(FOUND.mem), "traces: needs a sdn.Trajectory, got Tensor; sdn.simulate and neuron"),
    (lambda: traces(FOUND, row=3), "traces: row must be from 0 to 2, got 3; there are 3"),
    (lambda: traces(FOUND, neuron=-6), "traces: neuron must be from 0 to 4, got -6"),
    (lambda: traces(FOUND, row="a"), "traces: row must be a whole number, got 'a'"),
    (lambda: traces(FOUND._replace(mem=FOUND.mem[0, 0])), r"must all be \(B, L, H\) or \(B, L\), got \(3, 63, 5\)"),
    (lambda: traces(FOUND, "lif"), r"sdn.plot: dynamics must be a neuron.*write sdn.LIF\(\)"),
    (lambda: traces(FOUND, sdn.LIF([0.1, 0.2])), "decay has 2 numbers and the trajectory 5 neurons; give the dynamics"),
    (lambda: traces(FOUND, axes=mpl.figure.Figure().subplots(2)), "axes must be three axes, got 2"),
    (lambda: traces(FOUND, dt=0), "dt must be the length of a step in ms, > 0, got 0"),
    (lambda: membrane(FOUND.mem), r"mem must be \(L,\), got shape \(3, 63, 5\); take one neuron of one row"),
    (lambda: membrane([1.0, 2.0], [0, 1, 1]), "mem has 2 steps and spikes has shape .3,.; give both of the same steps"),
    (lambda: membrane([1.0, 2.0], threshold=[1, 2, 3]), "mem has 2 steps and threshold has shape .3,."),
    (lambda: membrane("abc"), r"mem must be \(L,\) of numbers, got 'abc'"),
    (lambda: membrane([1.0], ax=3), "ax must be one Axes of matplotlib, got int; leave it"),
    (lambda: raster(FOUND.spike), r"spikes must be \(L, C\), got shape \(3, 63, 5\); take one row of the batch"),
    (lambda: raster(FOUND.spike[0], length=64), "length is 64, the spikes have 63 steps"),
    (lambda: raster(FOUND.spike[0], length=0), "length must be at least 1, got 0"),
    (lambda: rates([0.1]), "needs a mapping of at least one layer"),
    (lambda: rates({}), "needs a mapping of at least one layer"),
    (lambda: rates({"a": FOUND.spike}), r"the rate of 'a' must be one number, got shape .3, 63, 5.; take the mean"),
    (lambda: rates({"a": 17.0}), r"the rate of 'a' must be in \[0, 1\], got 17; divide the spikes"),
    (lambda: phase_plane(FOUND), "a Trajectory keeps no states but the last; give dynamics="),
    (lambda: phase_plane(FOUND.state), r"fields of the state must be \(B, L, H\), got \(3, 5\); stack those"),
    (lambda: phase_plane(3), "needs a sdn.Trajectory, or a state"),
    (lambda: phase_plane(FOUND, dynamics=sdn.LIF(), fields=("u", "v")), r"fields must be two of u, got \('u', 'v'\)"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_refusals(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
    assert not plt.get_fignums()
