"""Classes: one label for a sequence, or one for every step."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from spikingssm.datasets.base import IGNORED, Batch, SequenceData
from spikingssm.datasets.interface import Interface
from spikingssm.tasks.base import Outcome
from spikingssm.tasks.pooled import check_skip, counted, pooled
from spikingssm.tasks.weights import as_tensor, check_weights, weights_for

__all__ = ["Classification", "EveryStepClassification", "StepClassification"]

SELECT = {"accuracy": ("val/accuracy", "max"), "loss": ("val/loss", "min")}


class _CrossEntropy:
    """What the tasks with classes share; each scores its own steps."""

    targets: ClassVar[str] = "classes"
    label_smoothing: float
    select: str
    class_weights: tuple[float, ...] | Mapping[str, float] | str | None
    skip: int = 0

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"{name}: label_smoothing must be in [0, 1), got {self.label_smoothing}.")
        check_skip(name, self.skip)
        if self.select not in SELECT:
            raise ValueError(f"{name}: select must be one of {', '.join(SELECT)}, got {self.select!r}.")
        object.__setattr__(self, "class_weights", check_weights(name, self.class_weights))

    @property
    def monitor(self) -> tuple[str, str]:
        """The logged metric that chooses the best epoch, and "max" or "min"."""
        return SELECT[self.select]

    def said(self, interface: Interface) -> str:
        """The weights of the classes, for the log; nothing where all count alike."""
        if not isinstance(self.class_weights, tuple):
            return ""
        words = [f"{interface.class_name(number)} {weight:.4g}" for number, weight in enumerate(self.class_weights)]
        return f"weights of the classes in the training loss: {', '.join(words)}"

    def with_data(self, interface: Interface, data: SequenceData | None = None) -> Self:
        """See `spikingssm.tasks.base.told`: the weights of the classes."""
        found = weights_for(
            self.class_weights, interface, data, self._unlabelled(), getattr(self, "ignore_index", IGNORED)
        )
        made: Self = replace(self, class_weights=found)  # type: ignore[type-var]  # the tasks are dataclasses
        return made

    def _unlabelled(self) -> int | None:
        """The class that steps without a label count as in the loss, or None."""
        return None

    def loss(self, logits: Tensor, labels: Tensor, training: bool = True) -> Tensor:
        """Mean cross entropy of logits (M, C) and labels, (M,) or (M, C); 0 for M = 0.

        Smoothed and weighted in training only, so that losses of validations can be compared. The mean is over the
        labels, not over their weights.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        more: dict[str, Any] = {}
        if training:
            weight = as_tensor(type(self).__name__, self.class_weights, logits)
            more = {"label_smoothing": self.label_smoothing, "weight": weight}
        total = functional.cross_entropy(logits, labels, reduction="sum", **more)
        return total / max(1, len(labels))

    def accuracy(self, classes: int) -> MulticlassAccuracy:
        """The part of labels that is met, collected over batches by torchmetrics."""
        # torchmetrics' own look at the labels would wait for a GPU; the data sets have looked
        return MulticlassAccuracy(num_classes=classes, average="micro", validate_args=False)

    def metrics(self, classes: int) -> dict[str, Metric]:
        """``accuracy``."""
        return {"accuracy": self.accuracy(classes)}


@dataclass(frozen=True)
class Classification(_CrossEntropy):
    """One label for a sequence: cross entropy and accuracy.

    A label may be a probability of each class, (B, C) float32: cross entropy takes it as it is, and accuracy counts the
    class of its largest.

    Args:
        label_smoothing: probability spread over all classes in the training loss, in [0, 1).
        class_weights: of the classes in the training loss: "balanced", see `spikingssm.tasks.weights.balanced`, one
            number >= 0 for each in the order of the classes or by their names, or None for all alike.
        select: what of the validation chooses the best epoch, "accuracy" or "loss".

    Raises:
        ValueError: a smoothing out of range, or an unknown select.
    """

    labels: ClassVar[str] = "sequence"
    answers: ClassVar[str] = "sequence"
    label_smoothing: float = 0.0
    select: str = "accuracy"
    class_weights: tuple[float, ...] | Mapping[str, float] | str | None = None

    def run(self, model: nn.Module, batch: Batch, state: Any = None, training: bool = True) -> Outcome:
        """See `Task`."""
        logits, state = model(batch.x, state, lengths=batch.lengths)
        logits, labels = self.scored(logits, batch)
        hard = labels if labels.ndim == 1 else labels.argmax(-1)
        return Outcome(self.loss(logits, labels, training), len(labels), state, {"accuracy": (logits, hard)})

    def scored(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (B, C) and labels, (B,) or probabilities (B, C), as they are.

        Raises:
            ValueError: labels or logits of every step.
        """
        soft = batch.y.is_floating_point() and batch.y.shape == logits.shape
        if logits.ndim != 2 or (batch.y.ndim != 1 and not soft):
            raise ValueError(
                f"Classification: logits must be (B, C) and labels (B,), got {tuple(logits.shape)} and "
                f"{tuple(batch.y.shape)}; labels of every step need task._target_=spikingssm.tasks.StepClassification "
                "and model.pool=each."
            )
        return logits, batch.y


@dataclass(frozen=True)
class EveryStepClassification(_CrossEntropy):
    """One label for a sequence, asked at every step: mean cross entropy, accuracy of the mean logits.

    The class is that of the largest mean of the logits over the recorded steps. Steps at or behind the length of their
    sequence are not recorded. Labels may be probabilities (B, C), as for `Classification`.

    Args:
        label_smoothing: probability spread over all classes in the training loss, in [0, 1).
        class_weights: of the classes in the training loss: "balanced", see `spikingssm.tasks.weights.balanced`, one
            number >= 0 for each in the order of the classes or by their names, or None for all alike.
        skip: the first so many steps are not recorded, counted from the start of the x that is given.
        select: what of the validation chooses the best epoch, "accuracy" or "loss".

    Raises:
        ValueError: a number out of range, or an unknown select.

    Source: Higuchi, Kairat, Bohte, Otte, "Balanced Resonate-and-Fire Neurons", ICML 2024 (arXiv 2402.14603).
    """

    labels: ClassVar[str] = "sequence"
    answers: ClassVar[str] = "step"
    label_smoothing: float = 0.0
    skip: int = 0
    select: str = "accuracy"
    class_weights: tuple[float, ...] | Mapping[str, float] | str | None = None

    def run(self, model: nn.Module, batch: Batch, state: Any = None, training: bool = True) -> Outcome:
        """See `Task`; ``count`` is the number of recorded steps of all rows."""
        every, state = model(batch.x, state, lengths=batch.lengths)
        logits, labels, mean = self.scored(every, batch)
        hard = batch.y if batch.y.ndim == 1 else batch.y.argmax(-1)
        return Outcome(self.loss(logits, labels, training), len(labels), state, {"accuracy": (mean, hard)})

    def answer(self, logits: Tensor, lengths: Tensor | None) -> Tensor:
        """Logits (B, L, C) -> their means over the recorded steps, (B, C).

        Raises:
            ValueError: a skip that leaves nothing of a sequence.
        """
        return pooled(type(self).__name__, logits, lengths, self.skip)

    def scored(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, L, C) and labels, (B,) or (B, C) -> of M recorded steps (M, C), (M,) or (M, C); means (B, C).

        Raises:
            ValueError: logits of the end only, labels of every step, or a skip that leaves nothing.
        """
        soft = batch.y.is_floating_point() and batch.y.shape == (len(logits), logits.shape[-1])
        if logits.ndim != 3 or (batch.y.ndim != 1 and not soft):
            raise ValueError(
                f"EveryStepClassification: logits must be (B, L, C) and labels (B,), got {tuple(logits.shape)} and "
                f"{tuple(batch.y.shape)}; use model.pool=each, and task=steps where every step has a label."
            )
        mean = self.answer(logits, batch.lengths)
        logits = logits[:, self.skip :].to(torch.promote_types(logits.dtype, torch.float32))
        labels = batch.y[:, None].expand(*logits.shape[:2], *batch.y.shape[1:])
        if batch.lengths is None:
            return logits.flatten(0, 1), labels.flatten(0, 1), mean
        recorded = counted(self.skip + logits.shape[1], batch.lengths, self.skip, logits.device)[:, self.skip :]
        return logits[recorded], labels[recorded], mean


@dataclass(frozen=True)
class StepClassification(_CrossEntropy):
    """A label at every step: cross entropy and accuracy over the steps that have one.

    Left out are steps labelled ``ignore_index`` and steps at or behind the length of their sequence.

    Args:
        label_smoothing: probability spread over all classes in the training loss, in [0, 1).
        class_weights: of the classes in the training loss: "balanced", see `spikingssm.tasks.weights.balanced`, one
            number >= 0 for each in the order of the classes or by their names, or None for all alike.
        ignore_index: the label of a step without one.
        unlabelled_as: a class; ``accuracy_all`` is then logged beside the accuracy and counts the steps without a label
            as that class, for comparison with results that do. It does not enter the choice of an epoch.
        train_unlabelled: count the steps without a label as that class in the loss too, in training and evaluation.
        skip: the first so many steps are left out, counted from the start of the x that is given.
        select: what of the validation chooses the best epoch, "accuracy" or "loss".

    Raises:
        ValueError: a number out of range, an unknown select, or train_unlabelled without unlabelled_as.
    """

    labels: ClassVar[str] = "step"
    answers: ClassVar[str] = "step"
    label_smoothing: float = 0.0
    ignore_index: int = IGNORED
    unlabelled_as: int | None = None
    train_unlabelled: bool = False
    skip: int = 0
    select: str = "accuracy"
    class_weights: tuple[float, ...] | Mapping[str, float] | str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_unlabelled and self.unlabelled_as is None:
            raise ValueError(
                "StepClassification: train_unlabelled=true needs the class that steps without a label count as, got "
                "unlabelled_as=null; set task.unlabelled_as=0, or task.train_unlabelled=false."
            )

    def run(self, model: nn.Module, batch: Batch, state: Any = None, training: bool = True) -> Outcome:
        """See `Task`."""
        every, state = model(batch.x, state, lengths=batch.lengths)
        logits, labels = self.scored(every, batch)
        updates: dict[str, tuple[Tensor, ...]] = {"accuracy": (logits, labels)}
        if self.unlabelled_as is not None:
            filled = batch.y.masked_fill(batch.y == self.ignore_index, self.unlabelled_as)
            everything = updates["accuracy_all"] = self.scored(every, batch._replace(y=filled))
            logits, labels = everything if self.train_unlabelled else (logits, labels)
        return Outcome(self.loss(logits, labels, training), len(labels), state, updates)

    def scored(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (B, L, C) and labels (B, L) -> those of the M labelled steps behind ``skip``, (M, C) and (M,).

        Raises:
            ValueError: labels or logits of another shape, or a skip that leaves nothing.
        """
        if logits.ndim != 3 or batch.y.shape != logits.shape[:2]:
            raise ValueError(
                f"StepClassification: logits must be (B, L, C) and labels (B, L), got {tuple(logits.shape)} and "
                f"{tuple(batch.y.shape)}; one label a sequence needs task._target_=spikingssm.tasks.Classification."
            )
        check_skip("StepClassification", self.skip, logits.shape[1])
        labelled = (batch.y != self.ignore_index) & counted(batch.y.shape[1], batch.lengths, self.skip, batch.y.device)
        return logits[labelled], batch.y[labelled]

    def _unlabelled(self) -> int | None:
        return self.unlabelled_as if self.train_unlabelled else None

    def metrics(self, classes: int) -> dict[str, Metric]:
        """``accuracy``, and ``accuracy_all`` where ``unlabelled_as`` is given."""
        names = ["accuracy"] if self.unlabelled_as is None else ["accuracy", "accuracy_all"]
        return {name: self.accuracy(classes) for name in names}
