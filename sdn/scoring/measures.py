"""How near one spike train or membrane is to another, in the measures that neuroscience uses.

All tensors are (N, L): a row is a neuron or a trial, a column a step. ``predicted`` and ``true`` are spikes, booleans
or numbers that are 0 or 1. Other numbers, and other shapes than one (N, L), are a ValueError. What cannot be said is
NaN, never 0 or 1: a score of spikes where there are none, a part of a variance that is 0, a mean over nothing.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Intervals", "Matches", "Scores", "coincidence_factor", "count_explained_variance", "error_over_time",
    "explained_variance", "interval_distance", "interval_statistics", "intervals", "match_spikes", "roc_auc",
    "spike_scores", "time_error", "tolerant_f1",
]  # fmt: skip

NAN = float("nan")


class Scores(NamedTuple):
    """Shares in [0, 1]: steps that are right, predicted spikes that are true, true ones predicted, and their F1."""

    agreement: float
    precision: float
    recall: float
    f1: float


class Matches(NamedTuple):
    """Of each row, (N,) int64: matched pairs, their distances in steps added up, and the spikes of either train."""

    pairs: Tensor
    distance: Tensor
    predicted: Tensor
    true: Tensor


class Intervals(NamedTuple):
    """Intervals between spikes: their number, their mean in steps, and their coefficient of variation."""

    number: int
    mean: float
    cv: float


def spike_scores(predicted: Tensor, true: Tensor) -> Scores:
    """Agreement, precision, recall and F1 over all rows together, step by step.

    Precision is NaN without predicted spikes, recall without true ones, F1 without any.
    """
    predicted, true = _spikes("spike_scores", predicted, true)
    hit, fired, there = (int(s.count_nonzero()) for s in (predicted & true, predicted, true))
    right = int((predicted == true).count_nonzero())
    return Scores(right / true.numel(), _ratio(hit, fired), _ratio(hit, there), _ratio(2 * hit, fired + there))


def roc_auc(score: Tensor, true: Tensor) -> float:
    """Area under the ROC curve: how often a step with a spike scores higher than one without, ties counting half.

    It is the rank statistic of Mann and Whitney in integers, so it is exact. It judges a membrane at all thresholds.

    Args:
        score: (N, L), higher where a spike is more likely: ``mem + gain * input - threshold``, the way to threshold.
        true: spikes (N, L).

    Returns:
        In [0, 1], 0.5 by chance; NaN where no step or every step has a spike, or where a score is NaN.

    Source: Hanley and McNeil, Radiology 143 (1982).
    """
    (there,) = _spikes("roc_auc", true, like=score)
    spikes = int(there.count_nonzero())
    silences = there.numel() - spikes
    if not spikes * silences or bool(score.isnan().any()):
        return NAN
    ordered, order = score.flatten().sort()
    ties = torch.unique_consecutive(ordered, return_counts=True)[1]
    last = ties.cumsum(0)
    up_to = there.flatten()[order].cumsum(0)[last - 1]
    in_tie = up_to.diff(prepend=up_to.new_zeros(1))
    twice_ranks = int(((2 * last - ties + 1) * in_tie).sum())  # a tie has the mean of its ranks
    return (twice_ranks - spikes * (spikes + 1)) / (2 * spikes * silences)


def explained_variance(predicted: Tensor, true: Tensor) -> float:
    """``1 - var(true - predicted) / var(true)`` over all rows and steps together, in float64.

    Args:
        predicted, true: membranes (N, L).

    Returns:
        At most 1; 0 is as good as the mean. An error that is the same everywhere counts nothing. NaN where the true
        membrane is constant or one of them has a NaN.
    """
    _check("explained_variance", predicted, true)
    predicted, true = predicted.double(), true.double()
    varies = bool((true != true[0, 0]).any())
    return 1 - float((true - predicted).var(correction=0) / true.var(correction=0)) if varies else NAN


def count_explained_variance(predicted: Tensor, true: Tensor, bins: Sequence[int] = (1, 5, 10, 20)) -> dict[int, float]:
    """Explained variance of spike counts in bins of n steps: ``(V(p) + V(q) - V(p - q)) / (V(p) + V(q))`` for each n.

    p and q are the counts in bins beside each other, from the first step on; an incomplete last bin is left out. V is
    the variance over the bins of a row, added up over rows. The measure is symmetric: it is ``2 cov / (V + V)``.

    Args:
        predicted, true: spikes (N, L).
        bins: numbers of steps n, each >= 1.

    Returns:
        n -> in [-1, 1]: 1 for equal trains, about 0 for independent ones. NaN with fewer than two bins, or where no
        count of either train varies.

    Source: the pairwise explained variance of Teeter et al., Nature Communications 9:709 (2018). They smooth with a
    Gaussian where this counts, average over pairs of trials where this adds up variances, and divide by what repeated
    trials of the neuron explain of each other, which is 1 for a simulated one.
    """
    predicted, true = _spikes("count_explained_variance", predicted, true)
    return {n: _explained(_counts(predicted, n), _counts(true, n)) for n in bins}


def coincidence_factor(predicted: Tensor, true: Tensor, tolerance: int) -> Tensor:
    """Gamma of each row: coincidences within +-``tolerance`` steps beyond those by chance, 1 for equal trains.

    ``(pairs - w nu N_true) / ((N_true + N_predicted) / 2) / (1 - w nu)``. The pairs are those of `match_spikes`, ``nu``
    is the predicted spikes per step, and ``w = 2 tolerance + 1`` steps are the window, where continuous time has 2
    Delta. Chance is meant for windows that hold one spike at most, w nu well below 1. Independent trains give 0 for
    tolerance 0; with tolerance 1 and 2 they give -0.01 and -0.05 at 5 % spikes, but -0.2 and -1.2 at 15 %.

    Args:
        predicted, true: spikes (N, L).
        tolerance: steps, >= 0.

    Returns:
        (N,) float64, at most 1. NaN in rows without any spikes, and where w nu >= 1.

    Source: Kistler, Gerstner and van Hemmen, Neural Computation 9 (1997); as in Jolivet et al., Journal of Neuroscience
    Methods 169 (2008).
    """
    found = match_spikes(predicted, true, tolerance)
    pairs, fired, there = (value.double() for value in (found.pairs, found.predicted, found.true))
    chance = (2 * tolerance + 1) * fired / predicted.shape[1]
    gamma = (pairs - chance * there) / ((there + fired) / 2) / (1 - chance)
    return gamma.masked_fill((chance >= 1) | (there + fired == 0), NAN)


def tolerant_f1(predicted: Tensor, true: Tensor, tolerance: int) -> float:
    """F1 of the spikes over all rows, where a spike is right that is matched within +-``tolerance`` steps.

    See `match_spikes`. Tolerance 0 is the F1 of `spike_scores`. NaN without any spikes.
    """
    found = match_spikes(predicted, true, tolerance)
    return _ratio(2 * int(found.pairs.sum()), int(found.predicted.sum() + found.true.sum()))


def time_error(predicted: Tensor, true: Tensor, tolerance: int) -> float:
    """Mean distance in steps between matched spikes of all rows, from 0 to tolerance; NaN where none is matched.

    See `match_spikes`. Spikes without a partner count nothing here, but in `tolerant_f1`.
    """
    found = match_spikes(predicted, true, tolerance)
    return _ratio(int(found.distance.sum()), int(found.pairs.sum()))


def match_spikes(predicted: Tensor, true: Tensor, tolerance: int) -> Matches:
    """Pair the spikes of two trains, each with at most one that is at most ``tolerance`` steps away.

    As many as can be are paired; among the ways to do so, one with the smallest distances added up is taken. The
    earliest partner that is free would give as many pairs, but one spike too many would then push all behind it out of
    place. On a line the best pairs do not cross, so they are found in order.

    Args:
        predicted, true: spikes (N, L).
        tolerance: steps, >= 0.
    """
    _check_steps("match_spikes: tolerance", tolerance, 0)
    trains = _spikes("match_spikes", predicted, true)
    counts = [train.sum(1).cpu() for train in trains]
    times = [torch.split(t.nonzero()[:, 1].cpu(), n.tolist()) for t, n in zip(trains, counts, strict=True)]
    found = [_pair(a.tolist(), b.tolist(), tolerance) for a, b in zip(*times, strict=True)]
    return Matches(*torch.tensor(found).T, *counts)


def intervals(spikes: Tensor) -> Tensor:
    """Steps from each of the (N, L) spikes to the next one of its row, all rows behind each other: (M,) int64."""
    (spikes,) = _spikes("intervals", spikes)
    row, step = spikes.nonzero().T
    found: Tensor = step.diff()[row[1:] == row[:-1]]
    return found


def interval_statistics(spikes: Tensor) -> Intervals:
    """Number, mean and coefficient of variation (standard deviation / mean) of the intervals of all rows together.

    The deviation is divided by the number of intervals, not by one less. The mean is NaN without intervals, the cv with
    fewer than two. The cv is 0 for a clock, and ``sqrt(1 - p)`` for spikes that each step has with probability p.
    """
    found = intervals(spikes).double()
    mean = float(found.mean()) if len(found) else NAN
    return Intervals(len(found), mean, float(found.std(correction=0)) / mean if len(found) > 1 else NAN)


def interval_distance(predicted: Tensor, true: Tensor) -> float:
    """The largest ``|F(t) - G(t)|`` of the distributions of intervals, all rows together (Kolmogorov and Smirnov).

    From 0 to 1; NaN where a train has no interval.
    """
    _spikes("interval_distance", predicted, true)
    both = [intervals(spikes) for spikes in (predicted, true)]
    if not all(map(len, both)):
        return NAN
    shares = [each.bincount(minlength=true.shape[1]).cumsum(0).double() / len(each) for each in both]
    return float((shares[0] - shares[1]).abs().max())


def error_over_time(predicted: Tensor, true: Tensor, window: int) -> Tensor:
    """Share of wrong steps, ``mean |s - s_hat|``, of all rows in windows of ``window`` steps since the start.

    Returns (ceil(L / window),) in float64; the last window may be shorter and is a mean over the steps that it has.
    """
    _check_steps("error_over_time: window", window, 1)
    predicted, true = _spikes("error_over_time", predicted, true)
    wrong = (predicted != true).double().mean(0)
    return torch.stack([part.mean() for part in torch.split(wrong, window)])


def _pair(a: list[int], b: list[int], tolerance: int) -> tuple[int, int]:
    """How many spikes of two sorted lists are paired, and their distances added up.

    ``best[k]`` is the most that the spikes of a so far and ``b[: low + k]`` are worth; further ones of b add nothing.
    """
    worth = tolerance * min(len(a), len(b)) + 1  # of a pair, more than all distances
    low, best = 0, [0]
    for time in a:
        while low < len(b) and b[low] < time - tolerance:
            low, best = low + 1, best[1:] or best
        row = [best[0]]
        for k in range(bisect_right(b, time + tolerance, low) - low):
            paired = best[min(k, len(best) - 1)] + worth - abs(b[low + k] - time)
            row.append(max(paired, row[-1], best[min(k + 1, len(best) - 1)]))
        best = row
    pairs = -(-best[-1] // worth)
    return pairs, pairs * worth - best[-1]


def _counts(spikes: Tensor, n: int) -> Tensor:
    """Spikes in complete bins of n steps: (N, L) -> (N, L // n) float64."""
    _check_steps("count_explained_variance: a bin", n, 1)
    rows, bins = len(spikes), spikes.shape[1] // n
    return spikes[:, : bins * n].reshape(rows, bins, n).sum(2).double()


def _explained(p: Tensor, q: Tensor) -> float:
    if p.shape[1] < 2:
        return NAN
    one, other, apart = (float(x.var(1, correction=0).sum()) for x in (p, q, p - q))
    return _ratio(one + other - apart, one + other)


def _spikes(who: str, *trains: Tensor, like: Tensor | None = None) -> list[Tensor]:
    """The trains as booleans, all of one shape."""
    _check(who, *trains, *([] if like is None else [like]))
    for train in trains:
        if train.dtype != torch.bool and (odd := train[(train != 0) & (train != 1)]).numel():
            raise ValueError(f"{who}: spikes must be 0 or 1, got {float(odd[0]):g}; give booleans, e.g. spikes > 0.")
    return [train.bool() for train in trains]


def _check(who: str, *tensors: Tensor) -> None:
    shapes = [tuple(each.shape) for each in tensors]
    if len(set(shapes)) > 1 or len(shapes[0]) != 2 or 0 in shapes[0]:
        shown = " and ".join(map(str, dict.fromkeys(shapes)))
        raise ValueError(f"{who}: expected (N, L) of one shape, got {shown}; use reshape(-1, L).")


def _check_steps(what: str, value: int, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{what} must be a whole number of steps, at least {least}, got {value!r}.")


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else NAN
