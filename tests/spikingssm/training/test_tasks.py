"""Losses and accuracies against their formulas written out."""

import pytest
import torch

from spikingssm.datasets import Batch
from spikingssm.tasks import Classification, EveryStepClassification, LanguageModel, StepClassification


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


TASKS = (Classification, EveryStepClassification, StepClassification)


def said(logits):
    """A model that gives these logits, whatever it is asked."""
    return lambda x, state, lengths: (logits, state)


def test_the_first_steps_can_be_left_out() -> None:
    """Skipping is the same as having no label there."""
    logits, y = torch.randn(2, 5, 3), torch.tensor([[0, 1, -100, 2, 1], [2, 2, 0, 0, 1]])
    batch = Batch(torch.zeros(2, 5, 1), y, torch.tensor([5, 4]))
    found = StepClassification(unlabelled_as=0, skip=2).run(said(logits), batch)
    cut = batch._replace(y=torch.tensor([[-100, -100, -100, 2, 1], [-100, -100, 0, 0, 1]]))
    expected = StepClassification().run(said(logits), cut)
    assert (found.count, found.loss) == (expected.count, expected.loss) == (4, expected.loss)
    assert found.updates["accuracy"][1].tolist() == [2, 1, 0, 0]
    assert found.updates["accuracy_all"][1].tolist() == [0, 2, 1, 0, 0]


@pytest.mark.parametrize("training", [True, False])
def test_the_loss_can_count_steps_without_a_label_as_a_class(training) -> None:
    """It is the loss of labels that say so; the accuracy stays that of the labelled steps."""
    logits, y = torch.randn(2, 4, 3), torch.tensor([[0, 1, -100, 2], [2, -100, 0, 0]])
    batch = Batch(torch.zeros(2, 4, 1), y, torch.tensor([4, 3]))
    task = StepClassification(unlabelled_as=1, train_unlabelled=True, label_smoothing=0.2)
    found = task.run(said(logits), batch, training=training)
    filled = batch._replace(y=torch.tensor([[0, 1, 1, 2], [2, 1, 0, 0]]))
    expected = StepClassification(label_smoothing=0.2).run(said(logits), filled, training=training)
    assert (found.count, found.loss) == (7, expected.loss)
    plain = StepClassification(unlabelled_as=1).run(said(logits), batch, training=training)
    assert plain.count == 5
    for name in ("accuracy", "accuracy_all"):
        assert all(torch.equal(*pair) for pair in zip(found.updates[name], plain.updates[name], strict=True))


@pytest.mark.parametrize("task", TASKS)
def test_the_best_epoch_is_chosen_by_accuracy_or_loss(task) -> None:
    assert task().monitor == ("val/accuracy", "max")
    assert task(select="loss").monitor == ("val/loss", "min")
    with pytest.raises(ValueError, match=f"{task.__name__}: select must be one of accuracy, loss, got 'perplexity'"):
        task(select="perplexity")
    assert LanguageModel().monitor == ("val/perplexity", "min")


@pytest.mark.parametrize("task", TASKS[1:])
def test_a_skip_leaves_something(task) -> None:
    for skip in (-1, 1.0):
        with pytest.raises(ValueError, match=f"{task.__name__}: skip must be an integer >= 0, got {skip}"):
            task(skip=skip)
    y = torch.zeros(2, 4, dtype=torch.int64) if task is StepClassification else torch.zeros(2, dtype=torch.int64)
    assert task(skip=3).run(said(torch.zeros(2, 4, 3)), Batch(torch.zeros(2, 4, 1), y)).count == 2
    with pytest.raises(ValueError, match=f"{task.__name__}: skip=4 leaves nothing of a sequence of 4 steps"):
        task(skip=4).run(said(torch.zeros(2, 4, 3)), Batch(torch.zeros(2, 4, 1), y))


def test_a_loss_of_steps_without_a_label_needs_their_class() -> None:
    with pytest.raises(ValueError, match=r"train_unlabelled=true needs the class .* got unlabelled_as=null"):
        StepClassification(train_unlabelled=True)


@pytest.mark.parametrize("task", TASKS)
def test_smoothing_is_a_probability(task) -> None:
    with pytest.raises(ValueError, match=r"must be in \[0, 1\), got 1.0"):
        task(label_smoothing=1.0)
