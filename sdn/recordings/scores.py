"""How well spikes are predicted: agreement, F1 with a tolerance, explained variance of counts."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sdn.ops.scan.operator import scan
from sdn.scoring.measures import explained_variance, match_spikes

__all__ = ["SpikeScores", "best_level", "score_spikes", "train_distance"]

WINDOW = 20
"""Steps in which spikes are counted for their explained variance."""
WIDTHS = 2.0, 8.0, 32.0
"""Time constants in steps of the traces that spikes are compared by."""


@dataclass(frozen=True)
class SpikeScores:
    """Predicted against recorded spikes. All but the explained variance are in [0, 1].

    ``agreement`` is the share of steps that are equal. ``precision``, ``recall`` and ``f1`` forgive ``tolerance``
    steps, and each spike counts once. ``explained_variance`` is that of the counts in windows of 20 steps:
    1 - var(recorded - predicted) / var(recorded), which is below 0 for what is worse than a
    constant. The rates are spikes per step.
    """

    agreement: float
    precision: float
    recall: float
    f1: float
    explained_variance: float
    rate: float
    predicted_rate: float
    steps: int
    tolerance: int = 1

    def __str__(self) -> str:
        return (
            f"F1 {self.f1:.3f} at +-{self.tolerance} (precision {self.precision:.3f}, recall {self.recall:.3f}), "
            f"explained variance {self.explained_variance:.3f}, agreement {self.agreement:.4f}, "
            f"rate {self.predicted_rate:.4f} of {self.rate:.4f}"
        )


def score_spikes(predicted: Tensor, recorded: Tensor, tolerance: int = 1) -> SpikeScores:
    """Compare spikes (N, T), bool or 0 and 1.

    Args:
        predicted: of a model.
        recorded: what is right.
        tolerance: steps that a spike may be early or late.

    Raises:
        ValueError: two shapes, or a tolerance below 0.
    """
    if predicted.shape != recorded.shape or recorded.ndim != 2:
        raise ValueError(
            f"score_spikes: shapes {tuple(predicted.shape)} and {tuple(recorded.shape)} must be one (N, T)."
        )
    if tolerance < 0:
        raise ValueError(f"score_spikes: tolerance must be at least 0, got {tolerance}.")
    p, r = predicted > 0, recorded > 0
    hits = int(match_spikes(p, r, tolerance).pairs.sum())
    made, wanted = int(p.sum()), int(r.sum())
    return SpikeScores(
        agreement=float((p == r).float().mean()),
        precision=hits / made if made else 0.0,
        recall=hits / wanted if wanted else 0.0,
        f1=2 * hits / (made + wanted) if made + wanted else 1.0,
        explained_variance=_explained(p, r),
        rate=wanted / r.numel(),
        predicted_rate=made / r.numel(),
        steps=r.numel(),
        tolerance=tolerance,
    )


def train_distance(predicted: Tensor, recorded: Tensor) -> Tensor:
    """The mean square difference of exponential traces of spikes, of time constants `WIDTHS`, of each neuron: (H,).

    Its unit is the mean square of the recorded spikes' own: 0 for equal trains, 1 for none at all.

    Args:
        predicted: (B, T, H), 0 and 1, with gradients where they have some.
        recorded: (B, T, 1).

    Source: van Rossum, Neural Computation 13, 2001.
    """
    return _power(predicted - recorded) / _power(recorded)


def _power(trains: Tensor) -> Tensor:
    """Mean square of the traces, each of unit power, summed over their time constants."""
    total = torch.zeros(())
    for width in WIDTHS:
        keep = math.exp(-1.0 / width)
        total = total + (1 - keep**2) * scan(trains.new_tensor([keep]), trains).square().mean((0, 1))
    return total


def best_level(current: Tensor, spikes: Tensor) -> float:
    """The level whose crossing by the current alone gives the best F1 at +-1: the neuron without a past, ``mem = 0``.

    Args:
        current: (N, T).
        spikes: (N, T) bool.
    """
    levels = torch.quantile(current.flatten()[:: max(1, current.numel() // 100_000)], torch.linspace(0.5, 0.999, 40))
    scores = [score_spikes(current >= level, spikes).f1 for level in levels]
    return float(levels[max(range(len(scores)), key=scores.__getitem__)])


def _explained(predicted: Tensor, recorded: Tensor) -> float:
    window = min(WINDOW, recorded.shape[1])
    whole = recorded.shape[1] // window * window
    counts = [x[:, :whole].double().reshape(len(x), -1, window).sum(-1) for x in (predicted, recorded)]
    found = explained_variance(*counts)
    return float(torch.equal(*counts)) if math.isnan(found) else found
