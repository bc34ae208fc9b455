"""Recordings: what is damaged, contradicting or wrongly scaled is refused with its place."""

import numpy as np
import pytest
import torch
from recordings import adex, demo, hodgkin_huxley, stimulus

from sdn.recordings.data import Recording


def arrays(rows=3, length=200, seed=0):
    """A current in pA, a voltage in mV that spikes, and its spikes, at 0.1 ms."""
    rng = np.random.default_rng(seed)
    current = rng.normal(100.0, 50.0, (rows, length))
    voltage = rng.normal(-60.0, 2.0, (rows, length))
    spikes = np.zeros((rows, length), bool)
    for row in range(rows):
        for step in (40 + row, 120 + row):
            voltage[row, step : step + 5] = 25.0
            spikes[row, step] = True
    return current, voltage, spikes


def same(one, other):
    assert torch.equal(one.spikes, other.spikes)
    torch.testing.assert_close(one.current, other.current, rtol=1e-6, atol=0)
    torch.testing.assert_close(one.voltage, other.voltage, rtol=1e-5, atol=1e-4)
    assert one.dt == pytest.approx(other.dt, rel=1e-9)


def test_three_ways_to_give_the_spikes_agree():
    current, voltage, spikes = arrays()
    given = Recording.of(current, spikes=spikes, voltage=voltage, dt=0.1)
    times = [[(step + 0.5) * 0.1 for step in row.nonzero()[0]] for row in spikes]
    same(given, Recording.of(current, times=times, voltage=voltage, dt=0.1))
    same(given, Recording.of(current, voltage=voltage, dt=0.1))
    assert given.spikes.sum() == 6
    assert given.current.dtype == torch.float32
    assert given.spikes.dtype == torch.bool
    assert "3 sweeps of 200 steps of 0.1 ms" in repr(given)
    assert Recording.of(current[0], spikes=spikes[0], dt=0.1).current.shape == (1, 200)


def poke(row, step, name, value):
    """A change of one sample."""

    def change(content):
        content[name][row, step] = value

    return change


REFUSED = {
    "nan": (poke(1, 17, "current", np.nan), "current is nan in sweep 1 at step 17 .1 of 600"),
    "infinite": (poke(2, 3, "voltage", -np.inf), "voltage is -inf in sweep 2 at step 3"),
    "spike-without-crossing": (
        poke(1, 90, "spikes", True), "in sweep 1 at step 90 there is a spike, and the voltage does not cross 0 mV"
    ),
    "crossing-without-spike": (
        poke(2, 122, "spikes", False), "in sweep 2 at step 122 there is no spike, and the voltage crosses 0 mV"
    ),
    "no-spike-number": (lambda c: c.update(spikes=c["spikes"] * 2.0), "must be 0 or 1, got 2 in sweep 0 at step 40"),
    "amperes": (lambda c: c.update(current=c["current"] * 1e-12), r"in A.*units=\{'current': 'A'\}"),
    "nanoamperes": (lambda c: c.update(units={"current": "uA"}), "the largest current is .* uA, in sweep .* at step"),
    "volts": (lambda c: c.update(voltage=c["voltage"] / 1000, spike_at=None), "if it is in V, say so"),
    "unit": (lambda c: c.update(units={"current": "amps"}), "unit of the current must be one of A, .*, got 'amps'"),
    "silent": (lambda c: c.update(voltage=None, spikes=c["spikes"] * 0), "no sweep of 3 has a spike"),
    "always": (lambda c: c.update(voltage=None, spikes=c["spikes"] * 0 + 1), "sweep 0 has a spike in 100 % of"),
    "dt-zero": (lambda c: c.update(dt=0), "dt must be > 0 ms and finite, got 0"),
    "dt-nan": (lambda c: c.update(dt=float("nan")), "dt must be > 0 ms and finite, got nan"),
    "dt-rate": (lambda c: c.update(dt=20000), "not a rate"),
    "dt-seconds": (lambda c: c.update(dt=1e-4), r"in ms, not in seconds \(0\.1 ms\)"),
    "units-word": (lambda c: c.update(units="nA"), "units must be such as {'current': 'nA'}, got 'nA'"),
    "shapes": (lambda c: c.update(spikes=c["spikes"][:, 1:]), r"spikes has shape \(3, 199\), current has \(3, 200\)"),
    "ragged": (lambda c: c.update(current=[[1.0], [1.0, 2.0]]), "all sweeps of one length"),
    "families": (lambda c: c.update(families=["steps"]), "families has 1 words, current has 3 sweeps"),
    "both": (lambda c: c.update(times=[[1.0]] * 3), "got spikes and times"),
    "nothing": (lambda c: c.update(spikes=None, voltage=None), "no spikes; give spikes, times, or a voltage"),
    "empty": (lambda c: c.update(current=np.zeros((0, 5)), spikes=np.zeros((0, 5)), voltage=None), r"not empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_refused_with_its_place(case):
    current, voltage, spikes = arrays()
    content = {"current": current, "voltage": voltage, "spikes": spikes, "dt": 0.1}
    Recording.of(**content)
    change, words = REFUSED[case]
    change(content)
    with pytest.raises(ValueError, match=words) as error:
        Recording.of(**content)
    assert "\n" not in str(error.value)


def test_times_outside_or_twice_in_a_step_are_refused():
    current, _, _ = arrays()
    with pytest.raises(ValueError, match="spike 1 of sweep 2 is at 20 ms, the sweep lasts from 0 to 20 ms"):
        Recording.of(current, times=[[1.0], [], [3.0, 20.0]], dt=0.1)
    with pytest.raises(ValueError, match=r"spike 0 of sweep 0 is at -0.1 ms"):
        Recording.of(current, times=[[-0.1], [], []], dt=0.1)
    with pytest.raises(ValueError, match=r"sweep 1 has 2 spikes in step 30 of 0.1 ms"):
        Recording.of(current, times=[[], [3.01, 3.08, 9.0], []], dt=0.1)
    with pytest.raises(ValueError, match="times has 1 lists, current has 3 sweeps"):
        Recording.of(current, times=[[1.0]], dt=0.1)


def test_spikes_within_two_milliseconds_of_the_crossing_pass_and_farther_ones_do_not():
    current, voltage, spikes = arrays()
    Recording.of(current, spikes=np.roll(spikes, 20, 1), voltage=voltage, dt=0.1)
    with pytest.raises(ValueError, match="in sweep 0 at step 61 there is a spike"):
        Recording.of(current, spikes=np.roll(spikes, 21, 1), voltage=voltage, dt=0.1)
    assert Recording.of(current, spikes=np.roll(spikes, 21, 1), voltage=voltage, dt=0.1, spike_at=None).spikes.any()


def test_resampling_is_the_mean_of_the_current_and_any_spike():
    current, voltage, spikes = arrays(length=205)
    found = Recording.of(current, spikes=spikes, voltage=voltage, dt=0.1).resampled(1.0)
    assert found.dt == pytest.approx(1.0)
    assert found.current.shape == (3, 20)  # five steps fill no bin
    torch.testing.assert_close(
        found.current, torch.tensor(current[:, :200].reshape(3, 20, 10).mean(-1), dtype=torch.float32)
    )
    assert [row.nonzero().flatten().tolist() for row in found.spikes] == [[4, 12]] * 3


def test_resampling_that_is_no_whole_number_or_merges_spikes_is_refused():
    current, voltage, spikes = arrays()
    recording = Recording.of(current, spikes=spikes, voltage=voltage, dt=0.1)
    with pytest.raises(ValueError, match=r"0.25 ms is no whole number of steps of 0.1 ms; take 0.2, 0.3 ms"):
        recording.resampled(0.25)
    with pytest.raises(ValueError, match="no whole number"):
        recording.resampled(0.05)
    with pytest.raises(ValueError, match=r"sweep 0 has spikes at steps 40 and 120, .* take a step below 8 ms"):
        recording.resampled(20.0)
    with pytest.raises(ValueError, match="longer than a sweep of 20 ms"):
        recording.resampled(30.0)


def test_sweeps_are_chosen_by_family():
    current, voltage, spikes = arrays()
    recording = Recording.of(current, spikes=spikes, voltage=voltage, dt=0.1, families=["a", "b", "a"])
    assert torch.equal(recording.sweeps("a").current, recording.current[[0, 2]])
    assert recording.sweeps(without=["a"]).families == ("b",)
    with pytest.raises(ValueError, match="no sweep is of the family 'c'; there are a, b"):
        recording.sweeps(["c"])
    with pytest.raises(ValueError, match="no sweep is left"):
        recording.sweeps("a", without=["a"])


# ---- The demo recordings themselves.
def test_the_simulated_neurons_fire_as_they_are_known_to():
    """AdEx: silent at 0.5 nA, some 10 Hz above its rheobase. HH: at rest -65 mV, at 10 uA/cm2 about 70 Hz."""
    _, spikes = adex(np.repeat([[500.0], [800.0], [1000.0]], 10000, 1), 0.05)  # half a second
    silent, few, more = spikes.sum(1)
    assert silent == 0
    assert 2 <= few < more <= 20
    voltage, spikes = hodgkin_huxley(np.repeat([[0.0], [2.0], [10.0]], 8000, 1), 0.025)  # a fifth of one
    assert spikes[0].sum() == 0
    assert spikes[1].sum() <= 1
    assert 11 <= spikes[2].sum() <= 17
    assert abs(voltage[0, -1] + 65.0) < 0.5
    assert -80 < voltage[2].min() < -70
    assert 30 < voltage[2].max() < 50


@pytest.mark.parametrize("kind", ["adex", "hh"])
def test_every_family_of_the_demo_is_neither_silent_nor_saturated(kind):
    recording = demo(kind, 500, 2).resampled(1.0)
    for family in dict.fromkeys(recording.families):
        assert 0.002 < recording.sweeps(family).rate < 0.15, family
    one, other = (stimulus("pink", 2, 100, 0.1, (1.0, 2.0, 0.5), seed) for seed in (0, 1))
    assert not np.allclose(one, other)
