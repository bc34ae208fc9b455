"""Metrics that torchmetrics does not have in this form."""

import torch
from torch import Tensor
from torchmetrics import MeanMetric

__all__ = ["Perplexity", "WeightedMean"]


class WeightedMean(MeanMetric):
    """torchmetrics' weighted mean, in which NaN stays NaN; it is not looked for, which would wait for a GPU."""

    def update(self, value: Tensor, weight: float | Tensor = 1.0) -> None:  # type: ignore[override]  # no None here
        """Add values of any shape, with a weight that broadcasts to it."""
        wide = value.to(self.dtype)
        weights = torch.as_tensor(weight, dtype=self.dtype, device=wide.device).expand(wide.shape)
        self.mean_value += (wide * weights).sum()
        self.weight += weights.sum()


class Perplexity(WeightedMean):
    """exp of the mean negative log likelihood (nats) of all tokens that were seen."""

    def compute(self) -> Tensor:
        """Perplexity, >= 1."""
        return super().compute().exp()
