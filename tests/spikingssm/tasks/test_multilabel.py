"""Sets of labels: the loss and the metrics against their formulas written out."""

import pytest
import torch
from saying import Says, scores
from torch.nn import functional

from spikingssm.datasets import Batch
from spikingssm.tasks import MultiLabel


def test_the_metrics_are_those_of_each_label_and_of_each_set() -> None:
    y = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0]], dtype=torch.float32)
    logits = torch.tensor([[2.0, -1.0, -3.0], [0.4, -0.2, -1.0], [-1.0, -2.0, -3.0], [0.6, 0.9, -0.1]])
    task = MultiLabel()
    outcome = task.run(Says(logits), Batch(torch.zeros(4, 6, 1), y))
    torch.testing.assert_close(outcome.loss, -(y * logits.sigmoid().log() + (1 - y) * (-logits).sigmoid().log()).mean())
    assert outcome.count == 4
    # in the set {0} rows 0, 1, 3 are said, 0, 1 are there; in {1} row 3 is said, 1 and 3 are there; {2} is never there
    found = scores(task, outcome, outputs=3)
    assert found == pytest.approx({"accuracy": 10 / 12, "f1": (4 / 5 + 2 / 3 + 0) / 3, "exact_match": 2 / 4})


def test_logits_between_0_and_1_are_not_taken_for_probabilities() -> None:
    task, y = MultiLabel(), torch.ones(2, 2)
    outcome = task.run(Says(torch.full((2, 2), 0.2)), Batch(torch.zeros(2, 6, 1), y))
    assert scores(task, outcome, outputs=2)["accuracy"] == 1.0


def test_logits_of_every_step_are_averaged() -> None:
    task, every, y = MultiLabel(skip=1), torch.randn(2, 6, 3), torch.randint(0, 2, (2, 3)).float()
    lengths = torch.tensor([6, 2])
    outcome = task.run(Says(every), Batch(torch.zeros(2, 6, 1), y, lengths))
    mean = torch.stack([every[0, 1:].mean(0), every[1, 1]])
    torch.testing.assert_close(outcome.loss, functional.binary_cross_entropy_with_logits(mean, y))
    torch.testing.assert_close(task.answer(every, lengths), mean)


def test_other_shapes_and_settings_are_refused() -> None:
    for said, y in (((2, 3), (2,)), ((2, 3), (2, 4)), ((2, 6, 3), (2, 6, 3))):
        with pytest.raises(ValueError, match=r"need y \(B, K\) of 0 and 1"):
            MultiLabel().run(Says(torch.zeros(said)), Batch(torch.zeros(2, 6, 1), torch.zeros(y)))
    with pytest.raises(ValueError, match="select must be one of accuracy, f1, exact_match, loss, got 'mse'"):
        MultiLabel(select="mse")
