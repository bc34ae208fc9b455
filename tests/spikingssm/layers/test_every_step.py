"""One label asked at every step, against sums over rows and steps written out."""

import math

import pytest
import torch

from spikingssm.datasets import Batch
from spikingssm.tasks import Classification, EveryStepClassification


def judged(task, logits, y, lengths=None, training=True):
    x = torch.zeros(*logits.shape[:2], 1)
    return task.run(lambda x, state, lengths: (logits, state), Batch(x, y, lengths), training=training)


@pytest.mark.parametrize("skip", [0, 3])
@pytest.mark.parametrize("lengths", [None, [6, 4, 5]])
def test_the_loss_is_the_mean_over_recorded_steps_and_the_class_that_of_the_mean_logits(skip, lengths) -> None:
    torch.manual_seed(0)
    logits, y = torch.randn(3, 6, 4), torch.tensor([2, 0, 3])
    ends = lengths or [6, 6, 6]
    found = judged(EveryStepClassification(skip=skip), logits, y, None if lengths is None else torch.tensor(lengths))
    steps = [(row, step) for row in range(3) for step in range(skip, ends[row])]
    losses = [math.log(sum(math.exp(v) for v in logits[i, t].tolist())) - float(logits[i, t, y[i]]) for i, t in steps]
    assert found.count == len(steps)
    assert float(found.loss) == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    mean, labels = found.updates["accuracy"]
    assert torch.equal(labels, y)
    for row in range(3):
        torch.testing.assert_close(mean[row], logits[row, skip : ends[row]].mean(0))


def test_steps_that_are_not_recorded_do_not_count() -> None:
    logits, y, lengths = torch.randn(2, 6, 4), torch.tensor([1, 2]), torch.tensor([4, 6])
    task, spoiled = EveryStepClassification(skip=2), logits.clone()
    spoiled[:, :2], spoiled[0, 4:] = 1e4, float("inf")
    one, other = (judged(task, given, y, lengths) for given in (logits, spoiled))
    assert one.loss == other.loss
    assert torch.equal(one.updates["accuracy"][0], other.updates["accuracy"][0])


def test_one_step_is_a_classification() -> None:
    logits, y = torch.randn(5, 1, 3), torch.tensor([0, 1, 2, 1, 0])
    for labels in (y, torch.rand(5, 3).softmax(-1)):
        for training in (True, False):
            found = judged(EveryStepClassification(label_smoothing=0.2), logits, labels, training=training)
            expected = judged(Classification(label_smoothing=0.2), logits[:, 0], labels, training=training)
            torch.testing.assert_close(found.loss, expected.loss)
            assert torch.equal(found.updates["accuracy"][0], expected.updates["accuracy"][0])
            assert torch.equal(found.updates["accuracy"][1], expected.updates["accuracy"][1])


def test_accuracy_of_a_batch() -> None:
    """The mean decides: the second row is right at most steps and wrong all the same."""
    logits = torch.tensor([[[0.0, 1.0]] * 3, [[0.1, 0.0], [0.1, 0.0], [0.0, 9.0]]])
    task = EveryStepClassification()
    metrics = task.metrics(2)
    metrics["accuracy"].update(*judged(task, logits, torch.tensor([1, 0])).updates["accuracy"])
    assert float(metrics["accuracy"].compute()) == 0.5


def test_labels_or_logits_of_another_kind() -> None:
    for logits, y in (((2, 3), (2,)), ((2, 4, 3), (2, 4))):
        with pytest.raises(ValueError, match=r"logits must be \(B, L, C\) and labels \(B,\), got .*model\.pool=each"):
            EveryStepClassification().scored(torch.zeros(logits), Batch(torch.zeros(2, 4, 1), torch.zeros(y).long()))


def test_a_sequence_shorter_than_the_skip_is_refused() -> None:
    with pytest.raises(ValueError, match="skip=3 leaves nothing of a sequence of 3 steps"):
        judged(EveryStepClassification(skip=3), torch.zeros(2, 6, 4), torch.tensor([1, 2]), torch.tensor([6, 3]))
