"""Metrics that torchmetrics does not have in this form."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric

__all__ = ["Determination", "Perplexity", "WeightedMean", "wide"]

_DOUBLE = torch.float32 if torch.backends.mps.is_available() else torch.float64
"""MPS has no doubles."""


def wide(metric: Any) -> Any:
    """The same metric with sums in float64; on MPS, which has no doubles, as it was."""
    return metric.set_dtype(_DOUBLE)


class WeightedMean(MeanMetric):
    """torchmetrics' weighted mean, in which NaN stays NaN; it is not looked for, which would wait for a GPU."""

    def update(self, value: Tensor, weight: float | Tensor = 1.0) -> None:  # type: ignore[override]  # no None here
        """Add values of any shape, with a weight that broadcasts to it."""
        dtype = self.mean_value.dtype  # that of the metric is another one after a `.to(device)`
        values = value.to(dtype)
        weights = torch.as_tensor(weight, dtype=dtype, device=values.device).expand(values.shape)
        self.mean_value += (values * weights).sum()
        self.weight += weights.sum()


class Perplexity(WeightedMean):
    """exp of the mean negative log likelihood (nats) of all tokens that were seen."""

    def compute(self) -> Tensor:
        """Perplexity, >= 1."""
        return super().compute().exp()


class Determination(Metric):
    """R2, the coefficient of determination, as the mean over D numbers; some of them may be missing.

    1 is perfect, 0 is as good as their mean. Where the targets do not differ it is 1 if they are met, else 0, as in
    scikit-learn. torchmetrics' R2Score takes no missing targets and refuses a single row.

    Args:
        outputs: D.
    """

    is_differentiable, higher_is_better, full_state_update = False, True, False
    known: Tensor
    total: Tensor
    square: Tensor
    error: Tensor

    def __init__(self, outputs: int) -> None:
        super().__init__()
        for name in ("known", "total", "square", "error"):
            self.add_state(name, torch.zeros(outputs, dtype=_DOUBLE), dist_reduce_fx="sum")

    def update(self, answers: Tensor, targets: Tensor, known: Tensor) -> None:
        """Add M answers.

        Args:
            answers: (M, D).
            targets: (M, D), near 0 where they are standardised, so that no digits are lost.
            known: (M, D), False at a missing target.
        """
        dtype = self.square.dtype  # that of the metric is another one after a `.to(device)`
        y = torch.where(known, targets, 0).to(dtype)
        away = torch.where(known, answers.to(dtype) - targets.to(dtype), 0)
        self.known += known.sum(0)
        self.total += y.sum(0)
        self.square += y.square().sum(0)
        self.error += away.square().sum(0)

    def compute(self) -> Tensor:
        """The mean over those of the D numbers that were seen; NaN of none."""
        spread = self.square - self.total.square() / self.known.clamp(min=1)
        rounding = 4 * torch.finfo(spread.dtype).eps * self.known.clamp(min=1)  # of the two sums
        constant = spread <= rounding * self.square
        score = torch.where(constant, (self.error == 0).to(spread.dtype), 1 - self.error / spread)
        return score[self.known > 0].mean()
