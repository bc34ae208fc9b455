"""Measures of spike trains and membranes, each against a slow statement in plain Python and against known cases."""

import math
import time
from functools import cache
from itertools import product

import pytest
import torch

from sdn.scoring import measures
from sdn.scoring.measures import (
    coincidence_factor,
    count_explained_variance,
    error_over_time,
    explained_variance,
    interval_distance,
    interval_statistics,
    intervals,
    match_spikes,
    roc_auc,
    spike_scores,
    time_error,
    tolerant_f1,
)  # fmt: skip

NOTHING = torch.zeros(2, 40, dtype=torch.bool)
SHAPES = [(1, 1), (1, 30), (3, 17), (5, 64)]


def drawn(shape, rate=0.3, wrong=0.15):
    """Two trains of which the first is the second with some of its steps drawn again."""
    true = torch.rand(shape) < rate
    again = torch.rand(shape) < wrong
    return torch.where(again, torch.rand(shape) < rate, true), true


def train(length, *times):
    spikes = torch.zeros(1, length, dtype=torch.bool)
    spikes[0, list(times)] = True
    return spikes


def same(found, expected):
    return (math.isnan(found) and math.isnan(expected)) or found == pytest.approx(expected, rel=1e-12, abs=1e-12)


def ratio(part, whole):
    return part / whole if whole else float("nan")


def variance(values):
    mean = math.fsum(values) / len(values)
    return math.fsum((v - mean) ** 2 for v in values) / len(values)


def slow_scores(predicted, true):
    pairs = list(zip(predicted.flatten().tolist(), true.flatten().tolist(), strict=True))
    hit = sum(p and t for p, t in pairs)
    miss, false = sum(t and not p for p, t in pairs), sum(p and not t for p, t in pairs)
    right = sum(p == t for p, t in pairs) / len(pairs)
    return right, ratio(hit, hit + false), ratio(hit, hit + miss), ratio(2 * hit, 2 * hit + miss + false)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.int64])
def test_scores_are_the_shares_counted_one_by_one(shape, dtype):
    for _ in range(5):
        predicted, true = drawn(shape)
        found = spike_scores(predicted.to(dtype), true.to(dtype))
        assert all(same(a, b) for a, b in zip(found, slow_scores(predicted, true), strict=True))


def slow_auc(score, true):
    """Every step with a spike against every one without."""
    both = list(zip(score.flatten().tolist(), true.flatten().tolist(), strict=True))
    spikes, silences = [s for s, t in both if t], [s for s, t in both if not t]
    wins = sum((a > b) + 0.5 * (a == b) for a, b in product(spikes, silences))
    return ratio(wins, len(spikes) * len(silences))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("digits", [0, 1, 7], ids=lambda n: f"{n} digits")
def test_roc_auc_is_the_share_of_pairs_in_order_with_ties_as_halves(shape, digits):
    for _ in range(5):
        true = torch.rand(shape) < 0.3
        score = torch.round(torch.randn(shape) + true, decimals=digits)
        assert same(roc_auc(score, true), slow_auc(score, true))


def test_roc_auc_of_known_cases():
    true = train(6, 1, 4)
    assert roc_auc(true.float(), true) == 1.0
    assert roc_auc(-true.float(), true) == 0.0
    assert roc_auc(torch.full((1, 6), 3.0), true) == 0.5
    infinite = torch.tensor([[0.0, math.inf, -math.inf, -0.0, 1.0, 0.5]])
    assert roc_auc(infinite, true) == 1.0
    assert math.isnan(roc_auc(torch.randn(2, 40), NOTHING))
    assert math.isnan(roc_auc(torch.randn(2, 40), ~NOTHING))
    assert math.isnan(roc_auc(torch.tensor([[0.0, math.nan]]), train(2, 1)))


def test_roc_auc_of_normal_scores_is_known_and_a_million_steps_take_less_than_a_second():
    """Spikes shifted by d standard deviations: AUC = Phi(d / sqrt 2)."""
    true = torch.rand(1000, 1000) < 0.2
    score = torch.randn(1000, 1000) + true
    start = time.process_time()
    found = roc_auc(score, true)
    assert time.process_time() - start < 1
    assert found == pytest.approx(0.5 * (1 + math.erf(0.5)), abs=3e-3)


def test_roc_auc_does_not_depend_on_a_growing_function_of_the_score():
    true = torch.rand(4, 100) < 0.3
    score = (torch.randn(4, 100) + true).double()
    assert roc_auc(score, true) == roc_auc(score.exp() * 3 - 1, true)


@pytest.mark.parametrize("shape", [(1, 2), (3, 17), (20, 50)], ids=str)
def test_explained_variance_is_its_formula(shape):
    true = torch.randn(shape) + 5
    predicted = true + 0.3 * torch.randn(shape) + 0.1
    error = [
        t - p for t, p in zip(true.double().flatten().tolist(), predicted.double().flatten().tolist(), strict=True)
    ]
    expected = 1 - variance(error) / variance(true.double().flatten().tolist())
    assert explained_variance(predicted, true) == pytest.approx(expected, rel=1e-9)


def test_explained_variance_of_known_cases():
    true = torch.randn(20, 500)
    assert explained_variance(true, true) == 1.0
    assert explained_variance(true + 7, true) == pytest.approx(1.0, abs=1e-10)
    assert explained_variance(torch.full_like(true, 2.0), true) == pytest.approx(0.0, abs=1e-12)
    assert explained_variance(-true, true) == pytest.approx(-3.0)
    assert explained_variance(0.5 * true, true) == pytest.approx(0.75)
    assert math.isnan(explained_variance(true, torch.full_like(true, 0.1)))
    assert math.isnan(explained_variance(true / 0 * 0, true))
    assert explained_variance(true + 1e6, true + 1e6) == 1.0


def slow_counts(row, n):
    return [sum(row[i : i + n]) for i in range(0, len(row) - n + 1, n)]


def slow_count_variance(predicted, true, n):
    shared = whole = 0.0
    for p_row, q_row in zip(predicted.tolist(), true.tolist(), strict=True):
        p, q = slow_counts(p_row, n), slow_counts(q_row, n)
        if len(p) < 2:
            return float("nan")
        apart = [a - b for a, b in zip(p, q, strict=True)]
        shared += variance(p) + variance(q) - variance(apart)
        whole += variance(p) + variance(q)
    return ratio(shared, whole)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_count_explained_variance_is_its_formula_in_complete_bins(shape):
    predicted, true = drawn(shape)
    found = count_explained_variance(predicted, true, (1, 2, 5, 10, 20))
    assert list(found) == [1, 2, 5, 10, 20]
    for n, value in found.items():
        assert same(value, slow_count_variance(predicted, true, n)), n


def test_count_explained_variance_of_known_cases():
    true = torch.rand(50, 1000) < 0.2
    assert count_explained_variance(true, true) == dict.fromkeys((1, 5, 10, 20), 1.0)
    assert count_explained_variance(~true, true, (1,))[1] == pytest.approx(-1.0)
    independent = count_explained_variance(torch.rand(50, 1000) < 0.2, true)
    assert all(abs(value) < 0.05 for value in independent.values())
    shifted = count_explained_variance(true.roll(1, 1), true)
    assert abs(shifted[1]) < 0.02
    assert shifted[20] == pytest.approx(0.95, abs=0.02)  # 19 of 20 steps of a bin are shared
    assert all(math.isnan(value) for value in count_explained_variance(NOTHING, NOTHING).values())
    assert count_explained_variance(NOTHING, train(40, 3).expand(2, 40), (1,)) == {1: 0.0}


def slow_match(a, b, tolerance):
    """Every way of pairing, crossing or not: the most pairs, and the least distance among those."""

    @cache
    def best(i, free):
        if i == len(a):
            return 0, 0
        ways = [best(i + 1, free)]
        for j in free:
            if abs(a[i] - b[j]) <= tolerance:
                pairs, minus = best(i + 1, free - {j})
                ways.append((pairs + 1, minus - abs(a[i] - b[j])))
        return max(ways)

    pairs, minus = best(0, frozenset(range(len(b))))
    return pairs, -minus


def times(row):
    return tuple(row.nonzero().flatten().tolist())


@pytest.mark.parametrize("tolerance", [0, 1, 2, 5, 30])
def test_matching_is_the_best_of_all_ways_of_pairing(tolerance):
    """Also rows side by side: none takes a partner from another."""
    for rate in (0.1, 0.3, 0.6):
        predicted, true = torch.rand(40, 12) < rate, torch.rand(40, 12) < rate
        found = match_spikes(predicted, true, tolerance)
        for i in range(40):
            expected = slow_match(times(predicted[i]), times(true[i]), tolerance)
            assert (int(found.pairs[i]), int(found.distance[i])) == expected, (predicted[i], true[i])
        assert torch.equal(found.predicted, predicted.sum(1))
        assert torch.equal(found.true, true.sum(1))


def greedy_pairs(a, b, tolerance):
    """The earliest partner that is free, which is known to give as many pairs as can be."""
    i = j = pairs = 0
    while i < len(a) and j < len(b):
        if abs(a[i] - b[j]) <= tolerance:
            i, j, pairs = i + 1, j + 1, pairs + 1
        elif a[i] < b[j]:
            i += 1
        else:
            j += 1
    return pairs


@pytest.mark.parametrize("tolerance", [0, 1, 3])
def test_long_trains_have_as_many_pairs_as_the_greedy_way_and_no_greater_distance(tolerance):
    predicted, true = drawn((3, 3000))
    found = match_spikes(predicted, true, tolerance)
    for i in range(3):
        assert int(found.pairs[i]) == greedy_pairs(times(predicted[i]), times(true[i]), tolerance)
    swapped = match_spikes(true, predicted, tolerance)
    assert torch.equal(swapped.pairs, found.pairs)
    assert torch.equal(swapped.distance, found.distance)


def test_one_spike_too_many_moves_no_other():
    true, predicted = train(20, 5, 7, 9, 11), train(20, 4, 5, 7, 9, 11)
    assert match_spikes(predicted, true, 2)[:2] == (torch.tensor([4]), torch.tensor([0]))
    assert time_error(predicted, true, 2) == 0.0
    assert tolerant_f1(predicted, true, 2) == pytest.approx(8 / 9)


def test_no_spike_is_matched_twice():
    assert match_spikes(train(9, 4), train(9, 3, 5), 1).pairs.tolist() == [1]
    assert tolerant_f1(train(9, 4), train(9, 3, 5), 1) == pytest.approx(2 / 3)
    assert match_spikes(train(9, 3, 4), train(9, 4, 5), 1)[:2] == (torch.tensor([2]), torch.tensor([2]))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_without_tolerance_f1_is_that_of_the_scores(shape):
    predicted, true = drawn(shape)
    assert same(tolerant_f1(predicted, true, 0), spike_scores(predicted, true).f1)
    wider = [tolerant_f1(predicted, true, d) for d in range(5)]
    assert wider == sorted(wider) or math.isnan(wider[0])


def test_a_shifted_train_has_its_shift_as_time_error():
    true = train(200, *range(10, 180, 10))
    for shift in (1, 2, 4):
        moved = true.roll(shift, 1)
        assert time_error(moved, true, 4) == shift
        assert tolerant_f1(moved, true, shift) == 1.0
        assert tolerant_f1(moved, true, shift - 1) == 0.0
        assert math.isnan(time_error(moved, true, shift - 1))
    assert math.isnan(tolerant_f1(NOTHING, NOTHING, 1))
    assert math.isnan(time_error(NOTHING, NOTHING, 1))


def slow_gamma(predicted, true, tolerance):
    a, b, length = times(predicted), times(true), len(true)
    window, rate = 2 * tolerance + 1, len(a) / length
    if (not a and not b) or window * rate >= 1:
        return float("nan")
    by_chance = window * rate * len(b)
    return (greedy_pairs(a, b, tolerance) - by_chance) / (0.5 * (len(a) + len(b))) / (1 - window * rate)


@pytest.mark.parametrize("tolerance", [0, 1, 2])
def test_the_coincidence_factor_is_its_formula(tolerance):
    predicted, true = drawn((30, 200), rate=0.1)
    predicted[0], true[1], predicted[2], true[2], predicted[3] = False, False, False, False, True
    found = coincidence_factor(predicted, true, tolerance)
    assert found.dtype == torch.float64
    for i in range(30):
        assert same(float(found[i]), slow_gamma(predicted[i], true[i], tolerance)), i
    assert found.isnan().nonzero().flatten().tolist() == [2, 3]
    assert found[0] == 0
    assert found[1] == 0
    assert found.nan_to_num().max() <= 1


def test_the_coincidence_factor_of_known_cases():
    true = torch.rand(200, 1000) < 0.05
    assert torch.allclose(coincidence_factor(true, true, 2), torch.ones(200).double())
    other = torch.rand(200, 1000) < 0.05
    for tolerance, expected in enumerate((0.0, -0.01, -0.05)):
        assert float(coincidence_factor(other, true, tolerance).mean()) == pytest.approx(expected, abs=0.012)
    true, other = torch.rand(200, 1000) < 0.15, torch.rand(200, 1000) < 0.15
    for tolerance, expected in enumerate((0.0, -0.2, -1.2)):
        assert float(coincidence_factor(other, true, tolerance).nanmean()) == pytest.approx(expected, abs=0.1)
    assert coincidence_factor(train(100, 50), train(100, 10), 2) == pytest.approx(-0.05 / 0.95)


def slow_intervals(spikes):
    return [b - a for row in spikes for a, b in zip(times(row), times(row)[1:], strict=False)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_intervals_are_those_inside_rows(shape):
    for _ in range(5):
        predicted, true = drawn(shape)
        expected = slow_intervals(true)
        assert intervals(true).tolist() == expected
        found = interval_statistics(true)
        assert found.number == len(expected)
        assert same(found.mean, ratio(sum(expected), len(expected)))
        assert same(found.cv, math.sqrt(variance(expected)) / found.mean if len(expected) > 1 else float("nan"))
        assert same(interval_distance(predicted, true), slow_ks(slow_intervals(predicted), expected))


def slow_ks(a, b):
    if not a or not b:
        return float("nan")
    return max(abs(sum(x <= t for x in a) / len(a) - sum(x <= t for x in b) / len(b)) for t in {*a, *b})


def test_intervals_of_known_cases():
    clock = train(100, *range(3, 100, 8))
    assert interval_statistics(clock) == (12, 8.0, 0.0)
    assert interval_distance(clock, train(100, *range(0, 100, 8))) == 0.0
    assert interval_distance(clock, train(100, *range(0, 100, 9))) == 1.0
    random = interval_statistics(torch.rand(50, 20_000) < 0.1)  # geometric: mean 1/p, cv sqrt(1 - p)
    assert random.mean == pytest.approx(10, rel=0.02)
    assert random.cv == pytest.approx(math.sqrt(0.9), rel=0.02)
    one = interval_statistics(train(9, 2, 5))
    assert one[:2] == (1, 3.0)
    assert math.isnan(one.cv)
    assert interval_statistics(NOTHING).number == 0
    assert math.isnan(interval_statistics(NOTHING).mean)
    assert math.isnan(interval_distance(clock, train(100, 5)))
    assert intervals(NOTHING).shape == (0,)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("window", [1, 4, 100])
def test_error_over_time_is_the_share_of_wrong_steps_in_each_window(shape, window):
    predicted, true = drawn(shape)
    found = error_over_time(predicted, true, window).tolist()
    assert len(found) == math.ceil(shape[1] / window)
    for i, value in enumerate(found):
        steps = range(i * window, min(shape[1], (i + 1) * window))
        wrong = [abs(float(true[n, t]) - float(predicted[n, t])) for n in range(shape[0]) for t in steps]
        assert value == pytest.approx(sum(wrong) / len(wrong))
    assert sum(found) / len(found) == pytest.approx(1 - spike_scores(predicted, true).agreement) or shape[1] % window


def test_what_nothing_can_be_said_about_is_nan():
    some = train(40, 3, 9).expand(2, 40)
    assert spike_scores(some, some) == (1.0, 1.0, 1.0, 1.0)
    assert [math.isnan(v) for v in spike_scores(NOTHING, NOTHING)] == [False, True, True, True]
    assert [math.isnan(v) for v in spike_scores(NOTHING, some)] == [False, True, False, False]
    assert [math.isnan(v) for v in spike_scores(some, NOTHING)] == [False, False, True, False]
    assert tolerant_f1(NOTHING, some, 1) == 0.0
    assert error_over_time(NOTHING, NOTHING, 20).tolist() == [0.0, 0.0]


OF_TWO_TRAINS = {
    "spike_scores": (), "roc_auc": (), "explained_variance": (), "count_explained_variance": (),
    "coincidence_factor": (1,), "tolerant_f1": (1,), "time_error": (1,), "match_spikes": (1,),
    "interval_distance": (), "error_over_time": (5,),
}  # fmt: skip
OF_ONE = {"intervals", "interval_statistics"}


def test_every_measure_is_in_the_list_of_this_file():
    assert {name for name in measures.__all__ if name[0].islower()} == {*OF_TWO_TRAINS} | OF_ONE


@pytest.mark.parametrize("name", OF_TWO_TRAINS)
def test_two_shapes_are_refused(name):
    measure, more = getattr(measures, name), OF_TWO_TRAINS[name]
    with pytest.raises(
        ValueError, match=r"expected \(N, L\) of one shape, got \(2, 40\) and \(2, 39\)|.*\(2, 39\) and"
    ):
        measure(NOTHING, NOTHING[:, 1:], *more)
    for shape in ((40,), (2, 4, 5), (0, 40), (2, 0)):
        spikes = torch.zeros(shape, dtype=torch.bool)
        with pytest.raises(ValueError, match=r"expected \(N, L\) of one shape, got \(.*; use reshape\(-1, L\)"):
            measure(spikes, spikes, *more)


@pytest.mark.parametrize("name", [n for n in OF_TWO_TRAINS if n not in ("roc_auc", "explained_variance")])
def test_what_is_no_spike_is_refused(name):
    measure, more = getattr(measures, name), OF_TWO_TRAINS[name]
    for odd in (0.5, 2.0, -1.0, math.nan):
        spikes = NOTHING.float()
        spikes[1, 3] = odd
        with pytest.raises(ValueError, match=rf"spikes must be 0 or 1, got {odd:g}; give booleans"):
            measure(spikes, NOTHING, *more)
        with pytest.raises(ValueError, match="spikes must be 0 or 1"):
            measure(NOTHING, spikes, *more)


@pytest.mark.parametrize("value", [-1, 1.5, True, "2"])
def test_steps_that_are_none_are_refused(value):
    for name in ("coincidence_factor", "tolerant_f1", "time_error", "match_spikes"):
        with pytest.raises(ValueError, match=r"tolerance must be a whole number of steps, at least 0, got"):
            getattr(measures, name)(NOTHING, NOTHING, value)
    with pytest.raises(ValueError, match=r"window must be a whole number of steps, at least 1, got"):
        error_over_time(NOTHING, NOTHING, value)
    with pytest.raises(ValueError, match=r"a bin must be a whole number of steps, at least 1, got"):
        count_explained_variance(NOTHING, NOTHING, (value,))
