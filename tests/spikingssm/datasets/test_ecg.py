"""ECG: labels of steps, steps without one, and what is refused."""

import sys

import numpy as np
import pytest
import requests
import torch
from scipy.io import savemat

from spikingssm.datasets import standin
from spikingssm.datasets.base import IGNORED
from spikingssm.datasets.ecg import ecg
from spikingssm.tasks import StepClassification


def content(rows: int, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.integers(-1, 2, (rows, 1301, 4)).astype(np.int16)
    y = np.zeros((rows, 1301, 6), np.uint8)
    for row in range(rows):
        for step in range(1200):  # the rest has no label
            y[row, step, (row + step // 10) % 6] = 1
    return {"x": x, "y": y}


def write(folder, train=None, test=None) -> None:
    savemat(folder / "QTDB_train.mat", content(8, 0) if train is None else train)
    savemat(folder / "QTDB_test.mat", content(3, 1) if test is None else test)


def test_steps_have_the_column_of_their_one_as_label_or_none(tmp_path) -> None:
    write(tmp_path)
    data = ecg(tmp_path, batch_size=3)
    batch = next(iter(data.test_dataloader()))
    assert (batch.x.shape, batch.x.dtype, batch.y.shape) == ((3, 1301, 4), torch.float32, (3, 1301))
    np.testing.assert_array_equal(batch.x, content(3, 1)["x"])
    assert batch.y[2, [0, 9, 10, 45, 1199, 1200, 1300]].tolist() == [2, 2, 3, 0, (2 + 119) % 6, IGNORED, IGNORED]
    assert (data.d_input, data.d_output, data.facts()["size"]) == (4, 6, "other")
    assert "808 of the 10,408 training steps and 303 of the 3,903 test steps have no label" in data.split


def test_both_ways_to_count_steps_without_a_label_are_reported(tmp_path) -> None:
    """A network that says 0 everywhere is right on a sixth of the labelled steps, and on all without a label."""
    write(tmp_path)
    batch = next(iter(ecg(tmp_path, batch_size=3).test_dataloader()))

    def zeros(x, state, lengths):
        return torch.tensor([1.0, 0, 0, 0, 0, 0]).expand(*x.shape[:2], 6), state

    task = StepClassification(unlabelled_as=0)
    said = task.run(zeros, batch, training=False)
    metrics = task.metrics(6)
    for name, arguments in said.updates.items():
        metrics[name].update(*arguments)
    right = int((batch.y == 0).sum())
    assert said.count == 3 * 1200
    assert float(metrics["accuracy"].compute()) == pytest.approx(right / 3600)
    assert float(metrics["accuracy_all"].compute()) == pytest.approx((right + 303) / 3903)


def test_a_length_keeps_the_first_steps_of_every_row(tmp_path) -> None:
    write(tmp_path)
    data, whole = (ecg(tmp_path, batch_size=3, length=length) for length in (1300, 1301))
    assert (data.facts()["length"], whole.facts()["length"], data.facts()["size"]) == (1300, 1301, "other")
    for part in ("train_set", "test_set"):
        one, other = (getattr(found, part)[1] for found in (data, whole))
        assert torch.equal(one.x, other.x[:, :-1])
        assert torch.equal(one.y, other.y[:, :-1])
    assert "300 of the 3,900 test steps have no label" in data.split
    assert ecg(generated=True, length=7).length == 7


@pytest.mark.parametrize("length", [0, 1302, 1300.0])
def test_a_length_out_of_range(length) -> None:
    with pytest.raises(ValueError, match=rf"length must be an integer from 1 to the 1301 steps of a row, got {length}"):
        ecg(generated=True, length=length)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x": np.zeros((8, 1300, 4))}, r"got \(8, 1300, 4\) and \(8, 1301, 6\)"),
        ({"x": np.zeros((7, 1301, 4), np.int16)}, r"got \(7, 1301, 4\) and \(8, 1301, 6\)"),
        ({"y": np.zeros((8, 1301, 5), np.uint8)}, r"got \(8, 1301, 4\) and \(8, 1301, 5\)"),
        ({"x": np.full((8, 1301, 4), 2, np.int16)}, "integers -1, 0 and 1, got int16 from 2 to 2"),
        ({"x": np.zeros((8, 1301, 4))}, "integers -1, 0 and 1, got float64"),
        ({"y": np.ones((8, 1301, 6), np.uint8)}, "at most one 1 a step and else 0, got up to 6"),
        ({"y": np.full((8, 1301, 6), 3, np.uint8)}, "at most one 1 a step and else 0"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, change, says) -> None:
    write(tmp_path, train={**content(8, 0), **change})
    with pytest.raises(ValueError, match=says):
        ecg(tmp_path)


def test_missing_and_damaged_files_are_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no QTDB_train\.mat in .* set data\.root"):
        ecg(tmp_path)
    write(tmp_path)
    path = tmp_path / "QTDB_test.mat"
    whole = path.read_bytes()
    for end in (0, 3, 100, 140, 5000, len(whole) - 50):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"QTDB_test\.mat: not a whole MATLAB file") as caught:
            ecg(tmp_path)
        assert "\n" not in str(caught.value)
    savemat(path, {"x": content(3, 1)["x"]})
    with pytest.raises(ValueError, match=r"got \(3, 1301, 4\) and \(0,\)"):
        ecg(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no QTDB_test\.mat"):
        ecg(tmp_path)


def test_without_scipy_it_says_what_to_install(tmp_path, monkeypatch) -> None:
    write(tmp_path)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(ImportError, match="extra `data`"):
        ecg(tmp_path)


def test_the_stand_in_has_the_shape_of_the_data_and_can_be_learned() -> None:
    facts = ecg(generated=True).facts()
    assert (facts["size"], facts["length"], facts["d_input"], facts["d_output"]) == ("generated", 1301, 4, 6)
    train, test = standin.segments(1301, 4, 6)
    assert sorted(set(train.y.ravel())) == [IGNORED, *range(6)]
    rates = np.stack([train.x[train.y == k].mean(0) for k in range(6)])
    seen = np.stack([test.x[:, lag : 1200 + lag] for lag in range(15)]).mean(0)  # mean rate of the next 15 steps
    guess = ((seen[:, :, None] - rates) ** 2).sum(-1).argmin(-1)
    assert (guess == test.y[:, :1200]).mean() > 0.4
    with pytest.raises(ValueError, match="both set; drop one"):
        ecg("somewhere", generated=True)


def test_a_failed_download_names_the_way_out(tmp_path, monkeypatch) -> None:
    def refuse(*args, **options):
        raise requests.exceptions.ConnectionError("no network")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(requests, "get", refuse)
    with pytest.raises(OSError, match=r"could not download .*brf-neurons/.*/QTDB_train\.mat .*data\.root=FOLDER"):
        ecg()
