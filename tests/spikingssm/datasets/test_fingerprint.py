"""Runs on other rows of the same shape are told apart: in a resume, a report and a test."""

import json

import numpy as np
import pytest
import torch
from loguru import logger
from small_runs import recurrent_run, rows

from spikingssm.datasets import arrays
from spikingssm.datasets.base import Selected
from spikingssm.datasets.fingerprint import fingerprint
from spikingssm.experiments.evaluation import evaluate
from spikingssm.experiments.variants import variant
from spikingssm.reports.tables import report
from spikingssm.training.fit import _check_data


def test_it_follows_from_the_rows_however_they_are_kept():
    x, y = np.random.default_rng(0).normal(size=(500, 7, 2)), np.arange(500)
    known = fingerprint(x, y)
    assert len(known) == 12
    assert fingerprint(torch.as_tensor(x), torch.as_tensor(y)) == known
    assert fingerprint(Selected(x, np.arange(500)), y) == known
    for other in ((x + 1e-9, y), (x[:499], y[:499]), (x.astype(np.float32), y), (x, y + 1), (x[::-1], y)):
        assert fingerprint(*other) != known
    assert fingerprint(x[:0], y[:0]) != known
    assert fingerprint(x[:1], y[:1]) == fingerprint(x[:1].copy(), y[:1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prints")
    recurrent_run(folder / "a" / "one")
    return recurrent_run(folder / "b" / "two", "seed=1")


def test_it_does_not_depend_on_the_seed_or_on_how_many_rows_are_used(trained):
    path = trained.parent / "rows.npz"
    some = [arrays(path, seed=seed, limit_eval=limit, batch_size=2) for seed, limit in ((0, None), (3, 5))]
    assert some[0].digests == some[1].digests
    assert arrays(path, test_only=True, batch_size=2).digests["test_digest"] == some[0].digests["test_digest"]


def told(call):
    lines = []
    handler = logger.add(lines.append, format="{message}")
    call()
    logger.remove(handler)
    return "".join(lines)


def test_replaced_rows_are_told(trained):
    path = trained.parent / "rows.npz"
    known = json.loads((trained / "summary.json").read_text())["dataset"]
    same = arrays(path, batch_size=8, seed=1, val_fraction=0.2, classes=4)
    _check_data(trained, known, same)
    assert "not those" not in told(lambda: evaluate(trained))
    before = path.read_bytes()
    try:
        rows(path, seed=5)
        with pytest.raises(ValueError, match="was trained on data with test_digest"):
            _check_data(trained, known, arrays(path, batch_size=8, seed=1, val_fraction=0.2, classes=4))
        assert "the test rows are not those that this run was tested on" in told(lambda: evaluate(trained))
    finally:
        path.write_bytes(before)


def test_runs_on_other_rows_have_no_mean(trained, tmp_path):
    one = trained.parents[1] / "a" / "one"
    assert "mean of 2" in report([one, trained])
    result = json.loads((trained / "summary.json").read_text())
    result["dataset"]["test_digest"] = "0" * 12
    (tmp_path / "other.json").write_text(json.dumps(result))
    assert "mean of" not in report([one, tmp_path / "other.json"])


def test_a_name_of_the_user_does_not_say_the_experiment():
    assert variant(["experiment=s5rf/smnist", "dataset=arrays"]) == "dataset=arrays"
    assert variant(["experiment=s5rf/smnist", "dataset=arrays", "name=P"]) == "experiment=s5rf/smnist, dataset=arrays"
