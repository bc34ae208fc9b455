"""Augmentation of spike trains against plain loops and against the laws it must follow."""

import numpy as np
import pytest
from scipy.stats import norm

from spikingssm.datasets import augment
from spikingssm.datasets.augment import channel_shift, cutmix, expected_dropped, generator, time_jitter, window


def events(count: int = 20_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return np.sort(random.integers(0, 1_000_000, count)), random.integers(0, 700, count)


def spikes(batch: int = 6, steps: int = 40, channels: int = 7, density: float = 0.2, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((batch, steps, channels)) < density).astype(np.uint8)


def test_jitter_is_gaussian_rounded_toward_zero_and_keeps_units() -> None:
    times, units = events()
    times[:4000] %= 50
    moved, kept = time_jitter(times, units, 100.0, generator(1, 2, 0, 3))
    noise = generator(1, 2, 0, 3).standard_normal(len(times), dtype=np.float32) * np.float32(100)
    noise = noise.tolist()  # exact from here on
    wanted = [(int(t + n), u) for t, n, u in zip(times.tolist(), noise, units.tolist(), strict=True) if int(t + n) >= 0]
    assert list(zip(moved.tolist(), kept.tolist(), strict=True)) == wanted
    assert (len(moved) < len(times), moved.min()) == (True, 0)
    late, none = np.full(20_000, 1_400_000, np.int32), np.zeros(20_000, np.uint16)
    shift = time_jitter(late, none, 100.0, generator(0, 0, 0, 0))[0] - 1_400_000
    assert 97 < shift.std() < 103  # sd of the estimate: 0.5
    assert abs(shift.mean() + 0.5) < 3  # rounded down on average by 0.5; sd of the mean: 0.7


def test_what_jitter_drops_on_average_is_what_is_said() -> None:
    times = np.repeat([0, 0, 3, 40, 150, 5000], 40)
    units = np.arange(len(times))
    said = expected_dropped(times, 100.0)
    dropped = [len(times) - len(time_jitter(times, units, 100.0, generator(0, 0, 0, n))[0]) for n in range(400)]
    assert abs(np.mean(dropped) - said) < 4 * np.std(dropped) / 20
    by_hand = 40 * sum(norm.cdf(-(t + 1) / 100) for t in (0, 0, 3, 40, 150, 5000))
    assert said == pytest.approx(by_hand, rel=1e-12)
    assert expected_dropped(times[-40:], 100.0) == 0
    assert expected_dropped(times[:0], 100.0) == 0
    assert [len(part) for part in time_jitter(times[:0], units[:0], 100.0, generator(0, 0, 0, 0))] == [0, 0]


@pytest.mark.parametrize("how", ["batch", "sample"])
def test_shift_moves_channels_in_a_circle(how) -> None:
    x = spikes()
    counts = np.zeros(3)
    for epoch in range(400):
        moved = channel_shift(x, how, 5, epoch, list(range(6)))
        steps = []
        for before, after in zip(x, moved, strict=True):
            fits = [s for s in (-1, 0, 1) if all((after[:, (c + s) % 7] == before[:, c]).all() for c in range(7))]
            assert len(fits) == 1
            steps += fits
        assert how == "sample" or len(set(steps)) == 1
        for step in steps if how == "sample" else steps[:1]:
            counts[step + 1] += 1
    assert np.abs(counts / counts.sum() - [0.2, 0.6, 0.2]).max() < 0.07  # 3 sd of 400 draws
    assert channel_shift(x, "none", 5, 0, list(range(6))) is x


def test_a_sample_is_shifted_alike_in_every_batch_and_otherwise_in_other_epochs() -> None:
    x, rows = spikes(), [11, 4, 9, 30, 2, 7]
    order = [3, 0, 5, 1, 4, 2]
    moved = channel_shift(x, "sample", 1, 8, rows)
    assert (moved != x).any()
    again = channel_shift(x[order], "sample", 1, 8, [rows[i] for i in order])
    np.testing.assert_array_equal(again, moved[order])
    for place, row in enumerate(rows):
        np.testing.assert_array_equal(channel_shift(x[[place]], "sample", 1, 8, [row])[0], moved[place])
    assert any((channel_shift(x, "sample", 1, epoch, rows) != moved).any() for epoch in range(4))


@pytest.mark.parametrize("how", ["published", "corrected"])
def test_cutmix_pastes_one_window_and_weighs_labels_by_spikes(how) -> None:
    for seed in range(40):
        x = spikes(seed=seed)
        before = x.copy()
        mix = cutmix(x, how, generator(seed, 0, 2))
        first, end = mix.window
        assert sorted(mix.partner) == list(range(6))
        for row in range(6):
            own = pasted = 0
            for step in range(40):
                source = mix.partner[row] if first <= step < end else row
                assert (mix.x[row, step] == before[source, step]).all()
                count = int(before[source, step].sum())
                own, pasted = (own, pasted + count) if first <= step < end else (own + count, pasted)
            assert mix.weight[row] == pytest.approx(own / (own + pasted))
        np.testing.assert_array_equal(x, before)


def test_windows_are_those_of_the_formulas() -> None:
    for steps in (1, 7, 250):
        for centre in range(0, steps, 1 + steps // 9):
            for width in range(0, steps + 1, 1 + steps // 11):
                for how in ("published", "corrected"):
                    middle = centre / 2 if how == "published" else centre
                    wanted = [min(steps, max(0, int(np.floor(middle + side * width / 2)))) for side in (-1, 1)]
                    assert list(window(how, centre, width, steps)) == wanted
    assert window("corrected", 100, 41, 250) == (79, 120)
    assert window("published", 100, 41, 250) == (29, 70)
    every = [(centre, width) for centre in range(250) for width in range(251)]
    assert {how: max(window(how, *drawn, 250)[1] for drawn in every) for how in ("published", "corrected")} == {
        "published": 249,  # the last step is never replaced
        "corrected": 250,
    }


def test_the_centre_and_width_of_windows_are_uniform(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(augment, "window", lambda *given: (asked.append(given), window(*given))[1])
    for seed in range(800):
        cutmix(spikes(2, 40, density=0.9), "published", generator(seed, 0, 2))
    _, centres, widths, _ = zip(*asked, strict=True)
    for drawn in (centres, widths):
        assert set(drawn) == set(range(40))
        assert abs(np.mean(drawn) - 19.5) < 1.7  # 4 sd of the mean of 800


def test_a_mix_that_empties_a_sequence_is_drawn_again_and_at_last_left_out() -> None:
    sparse = np.zeros((3, 40, 4), np.uint8)
    sparse[0, 2], sparse[1, 20], sparse[2, 38] = 1, 1, 1  # one step each: most windows empty one
    windows = set()
    for seed in range(30):
        mix = cutmix(sparse, "published", generator(seed, 0, 2))
        assert mix.x.any((1, 2)).all()
        assert np.isfinite(mix.weight).all()
        windows.add(mix.window)
    assert len(windows) > 3
    empty = sparse.copy()
    empty[1] = 0  # no mix gives all three a spike but with the whole sequence pasted, and then one has none
    mix = cutmix(empty, "corrected", generator(0, 0, 2))
    np.testing.assert_array_equal(mix.x, empty)
    assert (mix.partner.tolist(), mix.weight.tolist(), mix.window) == ([0, 1, 2], [1, 1, 1], (0, 0))
    none = cutmix(sparse, "none", generator(0, 0, 2))
    assert none.x is sparse


def test_streams_do_not_share_their_draws() -> None:
    keys = [(0, 0, 0, 1), (0, 0, 1, 1), (0, 1, 0, 1), (1, 0, 0, 1), (0, 0, 0, 2), (0, 0, 1, 1, 2), (0, 0, 1, 2, 1)]
    drawn = [generator(*key).integers(2**60) for key in keys]
    assert len(set(drawn)) == len(keys)
    assert generator(*keys[0]).integers(2**60) == drawn[0]
