"""A resampler of blocks is the one of scipy over the whole, and keeps little."""

import math

import numpy as np
import pytest
from scipy.signal import resample_poly

from spikingssm.datasets.resampling import Resampler


def parts(x, size):
    return [x[at : at + size] for at in range(0, len(x), size)]


@pytest.mark.parametrize("size", [1, 7, 1000, 5000])
@pytest.mark.parametrize(("given", "wanted"), [(44_100, 16_000), (8_000, 16_000), (2, 1), (22_050, 8_000), (8, 8)])
def test_blocks_are_the_whole_bit_for_bit(given, wanted, size):
    x = np.random.default_rng(0).standard_normal(700 if size < 10 else 3301)
    common = math.gcd(given, wanted)
    whole = resample_poly(x, wanted // common, given // common)
    resampler = Resampler(given, wanted)
    found = [resampler(part) for part in parts(x, size)]
    found.append(resampler(np.zeros(0), last=True))
    np.testing.assert_array_equal(np.concatenate(found), whole)


def test_an_output_comes_as_soon_as_its_samples_are_there():
    resampler = Resampler(48_000, 16_000)
    made = sum(len(resampler(part)) for part in parts(np.ones(3000), 10))
    assert 1000 - 11 <= made <= 1000 - 9  # the filter reaches 10 samples of 16 kHz ahead


def test_what_is_kept_does_not_grow():
    resampler = Resampler(44_100, 16_000)
    kept = []
    for _ in range(50):
        resampler(np.ones(999))
        kept.append(len(resampler._kept))
    assert max(kept) < 2 * 441


def test_rates_below_one_are_refused():
    with pytest.raises(ValueError, match="rates must be at least 1 Hz, got 0 and 8000"):
        Resampler(0, 8000)
