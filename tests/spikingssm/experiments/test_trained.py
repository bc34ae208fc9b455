"""A run folder as a thing to use: opened without data, asked about raw rows, moved, copied, tested on other files."""

import contextlib
import copy
import csv
import dataclasses
import io
import json
import pickle
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from loguru import logger
from small_runs import recurrent_run

import spikingssm
from spikingssm.__main__ import main as command
from spikingssm.datasets import arrays
from spikingssm.experiments.config import load_config
from spikingssm.experiments.evaluation import evaluate, load_run, measure
from spikingssm.experiments.run import run
from spikingssm.measures.spikes import spikes_of

QUIET = ["threads=1", "trainer.enable_progress_bar=false", "trainer.accelerator=cpu", "trainer.max_epochs=1"]
TINY = ["model.d_model=8", "model.n_layers=2", "optim.lr=0.02", *QUIET]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Rows of several lengths, three of the 19 for testing behind the first batch of 16; bytes, for the scale."""
    path = tmp_path_factory.mktemp("rows") / "rows.npz"
    draw = np.random.default_rng(0)
    x, lengths = draw.integers(0, 256, (43, 24, 2)).astype(np.uint8), draw.integers(8, 25, 43)
    y = (x[:, :8, 0].mean(1) > 127).astype(np.int64)
    test = {"x_test": x[24:], "y_test": y[24:], "lengths_test": lengths[24:]}
    np.savez(path, x=x[:24], y=y[:24], lengths=lengths[:24], **test)
    return path


def words(rows, *more):
    data = ["dataset=arrays", f"data.path={rows}", "data.batch_size=16", "data.val_fraction=0.25", "data.scale=0.05"]
    return [*data, *TINY, *more]


@pytest.fixture(scope="module")
def runs(rows, tmp_path_factory):
    """A run of each kind of network; the files that they were trained on are then gone."""
    folder = tmp_path_factory.mktemp("runs")
    s5rf = ["model=s5rf", "model.num_blocks=2", "model.n_layers=1", "data.scale=10"]
    brf = ["model=brf", "task=every_step", "model.pool=each", "model.n_layers=1", "data.scale=4"]
    made = {
        "spikingssm": run(load_config(words(rows, f"run_dir={folder / 'a'}"))),
        "s5rf": run(load_config(words(rows, *s5rf, f"run_dir={folder / 'b'}"))),
        "every step": run(load_config(words(rows, *brf, f"run_dir={folder / 'c'}"))),
        "steps": recurrent_run(folder / "d"),
    }
    found = {name: (path, load_run(path)) for name, path in made.items()}
    moved = rows.with_name("kept.npz")
    rows.rename(moved)
    (folder / "rows.npz").rename(folder / "kept.npz")
    yield found
    moved.rename(rows)


def logits_of_the_test(opened):
    """What the network answers in the test loop, and what its rows are before they are prepared."""
    seen = []
    handle = opened.module.model.register_forward_hook(lambda module, args, output: seen.append(output[0].detach()))
    measure(opened)
    handle.remove()
    rows = opened.data.test_set.rows
    return torch.cat(seen), rows.x, rows.lengths


@pytest.mark.parametrize("name", ["spikingssm", "s5rf", "every step", "steps"])
def test_predictions_are_those_of_the_test_loop_without_any_data(runs, name):
    folder, opened = runs[name]
    model = spikingssm.load_model(folder)
    batch = opened.data.batch_size
    every, x, lengths = logits_of_the_test(opened)
    found = model.predict(x, lengths, batch_size=batch)
    wanted = every
    if name == "every step":  # the mean over the steps that are real, written once more
        wanted = torch.stack([row[:n].mean(0) for row, n in zip(every, lengths.tolist(), strict=True)])
        torch.testing.assert_close(found.logits, wanted, atol=1e-6, rtol=1e-6)
    else:
        assert torch.equal(found.logits, wanted)
    assert found.logits.std() > 1e-3  # the rows differ
    torch.testing.assert_close(found.probabilities.sum(-1), torch.ones(found.labels.shape))
    if name == "steps":
        assert found.names is None
        assert torch.equal(found.labels, wanted.argmax(-1))
    else:
        right = np.mean(found.labels.numpy() == opened.data.test_set.rows.y)
        assert right == pytest.approx(json.loads((folder / "summary.json").read_text())["test"]["accuracy"])
        assert found.names == [str(label) for label in found.labels.tolist()]
    rate = json.loads((folder / "summary.json").read_text())["test"]["spikes"]
    assert float(found.spikes.double().mean()) == pytest.approx(rate)
    assert found.spikes.min() < found.spikes.max()
    assert torch.equal(torch.stack(list(found.layers.values())).sum(0), found.spikes)


def test_spikes_are_counted_row_by_row(runs):
    model = spikingssm.load_model(runs["s5rf"][0])
    x = np.random.default_rng(1).integers(0, 256, (5, 24, 2)).astype(np.uint8)
    found = model.predict(x, batch_size=2)
    seen = spikes_of(model.network, model.prepare(x)[0])
    assert found.layers.keys() == seen.keys()
    for name, spikes in seen.items():
        assert torch.equal(found.layers[name], spikes.sum((1, 2)).long())


def test_several_threads_may_ask_one_model(runs):
    """Spikes are counted by hooks of the network, which would see those of another thread."""
    model = spikingssm.load_model(runs["s5rf"][0])
    xs = np.random.default_rng(2).integers(0, 256, (12, 1, 24, 2)).astype(np.uint8)
    wanted = [model.predict(x) for x in xs]
    assert len({int(each.spikes) for each in wanted}) > 3
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(model.predict, xs))
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one.spikes, other.spikes)
        assert torch.equal(one.logits, other.logits)


def test_a_moved_a_copied_and_a_saved_model_answer_alike(runs, tmp_path):
    folder, opened = runs["spikingssm"]
    x = opened.data.test_set.rows.x
    model = spikingssm.load_model(folder)
    wanted = model.predict(x).logits
    shutil.copytree(folder, tmp_path / "elsewhere")
    torch.save(model, tmp_path / "whole.pt")
    others = {
        "another folder": spikingssm.load_model(tmp_path / "elsewhere"),
        "pickle": pickle.loads(pickle.dumps(model)),
        "deepcopy": copy.deepcopy(model),
        "torch.save": torch.load(tmp_path / "whole.pt", weights_only=False),
        "save": spikingssm.load_model(model.save(tmp_path / "saved")),
    }
    for name, other in others.items():
        assert torch.equal(other.predict(x).logits, wanted), name
    assert sum(file.stat().st_size for file in (tmp_path / "saved").rglob("*.*")) < 60_000
    assert evaluate(tmp_path / "saved", data=kept(runs, tmp_path))["rows"] == 19
    with pytest.raises(FileExistsError, match="is not empty"):
        model.save(tmp_path / "saved")


def kept(runs, folder):
    """The test rows as a file of their own."""
    rows = runs["spikingssm"][1].data.test_set.rows
    np.savez(folder / "other.npz", x=rows.x, y=rows.y, lengths=rows.lengths)
    return folder / "other.npz"


def test_another_solver_and_a_list_of_sequences(runs):
    folder, opened = runs["spikingssm"]
    rows = opened.data.test_set.rows
    exact = spikingssm.load_model(folder, "fused")
    found = exact.predict([row[:n] for row, n in zip(rows.x, rows.lengths, strict=True)])
    assert torch.equal(found.logits, spikingssm.load_model(folder).with_solver("fused").predict(*rows[::2]).logits)
    one = exact.predict(rows.x[0][: rows.lengths[0]])
    torch.testing.assert_close(one.logits, found.logits[:1], atol=1e-5, rtol=1e-5)


def test_a_stream_step_by_step_is_the_whole(runs):
    model = spikingssm.load_model(runs["every step"][0])
    x = model.prepare(runs["every step"][1].data.test_set.rows.x[:2])[0]
    state, every = None, []
    for step in x.unbind(1):
        logits, state = model.step(step, state)
        every.append(logits)
    torch.testing.assert_close(torch.stack(every, 1), model(x)[0], atol=1e-5, rtol=1e-5)


def test_other_data_are_tested_as_the_own_ones(runs, tmp_path):
    folder, opened = runs["spikingssm"]
    own, other = measure(opened), evaluate(folder, data=kept(runs, tmp_path))
    assert {k: v for k, v in other.items() if k != "run"} == {k: v for k, v in own.items() if k != "run"}
    matrix = np.zeros((2, 2), int)
    found = spikingssm.load_model(folder).predict(*opened.data.test_set.rows[::2])
    np.add.at(matrix, (opened.data.test_set.rows.y, found.labels.numpy()), 1)
    assert other["by_class"]["confusion"] == matrix.tolist()
    assert other["by_class"]["balanced_accuracy"] == pytest.approx((matrix.diagonal() / matrix.sum(1)).mean())


def said(*argv):
    """What the command prints."""
    out = io.StringIO()
    before, sys.argv = sys.argv, ["spikingssm", *map(str, argv)]
    try:
        with contextlib.redirect_stdout(out):
            command()
    finally:
        sys.argv = before
    return out.getvalue()


def test_the_commands(runs, tmp_path):
    folder, opened = runs["spikingssm"]
    file, table = kept(runs, tmp_path), tmp_path / "answers.csv"
    text = said("predict", folder, file, "--out", table)
    found = spikingssm.load_model(folder).predict(*opened.data.test_set.rows[::2])
    right = int((found.labels.numpy() == opened.data.test_set.rows.y).sum())
    assert text.splitlines()[-1] == f"{right} of 19 right"
    with table.open() as lines:
        written = list(csv.DictReader(lines))
    assert [row["label"] for row in written] == found.names
    assert [float(row["p(1)"]) for row in written] == pytest.approx(found.probabilities[:, 1].tolist(), abs=1e-6)
    assert [int(row["spikes"]) for row in written] == found.spikes.tolist()
    assert "2 channels" in said("predict", folder)
    assert "networks that ship" in said("predict")
    text = said("evaluate", folder, "--data", file, "--confusion")
    assert "true \\ answer" in text
    steps = runs["steps"][0]
    x = runs["steps"][1].data.test_set.rows.x
    np.savez(tmp_path / "x.npz", x=x)
    said("predict", steps, tmp_path / "x.npz", "--out", table)
    with table.open() as lines:
        assert len(list(csv.DictReader(lines))) == x.shape[0] * x.shape[1]


def test_what_cannot_be_asked_says_why(runs, tmp_path):
    folder = runs["spikingssm"][0]
    model = spikingssm.load_model(folder)
    with pytest.raises(ValueError, match=r"\(N, L, 2\) for this network, got \(3, 2, 24\); x.transpose\(0, 2, 1\)"):
        model.predict(np.zeros((3, 2, 24)))
    with pytest.raises(ValueError, match="NaN or infinity, first in row 1"):
        model.predict(np.stack([np.zeros((24, 2)), np.full((24, 2), np.nan)]))
    with pytest.raises(FileNotFoundError, match="no such run folder"):
        spikingssm.load_model(tmp_path / "nothing")
    lines = []
    sink = logger.add(lambda line: lines.append(str(line)), level="WARNING", format="{message}")
    model.predict(np.zeros((24, 5, 2)))  # time first
    model.predict(np.zeros((24, 24, 2)))
    logger.remove(sink)
    assert len(lines) == 1
    assert "x is read as 24 sequences of 5 steps, and the network was trained on 24 steps. If time comes" in lines[0]
    shutil.copytree(folder, tmp_path / "older")
    (tmp_path / "older" / "inputs.json").unlink()
    with pytest.raises(ValueError, match="has no inputs"):
        spikingssm.load_model(tmp_path / "older")
    np.savez(tmp_path / "no_labels.npz", x=np.zeros((3, 24, 2)))
    with pytest.raises(ValueError, match="no labels in it"):
        evaluate(folder, data=tmp_path / "no_labels.npz")
    np.savez(tmp_path / "strange.npz", x=np.zeros((3, 24, 2)), y=np.array([0, 1, 2]))
    with pytest.raises(ValueError, match=r"strange\.npz: labels are from 0 to 2, 2 classes take 0 to 1"):
        evaluate(folder, data=tmp_path / "strange.npz")
    with pytest.raises(ValueError, match=r"--root .* for the data of the training"):
        evaluate(folder, data=tmp_path / "strange.npz", root=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"rows\.npz: no such file; .*; give other data .* with --data FILE\.$"):
        evaluate(folder)
    with pytest.raises(ValueError, match=r"load_config takes a list .*load_model\('runs/a'\)"):
        spikingssm.load("runs/a")


def test_a_network_of_64_bits_answers_raw_numbers_as_its_test_does(runs, tmp_path):
    folder = runs["spikingssm"][0]
    rows = runs["spikingssm"][1].data.test_set.rows
    double = spikingssm.load_model(folder).double()
    found = double.predict(*rows[::2])
    assert found.logits.dtype == torch.float64
    torch.testing.assert_close(found.logits.float(), spikingssm.load_model(folder).predict(*rows[::2]).logits)


def test_a_sequence_that_a_task_skips_whole_is_refused(runs):
    model = spikingssm.load_model(runs["every step"][0])
    model.task = dataclasses.replace(model.task, skip=10)
    x = runs["every step"][1].data.test_set.rows.x
    assert model.predict(x).probabilities.isfinite().all()
    for given, lengths in ((x[:, :10], None), (x, np.full(len(x), 10))):
        with pytest.raises(ValueError, match="skip=10 leaves nothing of a sequence of 10 steps"):
            model.predict(given, lengths)


def test_classes_are_counted_where_processes_gather_them(runs, monkeypatch):
    """Lightning moves a module to the CPU behind the test; NCCL gathers on devices only."""
    opened, calls = runs["spikingssm"][1], []
    kind, compute = type(opened.module.confusion), opened.module.confusion.compute
    to = kind.to
    monkeypatch.setattr(kind, "to", lambda self, *where: (calls.append(("to", *map(str, where))), to(self, *where))[1])
    monkeypatch.setattr(opened.module.confusion, "compute", lambda: (calls.append("compute"), compute())[1])
    measure(opened)
    assert calls[-2:] == [("to", "cpu"), "compute"]


def test_data_with_a_function_of_their_own_are_said(runs, tmp_path):
    data = arrays(runs["steps"][0].parent / "kept.npz")
    assert data.interface.inputs is not None
    made = type(data)("own", data.train_set.rows, data.test_set.rows, d_output=4, prepare=lambda x: x.float())
    made.interface.write(tmp_path)
    assert not list(tmp_path.iterdir())
