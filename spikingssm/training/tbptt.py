"""Truncated back-propagation through time: where a sequence is cut, and what a chunk of it is asked for."""

import dataclasses

from spikingssm.datasets.base import Batch
from spikingssm.tasks import Task, skip_of

__all__ = ["chunk", "labels_every_step", "spans"]


def spans(length: int, steps: int, first: bool = False) -> list[tuple[int, int]]:
    """First step and end of each chunk of a sequence.

    Args:
        length: steps of the sequence, L >= 1.
        steps: of a chunk, >= 1; the last one has what is left.
        first: begin with a chunk of the first step alone, as the published code does.

    Source: Higuchi, Kairat, Bohte, Otte, "Balanced Resonate-and-Fire Neurons", ICML 2024 (arXiv 2402.14603), whose code
        makes an update behind every step t with t mod ``steps`` = 0, so at t = 0 too, and behind the last.
    """
    starts = [0, *range(1, length, steps)] if first else list(range(0, length, steps))
    return list(zip(starts, [*starts[1:], length], strict=True))


def chunk(task: Task, batch: Batch, start: int, end: int) -> tuple[Task, Batch]:
    """The task and the batch of the steps from ``start`` to before ``end``; ``skip`` is left to the first chunks.

    Labels of every step are cut likewise; a label of the sequence is that of each chunk.
    """
    y = batch.y[:, start:end] if labels_every_step(batch) else batch.y
    if skip := skip_of(task):
        task = dataclasses.replace(task, skip=max(0, skip - start))  # type: ignore[type-var]
    return task, Batch(batch.x[:, start:end], y)


def labels_every_step(batch: Batch) -> bool:
    """Whether y is (B, L) or numbers (B, L, D), and not (B,), or probabilities, numbers or labels (B, C)."""
    return batch.y.ndim == 3 or (batch.y.ndim == 2 and not batch.y.is_floating_point())
