"""The model of the inner ear: against the same equations in another form, and against closed forms."""

from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
from scipy import signal

from spikingssm.datasets.cochlea import Cochlea, HairCell, greenwood

MODULE = import_module("spikingssm.datasets.cochlea")
PLAIN = Cochlea()
SMALL = replace(PLAIN, channels=35)
CELL = HairCell()


def tone(frequency: float, loud: float = 0.1, seconds: float = 0.2) -> np.ndarray:
    time = np.arange(round(8000 * seconds)) / 8000
    return np.rint(2**15 * loud * np.sin(2 * np.pi * frequency * time)).astype(np.int16)


def speech_like(samples: int = 1200, seed: int = 3) -> np.ndarray:
    """Noise with a random envelope."""
    random = np.random.default_rng(seed)
    loud = np.interp(np.arange(samples), np.linspace(0, samples, 8), random.uniform(0, 6000, 8))
    return (loud * random.standard_normal(samples)).clip(-30_000, 30_000).astype(np.int16)


def counts(cochlea: Cochlea, clip: np.ndarray) -> np.ndarray:
    return np.bincount(cochlea(clip)[1], minlength=cochlea.channels)


def written_out(cochlea: Cochlea, clip: np.ndarray) -> tuple[list[int], list[int]]:
    """The model with filters as rational transfer functions, all channels at once, one step after another."""
    x = clip / 2**15
    x = np.concatenate([[0.0], x[1:] - x[:-1]])
    widths = 1.019 * (24.7 + 0.107939 * cochlea.frequencies())
    radius, angle = np.exp(-2 * np.pi * widths / 8000), 2 * np.pi * cochlea.frequencies() / 8000
    bank = zip(radius, angle, strict=True)
    moved = [2 * signal.lfilter([(1 - r) ** 4], np.poly([r * np.exp(1j * w)] * 4), x).real for r, w in bank]
    ratio = np.abs(moved) / cochlea.knee
    s = cochlea.drive * np.sign(moved) * np.where(ratio > 1, ratio**0.25, ratio)
    dt, cell = 1 / 8000, cochlea.cell
    k = cell.g * np.maximum(s + cell.a, 0) / (np.maximum(s + cell.a, 0) + cell.b) * dt
    quiet = cell.g * cell.a / (cell.a + cell.b)
    pool = np.full(len(s), cell.y / (cell.y + quiet * cell.l / (cell.l + cell.r)))
    into = quiet * pool * dt
    out, back = 1 - np.exp(-(cell.l + cell.r) * dt), 1 - np.exp(-cell.x * dt)
    cleft, store = into / out * (1 - out), into * cell.r / (cell.l + cell.r) / back
    decay = np.exp(-dt / cochlea.tau)
    weight = cochlea.rest * (1 - decay) / into
    membrane, until = np.zeros(len(s)), np.full(len(s), -1)
    times, units = [], []
    for t in range(len(x)):
        given = k[:, t] * pool
        left, returned = out * (cleft + given), back * store
        pool = pool + cell.y * dt * (1 - pool) - given + returned
        cleft, store = cleft + given - left, store + left * cell.r / (cell.l + cell.r) - returned
        awake = t > until
        membrane = np.where(awake, decay * membrane + weight * left, membrane)
        for unit in np.flatnonzero(awake & (membrane >= 1)):
            times.append(t * 125)
            units.append(int(unit))
            membrane[unit], until[unit] = 0, t + round(cochlea.refractory * 8000)
    return times, units


@pytest.mark.parametrize(
    "cochlea",
    [SMALL, replace(SMALL, tau=0.005, rest=0.6, refractory=0.0), replace(SMALL, knee=0.01, drive=300.0, high=3000.0)],
    ids=["plain", "fast", "loud"],
)
def test_spikes_are_those_of_the_equations_written_out(cochlea) -> None:
    clip = speech_like()
    times, units = cochlea(clip)
    assert len(times) > 100
    assert times.dtype == np.int64
    assert units.dtype == np.uint16
    assert (times.tolist(), units.tolist()) == written_out(cochlea, clip)


def test_the_gain_of_a_filter_is_one_at_its_centre_and_half_the_power_at_its_width() -> None:
    for pole, centre in zip(SMALL.poles(), SMALL.frequencies(), strict=True):
        width = -np.log(abs(pole)) * 8000 / (2 * np.pi)
        places = np.array([centre, centre + width * np.sqrt(2 ** (1 / 4) - 1)])
        response = (1 - abs(pole)) ** 4 / (1 - pole * np.exp(-2j * np.pi * places / 8000)) ** 4
        assert abs(response[0]) == pytest.approx(1, abs=1e-9)
        assert abs(response[1]) ** 2 == pytest.approx(0.5, rel=0.02)
    assert -np.log(abs(PLAIN.poles()[0])) * 8000 / (2 * np.pi) == pytest.approx(1.019 * 24.7 * (1 + 4.37 * 0.08))


def test_centres_are_evenly_spaced_places_of_the_membrane() -> None:
    centres = PLAIN.frequencies()
    assert (len(centres), centres[0], centres[-1]) == (700, pytest.approx(80), pytest.approx(3700))
    places = np.log10(centres / 165.4 + 0.88) / 2.1
    assert np.diff(places) == pytest.approx(np.full(699, np.diff(places).mean()))
    assert greenwood(165.4 * 0.12, 20_677, 3)[[0, 2]] == pytest.approx([165.4 * 0.12, 20_677])  # both ends of the ear


def test_a_quiet_tone_excites_the_channels_of_its_frequency() -> None:
    for frequency in (200, 440, 1000, 2500):
        heard = counts(PLAIN, tone(frequency, loud=0.001 * 1000 / frequency))
        assert heard.sum() > 100
        assert (heard > 0).sum() < 70
        assert PLAIN.frequencies()[heard > 0].mean() == pytest.approx(frequency, rel=0.03)


def test_silence_and_a_constant_give_no_spike_and_loudness_gives_more() -> None:
    for value in (0, 900, -20_000):
        times, units = PLAIN(np.full(4000, value, np.int16))
        assert not len(times)
        assert not len(units)
    totals = [counts(SMALL, tone(700, loud)).sum() for loud in (1e-4, 1e-3, 1e-2, 0.1, 0.8)]
    assert totals == sorted(set(totals))


def test_a_later_sample_moves_no_earlier_spike() -> None:
    clip, changed = speech_like(), speech_like()
    changed[700:] = speech_like(seed=4)[700:]
    (times, units), (other, same) = SMALL(clip), SMALL(changed)
    before, there = times < 700 * 125, other < 700 * 125
    assert before.sum() > 50
    assert times[before].tolist() == other[there].tolist()
    assert units[before].tolist() == same[there].tolist()
    assert times.tolist() != other.tolist()


def test_spikes_keep_the_refractory_time_and_the_grid_of_samples() -> None:
    cochlea = replace(SMALL, refractory=0.01)
    times, units = cochlea(speech_like(4000))
    assert not (times % 125).any()
    assert (np.diff(times) >= 0).all()
    gaps = np.concatenate([np.diff(times[units == unit]) for unit in range(35)])
    assert gaps.min() > 10_000  # ten milliseconds without input, then at least one sample with it


def test_threads_do_not_change_the_spikes() -> None:
    clip = speech_like()
    alone = SMALL(clip)
    torch.set_num_threads(3)
    try:
        shared = SMALL(clip)
    finally:
        torch.set_num_threads(1)
    assert all(np.array_equal(one, two) for one, two in zip(alone, shared, strict=True))


def released(displacement: float, steps: int, dt: float = 1 / 8000) -> np.ndarray:
    """(steps, 4): pool, cleft, store, and what has left the cleft, from rest on."""
    state, found = MODULE._rested(CELL, dt), []
    for _ in range(steps):
        *state, left = MODULE._release(displacement, *state, CELL, dt)
        found.append((*state, left))
    return np.array(found)


def test_a_hair_cell_rests_in_silence_and_settles_where_meddis_does() -> None:
    rest = released(0.0, 5)
    assert np.ptp(rest, axis=0) == pytest.approx(np.zeros(4), abs=1e-15)
    for s in (0.0, 50.0, 2000.0):
        k = CELL.g * (s + CELL.a) / (s + CELL.a + CELL.b)
        pool = CELL.y / (CELL.y + k * CELL.l / (CELL.l + CELL.r))  # where all three rates of change are 0
        last = released(s, 40_000)[-1]
        assert last[0] == pytest.approx(pool, rel=1e-6)
        assert last[3] * 8000 == pytest.approx(k * pool, rel=1e-6)
    assert CELL.at_rest() == pytest.approx((rest[0, 0], rest[0, 3] * 8000))


def test_transmitter_is_only_made_and_lost_where_the_equations_say() -> None:
    found = released(300.0, 50)
    before = np.vstack([[*MODULE._rested(CELL, 1 / 8000), 0], found[:-1]])
    made = CELL.y / 8000 * (1 - before[:, 0])
    lost = found[:, 3] * CELL.l / (CELL.l + CELL.r)
    change = found[:, :3].sum(1) - before[:, :3].sum(1)
    assert change == pytest.approx(made - lost, abs=1e-15)
    shut = released(-CELL.a - 1, 20)
    assert shut[1:, 3] / shut[:-1, 3] == pytest.approx(np.exp(-(CELL.l + CELL.r) / 8000))  # nothing enters the cleft


def test_release_adapts_after_an_onset() -> None:
    left = released(300.0, 400)[:, 3]
    assert left.argmax() < 0.002 * 8000
    assert left.max() > 3 * left[-1]


def test_a_membrane_that_rests_nearer_to_the_threshold_fires_more() -> None:
    assert counts(replace(SMALL, rest=0.999), np.zeros(4000, np.int16)).sum() == 0
    totals = [counts(replace(SMALL, rest=rest), tone(700, 1e-3)).sum() for rest in (0.0, 0.5, 0.9, 0.99)]
    assert totals == sorted(set(totals))
    assert totals[0] == 0  # transmitter has no weight


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"low": 0.0}, r"low must be above 0 and below high, 3700\.0 Hz, got 0\.0"),
        ({"low": 4000.0}, r"low must be above 0 and below high, 3700\.0 Hz, got 4000\.0"),
        ({"high": 4000.0}, r"high must be below half the rate, 4000\.0 Hz, got 4000\.0"),
        ({"rate": 1000}, "rate must be at least 4000 Hz, got 1000"),
        ({"knee": 0.0}, r"knee must be above 0, got 0\.0"),
        ({"drive": -1.0}, r"drive must be above 0, got -1\.0"),
        ({"rest": 1.0}, r"rest must be in \[0, 1\), got 1\.0"),
        ({"tau": 0.0}, r"tau must be above 0, got 0\.0"),
        ({"refractory": -0.1}, r"refractory must be at least 0, got -0\.1"),
    ],
)
def test_a_value_out_of_range_is_refused(options, message) -> None:
    with pytest.raises(ValueError, match=f"Cochlea: {message}"):
        Cochlea(**options)
