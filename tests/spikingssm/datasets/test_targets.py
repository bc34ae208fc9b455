"""Numbers, sets of labels and series of one's own: read, standardised, kept, refused with the way out."""

import json

import numpy as np
import pytest
import torch

from spikingssm.datasets import arrays, fsdd, series
from spikingssm.datasets.described import described
from spikingssm.datasets.inputs import Numbers
from spikingssm.datasets.interface import Interface
from spikingssm.datasets.series import mackey_glass
from spikingssm.datasets.targets import LabelTargets, NumberTargets, ahead, as_numbers, scaled

ROWS, STEPS = 20, 6
OPTIONS = {"batch_size": 4, "val_fraction": 0.2}
NUMBERS = {"targets": "numbers", **OPTIONS}


@pytest.fixture
def saved(tmp_path):
    """Writes x and y; gives the path."""
    draw = np.random.default_rng(0)

    def save(y=None, x=None, name="own.npz", **more):
        x = draw.normal(size=(ROWS, STEPS, 2)).astype(np.float32) if x is None else x
        np.savez(tmp_path / name, x=x, **({} if y is None else {"y": y}), **more)
        return tmp_path / name

    return save


def batches(data):
    return torch.cat([batch.y for batch in data.test_dataloader()])


@pytest.mark.parametrize(
    ("shape", "becomes"),
    [((), (1,)), ((3,), (3,)), ((STEPS,), (STEPS, 1)), ((STEPS, 2), (STEPS, 2)), ((1,), (1,))],
)
def test_numbers_of_sequences_and_of_steps_are_read(shape, becomes, saved) -> None:
    y = np.random.default_rng(1).normal(5, 3, (ROWS, *shape))
    data = arrays(saved(y), **NUMBERS)
    assert data.train_set.rows.y.shape[1:] == becomes
    assert data.d_output == becomes[-1]
    assert data.targets.steps == (len(becomes) == 2)
    batch = batches(data)
    assert (batch.dtype, batch.shape[1:]) == (torch.float32, becomes)
    np.testing.assert_allclose(data.targets.own(batch).numpy(), data.test_set.rows.y, rtol=1e-6)
    train = data.targets(torch.as_tensor(data.train_set.rows.y)).double().reshape(-1, becomes[-1])
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(train.std(0, correction=0), 1, rtol=1e-5)


def test_whole_numbers_are_numbers_where_they_are_asked_for(saved) -> None:
    path = saved(np.arange(ROWS) * 1000)
    data = arrays(path, targets="numbers", **OPTIONS)
    assert data.d_output == 1
    assert data.targets.own(batches(data)).round().long().flatten().tolist() == data.test_set.rows.y.ravel().tolist()
    assert arrays(saved(np.arange(ROWS) % 3), **OPTIONS).targets is None


def test_large_targets_that_differ_little_lose_no_digits(saved) -> None:
    y = 1e6 + np.random.default_rng(1).normal(size=ROWS)
    data = arrays(saved(y), **NUMBERS)
    assert data.targets.std[0] == pytest.approx(1, rel=0.5)
    np.testing.assert_allclose(
        data.targets.own(batches(data)).numpy()[:, 0], data.test_set.rows.y[:, 0], rtol=0, atol=1e-6
    )


def test_what_is_missing_or_behind_the_end_is_nan_and_the_log_says_how_much(saved) -> None:
    y = np.ones((ROWS, STEPS)) * np.arange(STEPS)
    y[:, 1] = np.nan
    data = arrays(saved(y, lengths=np.full(ROWS, 4)), **NUMBERS)
    assert torch.isnan(batches(data)[..., 0]).tolist() == [[False, True, False, False, True, True]] * 2
    assert data.targets.mean == pytest.approx(((0 + 2 + 3) / 3,))
    said = described(data)
    assert "targets at every step: 0 to 3 (mean 1.67, standard deviation 1.25); 25 % of them are missing" in said


def test_equal_targets_have_a_deviation_of_one_and_the_log_says_it(saved, loguru_lines) -> None:
    data = arrays(saved(np.stack([np.full(ROWS, 0.1), np.arange(ROWS)], 1)), **NUMBERS)
    assert data.targets.std[0] == 1.0
    assert any("every training target number 0 is 0.1; there is nothing to learn" in line for line in loguru_lines)


@pytest.fixture
def loguru_lines():
    from loguru import logger

    lines = []
    handler = logger.add(lines.append, format="{message}")
    yield lines
    logger.remove(handler)


def test_wrong_targets_are_refused_with_both_shapes_and_the_way_out(saved) -> None:
    good = np.zeros(ROWS)
    for y, targets, says in (
        (
            np.zeros(ROWS),
            "classes",
            "y must hold integer labels or names, got float64; numbers are for task",
        ),
        (np.zeros((ROWS, STEPS + 1, 2)), "numbers", r"or \(20, 6, D\) for every step, got \(20, 7, 2\)"),
        (np.zeros(ROWS - 1), "numbers", r"y must be \(20,\) or \(20, D\) for sequences.* got \(19,\)"),
        (np.full(ROWS, np.inf), "numbers", "y holds infinity, first in row 0; NaN marks a missing target"),
        (np.full(ROWS, np.nan), "numbers", "y holds no number, every target is missing"),
        (np.array(["a", "b"] * 10), "numbers", "y must hold numbers for task=regression, got <U1"),
        (np.stack([good, good * np.nan], 1), "numbers", r"no training row has the target 1, all are missing"),
        (np.arange(ROWS) % 2, "labels", r"y must be \(20, K\).*got \(20,\); a single label is a classification"),
        (np.full((ROWS, 3), 2), "labels", "y must hold 0 and 1, whether a row has each label.* got 2"),
        (np.full((ROWS, 3), "a"), "labels", "y must hold 0 and 1"),
        (np.zeros(ROWS), "what", "targets must be null or one of classes, numbers, labels, next, got 'what'"),
    ):
        with pytest.raises(ValueError, match=says):
            arrays(saved(y), targets=targets, **OPTIONS)
    with pytest.raises(ValueError, match=r"own.npz: y for training is .* and y for testing"):
        arrays(saved(good, x_test=np.zeros((3, STEPS, 2)), y_test=np.zeros((3, 2))), **NUMBERS)
    with pytest.raises(ValueError, match="names 2 and y has 3 a row; give one name for each"):
        arrays(saved(np.zeros((ROWS, 3), int)), targets="labels", classes=["a", "b"], **OPTIONS)
    for scaling in ({"mean": [0.0]}, {"mean": [0.0, 0.0], "std": [1.0, 1.0]}, {"mean": [0.0], "std": [0.0]}):
        with pytest.raises(ValueError, match=r"target_scaling|one finite mean and one std > 0"):
            arrays(saved(good), target_scaling=scaling, **NUMBERS)


def test_a_file_of_one_row_is_tested_with_the_scale_that_is_known(saved) -> None:
    path = saved(np.array([7.0]), np.zeros((1, STEPS, 2)))
    data = arrays(
        test_path=path, path=path, targets="numbers", test_only=True, target_scaling={"mean": [5.0], "std": [2.0]}
    )
    assert batches(data).tolist() == [[1.0]]
    with pytest.raises(ValueError, match="test_fraction must leave rows on both sides of 1"):
        arrays(path, targets="numbers")


def test_sets_of_labels_are_read_with_their_names_and_may_be_empty(saved) -> None:
    y = np.zeros((ROWS, 3), int)
    y[:10, 0] = y[5:15, 1] = 1
    data = arrays(saved(y), targets="labels", classes=["hum", "click", "hiss"], **OPTIONS)
    assert (data.d_output, data.targets) == (3, LabelTargets())
    assert batches(data).dtype == torch.float32
    assert "3 labels: click 57 %, hum 43 %, hiss 0 %; 1 a row" in described(data)
    assert data.interface.asked(np.zeros((2, 3)), np.zeros((2, STEPS, 2)), None).tolist() == [[0, 0, 0]] * 2


def test_a_table_with_a_float_column_gives_numbers(tmp_path) -> None:
    lines = ["sequence,label,a,b"]
    lines += [f"s{i},{i / 4 if i else 'nan'},{t},{i * t}" for i in range(10) for t in range(5)]
    (tmp_path / "own.csv").write_text("\n".join(lines))
    data = arrays(tmp_path / "own.csv", **NUMBERS)
    assert (data.targets.steps, data.d_output, data.d_input) == (False, 1, 2)
    known = np.concatenate([data.train_set.rows.y, data.test_set.rows.y]).ravel()
    assert sorted(known[~np.isnan(known)].tolist()) == [i / 4 for i in range(1, 10)]
    lines = ["sequence,label,a"] + [f"s{i},{i + t / 8},{t}" for i in range(10) for t in range(5 - i % 2)]
    (tmp_path / "steps.csv").write_text("\n".join(lines))
    data = arrays(tmp_path / "steps.csv", **NUMBERS)
    assert data.targets.steps
    assert np.isnan(data.train_set.rows.y).any()  # behind the end of the shorter rows
    (tmp_path / "plain.csv").write_text("\n".join(f"{i / 4},{i},{i + 1},{i + 2}" for i in range(10)))
    assert arrays(tmp_path / "plain.csv", **NUMBERS).targets.mean[0] == pytest.approx(1.1, abs=0.3)
    with pytest.raises(ValueError, match="got 10 different decimals in 10 labels; numbers are for task=regression"):
        arrays(tmp_path / "own.csv", targets="classes", **OPTIONS)


def test_targets_that_are_too_large_are_said_to_be(saved) -> None:
    for size in ("1e+200", "1.5e+308"):
        y = float(size) * np.random.default_rng(0).choice([0.5, 1.0], ROWS)
        y[0] = float(size)
        says = f"own.npz: y reaches {size} in size, .* divide y by {size} first"
        with pytest.raises(ValueError, match=says.replace("+", r"\+")):
            arrays(saved(y), val_fraction=0.2, batch_size=4, targets="numbers", test_path=saved(y, name="t.npz"))
        assert arrays(saved(y / float(size)), **NUMBERS).targets.std[0] > 0


def test_what_comes_next_is_x_later_and_nothing_behind_the_end(saved) -> None:
    x = np.random.default_rng(0).normal(3, 2, (ROWS, STEPS, 2))
    data = arrays(saved(x=x, lengths=np.full(ROWS, 5)), targets="next", horizon=2, scale="standardise", **OPTIONS)
    rows = data.train_set.rows
    np.testing.assert_array_equal(rows.y[:, :3], rows.x[:, 2:5])
    assert np.isnan(rows.y[:, 3:]).all()
    assert data.targets == scaled(rows.y, horizon=2)
    assert "targets are x 2 steps later" in described(data)
    np.testing.assert_array_equal(data.interface.asked(None, rows.x, rows.lengths), rows.y)
    for horizon in (0, -1, 5, 6, 1.0):
        with pytest.raises(ValueError, match=r"horizon must be an integer from 1 to 4.* see task\.horizon"):
            arrays(saved(x=x, lengths=np.full(ROWS, 5)), targets="next", horizon=horizon, **OPTIONS)
    assert ahead(np.arange(4)[None, :, None], 3)[0, :, 0].tolist()[:1] == [3.0]


def test_sound_is_forecast_in_parts_of_its_loudest_sample() -> None:
    data = fsdd(generated=True, length=300, horizon=1, limit_train=8, batch_size=4)
    rows, end = data.test_set.rows, data.test_set.rows.lengths[0]
    np.testing.assert_allclose(rows.y[0, : end - 1, 0], rows.x[[0]][0, 1:end, 0].astype(float) / 2**15, atol=1e-7)
    assert np.isnan(rows.y[0, end - 1 :]).all()
    assert (data.d_output, data.targets.horizon) == (1, 1)
    assert set(data.fitted) == {"scaling", "target_scaling"}
    assert fsdd(generated=True, length=300, limit_train=8, batch_size=4).targets is None


def test_the_interface_of_numbers_and_labels_is_kept_and_a_damaged_one_is_refused(tmp_path) -> None:
    targets = NumberTargets((1.0, 2.0), (3.0, 4.0), steps=True, horizon=2)
    for kept in (targets, LabelTargets()):
        good = Interface("own", 24, 2, 2, Numbers(), targets=kept)
        good.write(tmp_path)
        assert Interface.read(tmp_path) == good
    Interface("own", 24, 2, 2, Numbers(), targets=targets).write(tmp_path)
    content = json.loads((tmp_path / "inputs.json").read_text())
    good = content["targets"]
    for change in (
        3, None, [], {}, {"kind": "other"}, {"kind": ["numbers"]}, {**good, "mean": [1.0]}, {**good, "std": [0.0, 1.0]},
        {**good, "mean": [1e400, 0.0]}, {**good, "mean": "ab"}, {**good, "mean": [[1], [2]]}, {**good, "horizon": -1},
        {**good, "horizon": 1.5}, {**good, "horizon": True}, {**good, "steps": 1}, {**good, "steps": False},
        {**good, "more": 1}, {**good, "mean": [1.0] * 3, "std": [1.0] * 3}, {"kind": "labels", "mean": []},
        {**good, "mean": [10**400, 0]},
    ):  # fmt: skip
        (tmp_path / "inputs.json").write_text(json.dumps({**content, "targets": change}))
        with pytest.raises(ValueError, match=r"inputs\.json"):
            Interface.read(tmp_path)
    Interface("own", 24, 2, 2, Numbers()).write(tmp_path)
    assert "targets" not in json.loads((tmp_path / "inputs.json").read_text())  # as older versions wrote it


def test_numbers_are_of_steps_where_the_second_axis_is_that_of_x() -> None:
    assert as_numbers(np.zeros((3, 6)), (3, 6, 2)).shape == (3, 6, 1)
    assert as_numbers(np.zeros((3, 5)), (3, 6, 2)).shape == (3, 5)
    assert as_numbers(np.zeros((3, 1)), (3, 1, 2)).shape == (3, 1)


def test_the_mackey_glass_rows_follow_the_equation() -> None:
    """Solved again with Euler steps 20 times as short, from what lies 17 units before."""
    x = mackey_glass(2, 40, np.random.default_rng(3))[0]
    grid = np.interp(np.arange(0, 18 * 200 + 1) / 200, np.arange(19), x[:19])  # the delayed values, by interpolation
    now = x[17]
    for k in range(200):
        now += (0.2 * grid[k] / (1 + grid[k] ** 10) - 0.1 * now) / 200
    assert now == pytest.approx(x[18], abs=2e-3)
    assert x.std() > 0.1


def test_series_are_drawn_alike_for_every_seed_and_refuse_what_is_out_of_range() -> None:
    found = [series("sines", length=20, rows=8, test_rows=2, batch_size=2, seed=seed) for seed in (0, 1)]
    assert found[0].digests == found[1].digests
    assert found[0].train_rows.tolist() != found[1].train_rows.tolist()
    noisy = series("sines", length=20, rows=8, test_rows=2, batch_size=2, noise=0.5)
    assert noisy.train_set.rows.x.std() > found[0].train_set.rows.x.std()
    for options, says in (
        ({"kind": "walk"}, "kind must be one of mackey_glass, sines, got 'walk'"),
        ({"length": 1}, "length must be an integer from 2"),
        ({"noise": -1}, "noise must be a number >= 0"),
        ({"horizon": 20, "length": 20}, "series: horizon must be an integer from 1 to 19"),
    ):
        with pytest.raises(ValueError, match=says):
            series(**{"kind": "sines", "rows": 4, "test_rows": 2, **options})
