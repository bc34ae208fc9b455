"""Binning against a loop over events, and what it loses."""

import numpy as np
import pytest

from spikingssm.datasets.binning import Binning
from spikingssm.datasets.heidelberg import Recordings

FIXED = {"bins": "fixed", "bin_ms": 10.0}
BINNINGS = pytest.mark.parametrize(
    "options",
    [
        {},
        {"steps": 7, "channels": 1},
        {"steps": 90, "channels": 700, "binary": False},
        FIXED,
        FIXED | {"steps": 30, "binary": False},
        {"bins": "fixed", "bin_ms": 0.037, "steps": 11, "channels": 7},
        {"bins": "brf", "channels": 700},
        {"bins": "brf", "channels": 7, "steps": 90, "binary": False},
    ],
    ids=str,
)


def draw(sizes, seed: int = 0, speakers: int = 5, end: int = 900_000) -> Recordings:
    random = np.random.default_rng(seed)
    times = [np.sort(random.integers(0, random.integers(1, end + 1), n)) for n in sizes]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    units = random.integers(0, 700, starts[-1]).astype(np.uint16)
    labels = np.arange(len(sizes)) % 4
    return Recordings(
        np.concatenate(times), units, starts, labels, np.arange(len(sizes)) % max(1, speakers) - (not speakers)
    )


def by_loop(binning: Binning, times, units) -> tuple[np.ndarray, int]:
    """Counts in bins, and events in none, one event at a time."""
    counts, lost = np.zeros((binning.length, binning.channels), int), 0
    for t, u in zip(times, units, strict=True):
        if binning.bins == "brf":
            of = [j for j in range(binning.length) if 4 * (j - 1) < t / 1000 <= 4 * j]
            if of and u > 0:
                counts[of[0], (700 - u) // (700 // binning.channels)] += 1
            lost += not (of and u > 0)
            continue
        if binning.bins == "fixed":
            first, width = 0, round(binning.bin_ms * 1000)
        else:
            first, width = min(times), (max(times) - min(times)) // binning.length or 1
        group = int(u / (700 / binning.channels) + 1e-9)
        for j in range(binning.length):
            if first + j * width <= t < first + (j + 1) * width:
                counts[j, group] += 1
                break
        else:
            lost += 1
    return counts, lost


@BINNINGS
def test_bins_are_those_of_a_loop_over_events_and_none_is_lost_unsaid(options) -> None:
    binning = Binning(**options)
    recordings = draw([0, 1, 2, 60, 150], seed=3)
    recordings.units[::20] = 0
    for row in range(5):
        part = slice(recordings.starts[row], recordings.starts[row + 1])
        times, units = recordings.times[part], recordings.units[part]
        counts, lost = by_loop(binning, times.tolist(), units.tolist())
        found = binning.frame(times, units)
        np.testing.assert_array_equal(found, (counts > 0) if binning.binary else counts)
        assert binning.lost(times, units) == lost
        assert counts.sum() + lost == len(times)
        mixed = np.random.default_rng(0).permutation(len(times))
        np.testing.assert_array_equal(binning.frame(times[mixed], units[mixed]), found)


def test_published_bins_lose_the_last_event_and_at_most_249_microseconds() -> None:
    binning = Binning(binary=False)
    times = np.arange(1000, 1000 + 250 * 40 + 249)  # one event a microsecond; w = 40
    found = binning.frame(times, np.zeros(len(times), int))
    assert found[:, 0].tolist() == [40] * 250
    assert binning.lost(times) == 249
    exact = np.arange(0, 250 * 40 + 1)  # the bins end at the last event
    assert binning.lost(exact) == 1


def test_a_recording_shorter_than_the_bins_loses_nothing() -> None:
    binning = Binning(binary=False)
    for span in (0, 1, 248, 249):
        times = np.array([77, 77 + span])
        found = binning.frame(times, np.array([3, 699]))
        assert found.sum() == 2
        assert found[0, 0] == 1
        assert found[span, 139] == 1
        assert binning.lost(times) == 0


def test_five_neighbouring_channels_are_one_as_published() -> None:
    for unit in range(700):
        found = Binning().frame(np.array([5]), np.array([unit]))
        assert found[0].nonzero()[0].tolist() == [int(np.floor(0.2 * unit))]


def test_brf_bins_hold_their_end_and_turn_the_channels_round() -> None:
    """(microseconds, unit) -> (bin, channel), or None for what is lost."""
    binning = Binning(700, "brf", binary=False)
    where = {
        (0, 5): (0, 695), (1, 1): (1, 699), (4000, 699): (1, 1), (4001, 350): (2, 350), (995_999, 2): (249, 698),
        (996_000, 2): (249, 698), (996_001, 2): None, (1_400_000, 9): None, (0, 0): None, (500_000, 0): None,
    }  # fmt: skip
    for (time, unit), expected in where.items():
        event = np.array([time]), np.array([unit], np.uint16)
        found = binning.frame(*event)
        assert found.shape == (250, 700)
        assert [tuple(map(int, at)) for at in np.argwhere(found)] == ([expected] if expected else [])
        assert binning.lost(*event) == (expected is None)
    assert binning.valid(np.array([1])) is None


def test_fixed_bins_reach_1400_ms_and_end_with_the_last_event() -> None:
    assert [Binning(bins="fixed", bin_ms=ms).length for ms in (4, 10, 300)] == [350, 140, 5]
    assert Binning().length == 250
    assert Binning(**FIXED).valid(np.array([0, 9_999, 10_000, 1_399_999, 5_000_000])).tolist() == [1, 1, 2, 140, 140]
    assert Binning().valid(np.array([1])) is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"channels": 141}, "must divide 700: one of 1, 2, 4, 5, 7, 10, .* 350, 700; got 141"),
        ({"channels": 0}, "must divide 700"),
        ({"bins": "log"}, "one of published, fixed, brf, got log"),
        ({"bin_ms": 10.0}, r"bin_ms=10 is for data.bins=fixed; published bins find their own width"),
        ({"bin_ms": 10.0, "bins": "brf"}, r"bin_ms=10 is for data.bins=fixed; brf bins are 4 ms wide"),
        ({"steps": 2.5}, r"whole number >= 1, .*got 2.5"),
        ({"bin_ms": 0.0}, r"at least 0.001 ms, got 0.0"),
        ({"bin_ms": 0.0015}, r"whole microseconds, .* got 0.0015"),
        ({"steps": 0}, "whole number >= 1, or null for the default, got 0"),
    ],
)
def test_options_of_bins_out_of_range(options, says) -> None:
    with pytest.raises(ValueError, match=says):
        Binning(**options)


def test_counts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a bin holds 70000 events; set data.binary=true"):
        Binning(binary=False).frame(np.zeros(70_000, int), np.zeros(70_000, int))
