"""Weights of the classes and label smoothing reach every task with classes, in training only."""

import numpy as np
import pytest
import torch
from saying import Says
from torch.nn import functional

from spikingssm.datasets import Batch, Rows, SequenceData
from spikingssm.tasks import Classification, EveryStepClassification, StepClassification, told
from spikingssm.tasks.weights import balanced

WEIGHTS = (0.5, 2.0, 4.0)
STEPS = 4


def asked(task):
    """A network, a batch, and the logits and labels that enter the loss."""
    torch.manual_seed(0)
    y = torch.tensor([0, 2, 1])
    every = torch.randn(3, STEPS, 3)
    if task is Classification:
        return Says(every[:, 0]), Batch(torch.zeros(3, STEPS, 1), y), every[:, 0], y
    if task is EveryStepClassification:
        return Says(every), Batch(torch.zeros(3, STEPS, 1), y), every.flatten(0, 1), y.repeat_interleave(STEPS)
    labels = torch.tensor([[0, 1, 2, -100]] * 3)
    return Says(every), Batch(torch.zeros(3, STEPS, 1), labels), every[:, :3].flatten(0, 1), labels[:, :3].flatten()


@pytest.mark.parametrize("task", [Classification, EveryStepClassification, StepClassification])
def test_weights_and_smoothing_reach_the_loss_of_every_task(task) -> None:
    model, batch, logits, labels = asked(task)
    losses = {
        (smoothing, weights): task(label_smoothing=smoothing, class_weights=weights).run(model, batch).loss
        for smoothing in (0.0, 0.2)
        for weights in (None, WEIGHTS)
    }
    logs, w = logits.log_softmax(-1), torch.tensor(WEIGHTS)
    nll = -logs[torch.arange(len(labels)), labels]
    torch.testing.assert_close(losses[0.0, None], nll.mean())
    torch.testing.assert_close(losses[0.0, WEIGHTS], (w[labels] * nll).mean())
    torch.testing.assert_close(losses[0.2, None], (0.8 * nll - 0.2 * logs.mean(1)).mean())
    torch.testing.assert_close(losses[0.2, WEIGHTS], (0.8 * w[labels] * nll - 0.2 * (w * logs).mean(1)).mean())
    tested = task(label_smoothing=0.2, class_weights=WEIGHTS).run(model, batch, training=False)
    torch.testing.assert_close(tested.loss, nll.mean())


def test_weights_of_probabilities_are_those_of_their_classes() -> None:
    y = torch.tensor([[0.25, 0.0, 0.75]])
    logits = torch.randn(1, 3)
    loss = Classification(class_weights=WEIGHTS).run(Says(logits), Batch(torch.zeros(1, STEPS, 1), y)).loss
    logs = logits.log_softmax(-1)[0]
    torch.testing.assert_close(loss, -(0.25 * 0.5 * logs[0] + 0.75 * 4.0 * logs[2]))
    assert functional.cross_entropy(logits, y).item() != pytest.approx(loss.item())


def data(y, lengths=None, **options):
    rows = Rows(np.zeros((len(y), STEPS, 1), np.float32), y, lengths)
    return SequenceData("own", rows, Rows(rows.x[:1], y[:1], None if lengths is None else lengths[:1]), **options)


def test_balanced_weights_are_of_the_training_rows_alone() -> None:
    y = np.array([0] * 12 + [1] * 6 + [3] * 2)
    found = data(y, d_output=4, batch_size=2, val_fraction=0.25)
    task = told(Classification(class_weights="balanced"), found.interface, found)
    counts = np.bincount(y[found.train_rows], minlength=4)
    assert counts.sum() == 15
    np.testing.assert_allclose(task.class_weights, [15 / (3 * n) if n else 0.0 for n in counts])
    assert np.dot(task.class_weights, counts) == pytest.approx(counts.sum())  # the size of the loss stays
    assert task.said(found.interface).startswith("weights of the classes in the training loss: 0 0.")


def test_balanced_weights_of_steps_leave_out_what_does_not_count() -> None:
    y = np.array([[0, 1, -100, 0]] * 8)
    found = data(y, np.full(8, 3), d_output=2, batch_size=2, val_fraction=0.25)
    for options, is_ in (
        ({}, (1.0, 1.0)),  # of 0 and 1, -100 has none and the last step is behind the end
        ({"unlabelled_as": 1}, (1.0, 1.0)),
        ({"unlabelled_as": 1, "train_unlabelled": True}, (1.5, 0.75)),
    ):
        task = told(StepClassification(class_weights="balanced", **options), found.interface, found)
        assert task.class_weights == pytest.approx(is_), options


def test_balanced_weights_leave_out_the_label_that_a_task_ignores() -> None:
    y = np.array([[0, 0, 1, 2], [0, 1, 1, 2]] * 4)
    found = data(y, d_output=3, batch_size=2, val_fraction=0.25)
    task = told(StepClassification(class_weights="balanced", ignore_index=0), found.interface, found)
    counts = np.bincount(y[found.train_rows].ravel(), minlength=3)[1:]
    assert task.class_weights == pytest.approx((0.0, *(counts.sum() / (2 * counts))))


def test_weights_may_be_arrays() -> None:
    for given in (np.array([1.0, 2.0]), torch.tensor([1.0, 2.0]), (np.float64(1), np.float64(2)), [1, 2]):
        assert Classification(class_weights=given).class_weights == (1.0, 2.0)


def test_weights_by_the_names_of_the_classes_come_in_their_order() -> None:
    y = np.array([0, 1, 2] * 4)
    found = data(y, d_output=3, batch_size=2, val_fraction=0.25, class_names=("jump", "run", "walk"))
    task = told(Classification(class_weights={"walk": 1, "run": 2, "jump": 5}), found.interface, found)
    assert task.class_weights == (5.0, 2.0, 1.0)
    assert task.said(found.interface) == "weights of the classes in the training loss: jump 5, run 2, walk 1"
    numbers = data(y, d_output=3, batch_size=2, val_fraction=0.25)
    assert told(Classification(class_weights={2: 3, 0: 1, 1: 1}), numbers.interface).class_weights == (1.0, 1.0, 3.0)
    with pytest.raises(
        ValueError, match=r"task\.class_weights names walk, sit, the classes are jump, run, walk; give one"
    ):
        told(Classification(class_weights={"walk": 1, "sit": 2}), found.interface, found)
    with pytest.raises(
        ValueError, match="has 2 weights for 3 classes; give one for each, in the order jump, run, walk"
    ):
        told(Classification(class_weights=[1, 2]), found.interface, found)


def test_without_training_rows_balanced_is_left_and_only_training_asks_for_it() -> None:
    found = data(np.array([0, 1] * 4), d_output=2, batch_size=2, val_fraction=0.25)
    task = told(Classification(class_weights="balanced"), found.interface)
    assert (task.class_weights, task.said(found.interface)) == ("balanced", "")
    batch = Batch(torch.zeros(1, STEPS, 1), torch.tensor([1]))
    assert task.run(Says(torch.zeros(1, 2)), batch, training=False).loss.item() == pytest.approx(np.log(2))
    with pytest.raises(
        ValueError, match=r"class_weights=balanced needs the training rows; call spikingssm\.tasks\.told"
    ):
        task.run(Says(torch.zeros(1, 2)), batch)


def test_wrong_weights_are_refused() -> None:
    found = data(np.array([0, 1] * 4), d_output=2, batch_size=2, val_fraction=0.25)
    with pytest.raises(ValueError, match=r"task\.class_weights has 3 weights for 2 classes; give one for each"):
        told(Classification(class_weights=WEIGHTS), found.interface)
    for wrong in (
        "equal",
        {},
        {"a": -1},
        {"a": 0.0},
        [],
        [1.0, -1.0],
        [0, 0],
        [1.0, float("nan")],
        [1.0, float("inf")],
        ["1", "2"],
        3,
        [True, 1],
    ):
        with pytest.raises(
            ValueError, match="class_weights must be balanced, numbers >= 0 by the names of the classes"
        ):
            Classification(class_weights=wrong)
    assert Classification(class_weights=[1, 2]).class_weights == (1.0, 2.0)


def test_balanced_counts_every_class_alike() -> None:
    assert balanced(np.array([0, 0, 0, 2]), 3) == pytest.approx((2 / 3, 0.0, 2.0))
