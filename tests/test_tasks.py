"""Losses and accuracies against their formulas written out."""

import pytest
import torch

from spikingssm.datasets import Batch
from spikingssm.tasks import Classification, StepClassification


def test_sequence_labels_give_cross_entropy_and_accuracy() -> None:
    task, logits, y = Classification(), torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    scored = task.scored(logits, Batch(torch.zeros(6, 5, 1), y))
    by_hand = -logits.log_softmax(-1)[torch.arange(6), y].mean()
    torch.testing.assert_close(task.loss(*scored), by_hand)
    accuracy = task.accuracy(4)
    accuracy.update(scored[0][:4], scored[1][:4])
    accuracy.update(scored[0][4:], scored[1][4:])
    assert accuracy.compute() == pytest.approx((logits.argmax(-1) == y).float().mean().item())


def test_smoothing_is_for_training_only() -> None:
    task, logits, y = Classification(label_smoothing=0.3), torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    logs = logits.log_softmax(-1)
    hard = -logs[torch.arange(5), y].mean()
    torch.testing.assert_close(task.loss(logits, y), 0.7 * hard - 0.3 * logs.mean())
    torch.testing.assert_close(task.loss(logits, y, training=False), hard)


def test_steps_without_a_label_or_behind_the_end_do_not_count() -> None:
    task, logits = StepClassification(), torch.randn(2, 4, 3)
    y = torch.tensor([[0, 1, -100, 2], [2, 2, 0, 0]])
    batch = Batch(torch.zeros(2, 4, 1), y, torch.tensor([4, 2]))
    flat, labels = task.scored(logits, batch)
    assert labels.tolist() == [0, 1, 2, 2, 2]
    torch.testing.assert_close(
        flat, torch.stack([logits[0, 0], logits[0, 1], logits[0, 3], logits[1, 0], logits[1, 1]])
    )
    logits[1, 2:] = 1e4
    torch.testing.assert_close(task.scored(logits, batch)[0], flat)
    nothing = task.scored(logits, Batch(batch.x, torch.full((2, 4), -100)))
    assert task.loss(*nothing) == 0


def test_labels_of_the_other_kind_name_the_task_that_fits() -> None:
    x = torch.zeros(2, 4, 1)
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(2, 4\).*StepClassification"):
        Classification().scored(torch.zeros(2, 3), Batch(x, torch.zeros(2, 4)))
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(2,\).*tasks.Classification"):
        StepClassification().scored(torch.zeros(2, 3), Batch(x, torch.zeros(2)))


@pytest.mark.parametrize("task", [Classification, StepClassification])
def test_smoothing_is_a_probability(task) -> None:
    with pytest.raises(ValueError, match=r"must be in \[0, 1\), got 1.0"):
        task(label_smoothing=1.0)
