"""Sets of labels: a sequence has any of several, or none."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import Metric
from torchmetrics.classification import MultilabelAccuracy, MultilabelExactMatch, MultilabelF1Score

from spikingssm.datasets.base import Batch
from spikingssm.tasks.base import Outcome
from spikingssm.tasks.pooled import check_skip, pooled

__all__ = ["MultiLabel"]

SELECT = {name: (f"val/{name}", "max") for name in ("accuracy", "f1", "exact_match")} | {"loss": ("val/loss", "min")}


@dataclass(frozen=True)
class MultiLabel:
    """Whether a sequence has each of K labels: binary cross entropy, accuracy, F1 and exact match.

    ``accuracy`` is the part of all labels of all sequences that is right. ``f1`` is the mean over the labels, in which
    a label that no row has and no answer says counts 0. ``exact_match`` is the part of sequences whose whole set is
    right. Where a network answers at every step, its logits are averaged over the steps behind ``skip``.

    Args:
        skip: the first so many steps are left out, counted from the start of the x that is given.
        select: what of the validation chooses the best epoch: "loss", "accuracy", "f1" or "exact_match".

    Raises:
        ValueError: an unknown select, or a skip that is no number of steps.
    """

    targets: ClassVar[str] = "labels"
    skip: int = 0
    select: str = "loss"

    def __post_init__(self) -> None:
        check_skip("MultiLabel", self.skip)
        if self.select not in SELECT:
            raise ValueError(f"MultiLabel: select must be one of {', '.join(SELECT)}, got {self.select!r}.")

    @property
    def monitor(self) -> tuple[str, str]:
        """The logged metric that chooses the best epoch, and "max" or "min"."""
        return SELECT[self.select]

    def run(self, model: nn.Module, batch: Batch, state: Any = None, training: bool = True) -> Outcome:
        """See `Task`; the loss is the mean over the labels of each sequence, ``count`` the number of sequences."""
        every, state = model(batch.x, state, lengths=batch.lengths)
        logits, y = self.scored(every, batch)
        loss = functional.binary_cross_entropy_with_logits(logits, y)
        both = logits.detach().sigmoid(), y.long()
        return Outcome(loss, len(y), state, dict.fromkeys(("accuracy", "f1", "exact_match"), both))

    def answer(self, logits: Tensor, lengths: Tensor | None) -> Tensor:
        """Logits (B, L, K) -> their means over the steps, (B, K); (B, K) as they are.

        Raises:
            ValueError: a skip that leaves nothing of a sequence.
        """
        return logits if logits.ndim == 2 else pooled("MultiLabel", logits, lengths, self.skip)

    def scored(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (B, K) or (B, L, K) and sets (B, K) -> (B, K) each.

        Raises:
            ValueError: sets or logits of another shape, or a skip that leaves nothing.
        """
        logits = self.answer(logits, batch.lengths)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if logits.shape != batch.y.shape or logits.ndim != 2:
            raise ValueError(
                f"MultiLabel: logits (B, K) or (B, L, K) need y (B, K) of 0 and 1, got {tuple(logits.shape)} and "
                f"{tuple(batch.y.shape)}; one label a sequence is task=classification."
            )
        return logits, batch.y.to(logits.dtype)

    def metrics(self, classes: int) -> dict[str, Metric]:
        """``accuracy``, ``f1`` and ``exact_match``."""
        sizes: Any = {"num_labels": classes, "validate_args": False}
        return {
            "accuracy": MultilabelAccuracy(average="micro", **sizes),
            "f1": MultilabelF1Score(average="macro", **sizes),
            "exact_match": MultilabelExactMatch(**sizes),
        }
