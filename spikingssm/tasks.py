"""What a network is asked for: a loss and an accuracy for each kind of label."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy

from spikingssm.datasets.base import Batch

__all__ = ["Classification", "StepClassification"]


@dataclass(frozen=True)
class Classification:
    """One label for a sequence: cross entropy and accuracy.

    Args:
        label_smoothing: probability spread over all classes in the training loss, in [0, 1).

    Raises:
        ValueError: a smoothing out of range.
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        _check_smoothing(self)

    def scored(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (B, C) and labels (B,) as they are.

        Raises:
            ValueError: labels or logits of every step.
        """
        if logits.ndim != 2 or batch.y.ndim != 1:
            raise ValueError(
                f"Classification: logits must be (B, C) and labels (B,), got {tuple(logits.shape)} and "
                f"{tuple(batch.y.shape)}; labels of every step need task._target_=spikingssm.tasks.StepClassification "
                "and model.pool=each."
            )
        return logits, batch.y

    def loss(self, logits: Tensor, labels: Tensor, training: bool = True) -> Tensor:
        """Mean cross entropy of `scored` logits (M, C) and labels (M,); smoothed only in training."""
        return _cross_entropy(logits, labels, self.label_smoothing if training else 0.0)

    def accuracy(self, classes: int) -> MulticlassAccuracy:
        """The part of labels that is met, collected over batches by torchmetrics."""
        return MulticlassAccuracy(num_classes=classes, average="micro")


@dataclass(frozen=True)
class StepClassification:
    """A label at every step: cross entropy and accuracy over the steps that have one.

    Left out are steps labelled ``ignore_index`` and steps at or behind the length of their sequence.

    Args:
        label_smoothing: probability spread over all classes in the training loss, in [0, 1).
        ignore_index: the label of a step without one.

    Raises:
        ValueError: a smoothing out of range.
    """

    label_smoothing: float = 0.0
    ignore_index: int = -100

    def __post_init__(self) -> None:
        _check_smoothing(self)

    def scored(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (B, L, C) and labels (B, L) -> those of the M labelled steps, (M, C) and (M,).

        Raises:
            ValueError: labels or logits of another shape.
        """
        if logits.ndim != 3 or batch.y.shape != logits.shape[:2]:
            raise ValueError(
                f"StepClassification: logits must be (B, L, C) and labels (B, L), got {tuple(logits.shape)} and "
                f"{tuple(batch.y.shape)}; one label a sequence needs task._target_=spikingssm.tasks.Classification."
            )
        labelled = batch.y != self.ignore_index
        if batch.lengths is not None:
            steps = torch.arange(batch.y.shape[1], device=batch.y.device)
            labelled = labelled & (steps < batch.lengths[:, None])
        return logits[labelled], batch.y[labelled]

    def loss(self, logits: Tensor, labels: Tensor, training: bool = True) -> Tensor:
        """Mean cross entropy of `scored` logits (M, C) and labels (M,); smoothed only in training, 0 for M = 0."""
        return _cross_entropy(logits, labels, self.label_smoothing if training else 0.0)

    def accuracy(self, classes: int) -> MulticlassAccuracy:
        """The part of labelled steps that is met, collected over batches by torchmetrics."""
        return MulticlassAccuracy(num_classes=classes, average="micro")


def _cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    total = functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing, reduction="sum")
    return total / max(1, len(labels))


def _check_smoothing(task: Classification | StepClassification) -> None:
    if not 0 <= task.label_smoothing < 1:
        raise ValueError(f"{type(task).__name__}: label_smoothing must be in [0, 1), got {task.label_smoothing}.")
