"""Regression and forecasts: losses and metrics against their formulas written out, with missing targets and lengths."""

import numpy as np
import pytest
import torch
from saying import Says, scores
from sklearn.metrics import r2_score
from torchmetrics.regression import R2Score

from spikingssm.datasets import Batch
from spikingssm.datasets.inputs import Audio, Numbers
from spikingssm.datasets.interface import Interface
from spikingssm.datasets.targets import NumberTargets
from spikingssm.tasks import Determination, Forecast, Regression, told
from spikingssm.tasks.metrics import WeightedMean, wide
from spikingssm.training.tbptt import chunk, labels_every_step

NAN = float("nan")


def interface(targets, inputs=None, channels=1):
    inputs = Numbers() if inputs is None else inputs
    return Interface("own", 6, channels, len(targets.mean), inputs, targets=targets)


def test_the_loss_is_standardised_and_the_metrics_are_in_the_units_of_the_data() -> None:
    targets = NumberTargets((100.0, -3.0), (20.0, 0.5))
    task = told(Regression(), interface(targets))
    own = torch.tensor([[90.0, -3.5], [130.0, NAN], [101.0, -2.0]], dtype=torch.float64)
    said = torch.randn(3, 2, requires_grad=True)
    outcome = task.run(Says(said), Batch(torch.zeros(3, 6, 1), targets(own)))
    away = (targets.own(said) - own)[~own.isnan()].detach()  # in the units of the data
    z = away / torch.tensor([20.0, 0.5, 20.0, 20.0, 0.5], dtype=torch.float64)
    assert outcome.count == 5
    assert outcome.loss.item() == pytest.approx(z.square().mean().item(), rel=1e-6)
    found = scores(task, outcome, outputs=2)
    assert found["mse"] == pytest.approx(away.square().mean().item(), rel=1e-6)
    assert found["mae"] == pytest.approx(away.abs().mean().item(), rel=1e-6)
    outcome.loss.backward()
    assert (said.grad != 0).flatten().tolist() == [True, True, True, False, True, True]


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_each_loss_is_its_formula(loss) -> None:
    away = torch.tensor([0.3, -2.0, 0.0, 1.0])
    by_hand = {
        "mse": away.square(),
        "mae": away.abs(),
        "huber": torch.where(away.abs() < 1, away.square() / 2, away.abs() - 0.5),
    }
    outcome = Regression(loss=loss).run(Says(away[:, None]), Batch(torch.zeros(4, 6, 1), torch.zeros(4, 1)))
    torch.testing.assert_close(outcome.loss, by_hand[loss].mean())


def test_answers_at_every_step_for_a_target_of_the_sequence_are_averaged() -> None:
    task = told(Regression(skip=1), interface(NumberTargets((0.0,), (1.0,))))
    every, lengths = torch.randn(2, 6, 1), torch.tensor([6, 3])
    outcome = task.run(Says(every), Batch(torch.zeros(2, 6, 1), torch.zeros(2, 1), lengths))
    by_hand = torch.stack([every[0, 1:6].mean(), every[1, 1:3].mean()])
    torch.testing.assert_close(outcome.loss, by_hand.square().mean())
    torch.testing.assert_close(task.answer(every, lengths)[:, 0], by_hand)


def test_steps_without_a_target_behind_the_end_or_skipped_do_not_count() -> None:
    targets = NumberTargets((0.0,), (1.0,), steps=True)
    task, every = told(Regression(skip=2), interface(targets)), torch.randn(2, 6, 1)
    y = torch.zeros(2, 6, 1)
    y[0, 4] = NAN
    batch = Batch(torch.zeros(2, 6, 1), y, torch.tensor([6, 4]))
    outcome = task.run(Says(every), batch)
    counted = torch.cat([every[0, [2, 3, 5], 0], every[1, [2, 3], 0]])
    assert outcome.count == 5
    torch.testing.assert_close(outcome.loss, counted.square().mean())
    assert task.answer(every, batch.lengths) is every
    nothing = task.run(Says(every), batch._replace(y=torch.full_like(y, NAN)))
    assert (nothing.loss.item(), nothing.count) == (0.0, 0)


def test_answers_of_another_shape_are_refused() -> None:
    for said, y in (((2, 1), (2, 6, 1)), ((2, 6, 2), (2, 6, 1)), ((2, 2), (2, 1)), ((2, 6, 2), (2, 1))):
        with pytest.raises(ValueError, match=r"need answers of the same shape.*model\.pool=each"):
            Regression().run(Says(torch.zeros(said)), Batch(torch.zeros(2, 6, 1), torch.zeros(y)))
    for options, says in (
        ({"loss": "rmse"}, "loss must be one of mse, mae, huber, got 'rmse'"),
        ({"select": "accuracy"}, "select must be one of loss, mse, mae, r2, got 'accuracy'"),
        ({"skip": -1}, "skip must be an integer >= 0, got -1"),
        ({"asked": {"mean": [0]}}, "asked is filled in by the data"),
    ):
        with pytest.raises(ValueError, match=says):
            Regression(**options)
    with pytest.raises(ValueError, match="skip=6 leaves nothing of a sequence of 6 steps"):
        Regression(skip=6).run(Says(torch.zeros(2, 6, 1)), Batch(torch.zeros(2, 6, 1), torch.zeros(2, 1)))


def test_determination_is_that_of_scikit_learn_and_of_torchmetrics() -> None:
    torch.manual_seed(0)
    y, said = torch.randn(30, 3) * torch.tensor([1.0, 5.0, 0.1]), torch.randn(30, 3)
    said = y + 0.3 * said * y.std(0)
    own, theirs, known = Determination(3), R2Score(), torch.ones(30, 3, dtype=torch.bool)
    for part in (slice(0, 13), slice(13, 30)):
        own.update(said[part], y[part], known[part])
        theirs.update(said[part], y[part])
    assert 0.5 < float(own.compute()) < 0.99
    assert float(own.compute()) == pytest.approx(float(theirs.compute()), abs=1e-5)
    known[:20, 1] = False
    own.reset()
    own.update(said, torch.where(known, y, NAN), known)
    by_hand = [r2_score(y[k][:, None], s[k][:, None]) for y, s, k in zip(y.T, said.T, known.T, strict=True)]
    assert float(own.compute()) == pytest.approx(np.mean(by_hand), abs=1e-5)


def test_determination_of_one_row_or_of_equal_targets_is_a_number() -> None:
    for y, said, is_ in (([2.0], [2.5], 0.0), ([2.0], [2.0], 1.0), ([2.0, 2.0], [2.0, 1.0], 0.0)):
        metric = Determination(1)
        y, said = torch.tensor(y)[:, None], torch.tensor(said)[:, None]
        metric.update(said, y, torch.ones_like(y, dtype=torch.bool))
        assert float(metric.compute()) == is_


def test_moving_to_a_device_leaves_the_sums_in_double_precision() -> None:
    """`Metric.to` names float32 as the dtype of a metric whose states stay as they are."""
    y = 0.3 + torch.zeros(7, 1)
    for metric in (Determination(1).to("cpu"), wide(Determination(1)).to("cpu")):
        metric.update(y + 0.1, y, torch.ones_like(y, dtype=torch.bool))
        assert float(metric.compute()) == 0.0
    mean = wide(WeightedMean()).to("cpu")
    mean.update(torch.tensor([1.0, 1e-12], dtype=torch.float64))
    assert float(mean.compute()) == pytest.approx((1 + 1e-12) / 2, rel=1e-14)


def test_several_numbers_of_which_one_was_never_seen() -> None:
    y, known = torch.randn(9, 2), torch.tensor([[True, False]] * 9)
    metric = Determination(2)
    metric.update(y + 0.1, y, known)
    assert float(metric.compute()) == pytest.approx(r2_score(y[:, 0], y[:, 0] + 0.1), rel=1e-5)


@pytest.mark.parametrize("std", [1e-24, 1.0, 1e22])
def test_squares_in_any_unit(std) -> None:
    targets = NumberTargets((0.0,), (std,))
    task = told(Regression(), interface(targets))
    z = torch.tensor([[0.5], [-1.0], [2.0]])
    batch = Batch(torch.zeros(3, 6, 1), targets(z.double() * std))
    found = scores(task, task.run(Says(z + 0.25), batch))
    assert found["mse"] == pytest.approx(0.0625 * std**2, rel=1e-5)
    assert found["mae"] == pytest.approx(0.25 * std, rel=1e-5)


@pytest.mark.parametrize("inputs", [Numbers(divide=2.0, mean=(3.0,), std=(4.0,), scale=0.5), Audio(8000, 0.25)])
def test_the_naive_forecast_says_the_same_as_now(inputs) -> None:
    raw = torch.tensor([[[7000.0], [9000.0], [4000.0], [1000.0], [2000.0], [2500.0]]])
    raw = raw.short() if isinstance(inputs, Audio) else raw
    units = torch.as_tensor(inputs.units(raw.numpy())).double()
    horizon, targets = 2, NumberTargets((1.5,), (0.7,), steps=True, horizon=2)
    y = torch.full((1, 6, 1), NAN, dtype=torch.float64)
    y[:, :-horizon] = units[:, horizon:]
    task = told(Forecast(horizon=horizon), interface(targets, inputs))
    outcome = task.run(Says(torch.randn(1, 6, 1)), Batch(inputs(raw), targets(y)))
    away = (units[:, horizon:] - units[:, :-horizon]).square().mean().item()
    assert scores(task, outcome)["naive_mse"] == pytest.approx(away, rel=1e-4)
    assert outcome.count == 4


def test_a_chunk_has_the_targets_of_its_steps() -> None:
    batch = Batch(torch.zeros(2, 6, 1), torch.arange(12.0).reshape(2, 6, 1))
    assert labels_every_step(batch)
    task, part = chunk(Regression(skip=3), batch, 2, 5)
    assert (task.skip, part.y[:, :, 0].tolist()) == (1, [[2.0, 3.0, 4.0], [8.0, 9.0, 10.0]])
    whole = Batch(torch.zeros(2, 6, 1), torch.zeros(2, 3))
    assert not labels_every_step(whole)
    assert chunk(Regression(), whole, 0, 3)[1].y.shape == (2, 3)
