"""Runs for numbers, sets of labels and forecasts: trained, opened, asked, tested on other files, lengthened."""

import csv
import json

import numpy as np
import pytest
import torch
from saying import Says

import spikingssm
from spikingssm.__main__ import main as command
from spikingssm.datasets import Batch
from spikingssm.datasets.interface import Interface
from spikingssm.experiments.build import build
from spikingssm.experiments.config import call, load_config
from spikingssm.experiments.evaluation import evaluate
from spikingssm.experiments.run import run
from spikingssm.reports.tables import report
from spikingssm.training.fit import SequenceModule

STEPS, LENGTHS = 16, np.array([16, 9, 12, 16] * 12)
TINY = [
    "recipe=spikingssm", "model.d_model=8", "model.n_layers=1", "model.d_state=4", "model.solver=loop",
    "data.batch_size=8", "data.val_fraction=0.25", "trainer.enable_progress_bar=false", "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
]  # fmt: skip
KINDS = {
    "sequence": ["task=regression"],
    "steps": ["task=regression", "model.pool=each", "task.loss=huber"],
    "labels": ["task=multilabel", "data.classes=[hum,click,hiss]"],
    "next": ["task=forecast", "model.pool=each", "task.horizon=2"],
}


def content(kind):
    draw = np.random.default_rng(0)
    x = draw.normal(50, 10, (48, STEPS, 2))
    found = {"x": x}
    if kind == "sequence":
        found["y"] = 1e6 + x.mean((1, 2))
    if kind == "steps":
        found |= {"y": x.cumsum(1) * [1, 1000], "lengths": LENGTHS}
        found["y"][::5, 3] = np.nan
    if kind == "labels":
        found["y"] = np.stack([x[:, 0, 0] > 50, x[:, :, 1].mean(1) > 50, x[:, 0, 0] > 1e9], 1).astype(np.int64)
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each kind, and its file."""
    folder, made = tmp_path_factory.mktemp("targets"), {}
    for kind, words in KINDS.items():
        path = folder / f"{kind}.npz"
        np.savez(path, **content(kind))
        made[kind] = run(load_config([*TINY, *words, f"data.path={path}", f"run_dir={folder / kind}"])), path
    return made


def printed(capsys, monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["spikingssm", *map(str, words)])
    command()
    return capsys.readouterr().out


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_keeps_the_scale_and_the_log_says_the_range(kind, runs) -> None:
    folder, _ = runs[kind]
    summary = json.loads((folder / "summary.json").read_text())
    names = {"labels": ["accuracy", "exact_match", "f1"], "next": ["mae", "mse", "naive_mse", "r2"]}
    assert set(names.get(kind, ["mae", "mse", "r2"])) < set(summary["test"])
    assert set(summary["val"]) == {"loss", "epoch"}
    log, targets = (folder / "run.log").read_text(), Interface.read(folder).targets
    said = {
        "sequence": "targets: 100004",
        "steps": "targets at every step: 0 25 to ",
        "labels": "3 labels: ",
        "next": "x 2 steps later",
    }
    assert said[kind] in log
    assert (folder / "figures" / "learning_curve.png").stat().st_size > 1000
    if kind != "labels":
        config = load_config([f"resume={folder}"])
        assert list(config.data.target_scaling["mean"]) == list(targets.mean)
    if kind == "next":
        assert (targets.horizon, targets.steps) == (2, True)


@pytest.mark.parametrize("kind", KINDS)
def test_predict_answers_in_the_units_of_the_data_and_evaluate_agrees(kind, runs) -> None:
    folder, path = runs[kind]
    known, model = content(kind), spikingssm.load_model(folder)
    found = model.predict(known["x"], known.get("lengths"))
    scores = evaluate(folder, data=path)
    if kind == "labels":
        assert found.labels.shape == (48, 3)
        assert found.names == [
            [n for n, k in zip(("hum", "click", "hiss"), row, strict=True) if k] for row in found.labels
        ]
        torch.testing.assert_close(found.probabilities, found.logits.sigmoid())
        assert scores["accuracy"] == pytest.approx((found.labels.numpy() == known["y"]).mean())
        assert scores["exact_match"] == pytest.approx((found.labels.numpy() == known["y"]).all(1).mean())
        return
    assert (found.names, found.probabilities, found.labels.dtype) == (None, None, torch.float64)
    answers, y = found.labels.numpy(), known.get("y")
    if kind == "next":
        y = np.concatenate([known["x"][:, 2:], np.full((48, 2, 2), np.nan)], 1)
        assert scores["naive_mse"] == pytest.approx(np.square(known["x"][:, 2:] - known["x"][:, :-2]).mean(), rel=1e-4)
    if kind == "steps":
        behind = np.arange(STEPS) >= known["lengths"][:, None]
        assert np.isnan(answers[behind]).all()
        assert not np.isnan(answers[~behind]).any()
    assert answers.shape == y.shape
    away = answers - y
    assert scores["mse"] == pytest.approx(np.nanmean(away**2), rel=1e-4)
    assert scores["mae"] == pytest.approx(np.nanmean(np.abs(away)), rel=1e-4)
    if kind == "sequence":
        assert abs(answers - 1e6 - 50).max() < 30  # near the mean of the targets, whatever the network says


@pytest.mark.parametrize("kind", KINDS)
def test_the_commands_answer_and_write_a_table(kind, runs, capsys, monkeypatch, tmp_path) -> None:
    folder, path = runs[kind]
    said = printed(capsys, monkeypatch, "predict", folder, path, "--out", tmp_path / "answers.csv").splitlines()
    with (tmp_path / "answers.csv").open() as file:
        head, *lines = csv.reader(file)
    heads = {"sequence": ["value"], "labels": ["label", "p(hum)", "p(click)", "p(hiss)"]}
    assert head == ["sequence", "step", *heads.get(kind, ["value[0]", "value[1]"]), "spikes"]
    assert len(lines) == {"steps": LENGTHS.sum(), "next": 48 * STEPS}.get(kind, 48)
    last = {
        "sequence": "mean absolute error ",
        "steps": "mean absolute error ",
        "labels": " sets right, ",
        "next": "16 steps: ",
    }
    assert last[kind] in said[-1]
    what = printed(capsys, monkeypatch, "predict", folder)
    wanted = {
        "sequence": "it answers with a number for a sequence", "steps": "2 numbers (0, 1) for every step",
        "labels": "labels, of which any may be there: hum, click, hiss", "next": "what it reads, 2 steps later",
    }  # fmt: skip
    assert wanted[kind] in what
    shown = printed(capsys, monkeypatch, "evaluate", folder, "--data", path, "--json", tmp_path / "found.json")
    first = {"labels": "accuracy"}.get(kind, "mse")
    assert f"\n{first}  " in shown
    assert json.loads((tmp_path / "found.json").read_text())[first] >= 0
    with pytest.raises(ValueError, match="--confusion is for classifications"):
        printed(capsys, monkeypatch, "evaluate", folder, "--data", path, "--confusion")


def test_a_report_has_all_of_them(runs) -> None:
    text = report([folder for folder, _ in runs.values()], best_first=True)
    assert all(name in text for name in ("exact_match", "naive_mse", "r2"))


def test_the_metrics_of_an_epoch_go_on_where_they_were_saved(runs) -> None:
    parts = [spikingssm.load_model(runs["steps"][0]).task for _ in range(2)]
    modules = [SequenceModule(torch.nn.Identity(), task, classes=2) for task in parts]
    draw = torch.randn(2, 5, 4, 2)
    for batch in draw:
        batch[0, 1, 0] = torch.nan
    for module, batches in ((modules[0], draw), (modules[1], draw[:1])):
        for y in batches:
            module._update("fit", parts[0].run(Says(y + 0.1 * y.sign()), Batch(y, y)))
    again = SequenceModule(torch.nn.Identity(), parts[0], classes=2)
    again.go_on_from(modules[1].running())
    again._update("fit", parts[0].run(Says(draw[1] + 0.1 * draw[1].sign()), Batch(draw[1], draw[1])))
    whole, resumed = ({k: m.compute() for k, m in module.metrics["fit"].items()} for module in (modules[0], again))
    assert resumed == whole
    assert 0.9 < float(whole["r2"]) < 1


def test_a_run_that_is_lengthened_keeps_its_targets(runs, tmp_path) -> None:
    folder, path = runs["steps"]
    words = [*TINY, *KINDS["steps"], f"data.path={path}", "trainer.max_epochs=1", f"run_dir={tmp_path / 'half'}"]
    half = run(load_config(words))
    run(load_config([f"resume={half}", "trainer.max_epochs=2"]))
    assert json.loads((half / "summary.json").read_text())["epochs"] == 2
    assert Interface.read(half).targets == Interface.read(folder).targets


def test_a_saved_folder_holds_the_targets(runs, tmp_path) -> None:
    model = spikingssm.load_model(runs["sequence"][0])
    again = spikingssm.load_model(model.save(tmp_path / "saved"))
    x = content("sequence")["x"][:3]
    assert torch.equal(again.predict(x).labels, model.predict(x).labels)
    assert "test mae" in repr(model) or "test mse" in repr(model)


def test_other_files_without_targets_or_with_others_are_refused(runs, tmp_path) -> None:
    x = content("sequence")["x"]
    for kind, y, says in (
        ("sequence", None, "no targets in it; give an .npz with x and y, or a .csv"),
        ("sequence", np.zeros((48, 2)), "this network answers with 1 numbers a sequence"),
        ("steps", np.zeros(48), "this network answers with 2 numbers a step"),
        ("labels", np.zeros((48, 4), int), None),
    ):
        np.savez(tmp_path / "other.npz", x=x, **({} if y is None else {"y": y}))
        with pytest.raises(ValueError, match=says):
            evaluate(runs[kind][0], data=tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("words", "kind", "says"),
    [
        (["task=classification"], "sequence", "got float64; numbers are for task=regression"),
        (["task=steps", "model.pool=each"], "steps", "got float64; numbers are for task=regression"),
        (["task=regression"], "steps", r"has a target at every step and the model answers once.*set model\.pool=each"),
        (["task=regression", "recipe=s5rf"], "steps", r"model=spikingssm model\.pool=each, since S5RF answers"),
        (["task=forecast"], "next", r"set model\.pool=each"),
        (["task=forecast", "task.horizon=16", "model.pool=each"], "next", r"from 1 to 15.*see task\.horizon"),
        (["task=forecast", "model.pool=each", "model.bidirectional=true"], "next", "sees the future"),
        (["task=regression", "dataset=digits"], "next", "digits has classes and Regression asks for numbers"),
        (["task=classification", "dataset=series"], "next", "has a series and what comes next and Classification asks"),
        (["task=multilabel"], "sequence", r"y must be \(48, K\) with K >= 2"),
        (["task=multilabel", "data.classes=[a,b]"], "labels", "names 2 and y has 3 a row"),
        (["task.class_weights=[1,2]", "dataset=digits"], "next", "class_weights has 2 weights for 10 classes"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_with_the_way_out(words, kind, says, runs) -> None:
    names = {word.partition("=")[0] for word in words}
    foreign = "dataset=digits" in words or "dataset=series" in words
    base = [word for word in TINY if word.partition("=")[0] not in names]
    base = [w for w in base if "recipe=s5rf" not in words or w not in ("model.d_state=4",)]
    if foreign:
        base = [w.replace("recipe=spikingssm", "model=spikingssm") for w in base]
    else:
        base.append(f"data.path={runs[kind][1]}")
    with pytest.raises(ValueError, match=says):
        build(load_config([*base, *words]))


class Mine:
    """A task of one's own, with an option."""

    def __init__(self, power=2.0):
        self.power = power


def test_a_task_of_ones_own_takes_the_place_of_another_with_its_keys() -> None:
    name = f"{Mine.__module__}.Mine"
    words = ["recipe=spikingssm", "data.path=x.npz", f"task._target_={name}"]
    assert load_config(words).task == {"_target_": name}
    assert load_config([*words, "+task.power=1.0"]).task == {"_target_": name, "power": 1.0}
    assert load_config([*words, "task.select=loss"]).task == {"_target_": name, "select": "loss"}  # refused when built
    with pytest.raises(ValueError, match="unexpected keyword argument 'select'"):
        call("task", load_config([*words, "task.select=loss"]).task)
    known = load_config([*words[:2], "task._target_=spikingssm.tasks.StepClassification"]).task
    assert set(known) == {"_target_", "label_smoothing", "class_weights", "select"}


def test_a_part_without_any_target_is_refused_before_it_is_trained(tmp_path) -> None:
    y = np.full(48, np.nan)
    y[:2] = 1.0, 2.0
    np.savez(tmp_path / "few.npz", x=np.zeros((48, STEPS, 2)), y=y, x_test=np.zeros((3, STEPS, 2)), y_test=np.ones(3))
    with pytest.raises(ValueError, match="none of the 2 validation rows has a target, all are missing"):
        build(load_config([*TINY, "task=regression", f"data.path={tmp_path / 'few.npz'}", "data.val_fraction=0.05"]))


def test_balanced_weights_are_said_once_and_the_run_keeps_the_word(tmp_path) -> None:
    y = np.array([0] * 36 + [1] * 12)
    np.savez(tmp_path / "own.npz", x=np.random.default_rng(0).normal(size=(48, STEPS, 2)), y=y)
    words = [f"data.path={tmp_path / 'own.npz'}", "task.class_weights=balanced", f"run_dir={tmp_path / 'run'}"]
    folder = run(load_config([*TINY, *words]))
    log = (folder / "run.log").read_text()
    assert log.count("weights of the classes in the training loss: ") == 1
    assert load_config([f"resume={folder}"]).task.class_weights == "balanced"
    assert 0 <= evaluate(folder)["accuracy"] <= 1
    assert spikingssm.load_model(folder).task.class_weights == "balanced"
    _, module = build(load_config([*TINY, words[0], "task.class_weights={1: 3, 0: 1}"]))
    assert module.task.class_weights == (1.0, 3.0)
