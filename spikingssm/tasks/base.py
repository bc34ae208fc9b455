"""What every task says: a loss and metrics for one kind of label."""

from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn
from torchmetrics import Metric

from spikingssm.datasets.base import Batch, SequenceData
from spikingssm.datasets.interface import Interface

__all__ = ["Outcome", "Task", "answer_of", "skip_of", "told"]


class Outcome(NamedTuple):
    """What a task makes of one batch."""

    loss: Tensor
    """Mean over ``count`` labels; 0 where there is none."""
    count: int  # type: ignore[assignment]  # a tuple's own count is of no use here
    """Labels that entered the loss."""
    state: Any
    """The model's state after the batch."""
    updates: dict[str, tuple[Tensor, ...]]
    """Metric name -> the arguments of its ``update``."""


class Task(Protocol):
    """A loss and metrics; a frozen value with its options.

    A task may have more attributes; one that lacks them is not checked, and leaves out no step:

    - ``targets`` says what data of one's own hold: "classes", "numbers", "labels", or "next" for x itself ``horizon``
      steps later. A run is refused where its data hold something else.
    - ``labels`` and ``answers`` say whether it takes labels and logits of the "sequence" or of each "step". A run is
      then refused at once where data or model have others.
    - ``skip`` first steps are left out, see `skip_of`. A task with it is a dataclass, of which chunks make copies.
    - ``unlabelled_as`` is the class of steps without a label, and must be one of the data.
    - ``answer`` makes of the logits those that are answered with, see `answer_of`.
    - ``with_data`` makes of it the task for some data, see `told`.
    - ``said`` is one line on its settings for the log of a training.
    """

    @property
    def monitor(self) -> tuple[str, str]:
        """The logged metric that chooses the best epoch, and "max" or "min"."""
        ...

    def run(self, model: nn.Module, batch: Batch, state: Any = None, training: bool = True) -> Outcome:
        """Run the model on a batch, from a state (None: rest), and judge it."""
        ...

    def metrics(self, classes: int) -> dict[str, Metric]:
        """New metrics by name, as torchmetrics collects them over batches.

        Args:
            classes: outputs of the network: classes, or numbers or labels that are asked for.
        """
        ...


def skip_of(task: Task) -> int:
    """How many first steps of x a task leaves out."""
    return int(getattr(task, "skip", 0))


def answer_of(task: Task, logits: Tensor, lengths: Tensor | None) -> Tensor:
    """The logits that a task answers with: those of the network, or what its ``answer`` makes of them.

    Args:
        task: of the network.
        logits: (B, C) or (B, L, C).
        lengths: (B,) valid steps, or None.
    """
    answer = getattr(task, "answer", None)
    found: Tensor = logits if answer is None else answer(logits, lengths)
    return found


def told(task: Task, interface: Interface, data: SequenceData | None = None) -> Task:
    """The task with what it must know of its data: the scale of the targets, weights of the classes.

    Args:
        task: as its configuration gives it; one without ``with_data`` is left as it is.
        interface: sizes and targets.
        data: with the training rows; None where nothing is trained.

    Raises:
        ValueError: settings that do not fit the data.
    """
    tell = getattr(task, "with_data", None)
    found: Task = task if tell is None else tell(interface, data)
    return found
