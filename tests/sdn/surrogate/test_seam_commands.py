"""The three commands for neurons that remember long: families, fields that vary, kinds, resume, and fair warnings."""

import json

import pytest
import torch
from scripts import call

import sdn
from sdn.__main__ import main

QUICK = ["--epochs", 3, "--steps_per_epoch", 40, "--batch_size", 256, "--rows", 24]


def generated(monkeypatch, capsys, folder, *words):
    """Training and test file of a command line."""
    for split, rows in (("training", 40), ("test", 16)):
        command = ["generate.py", folder, "-n", split, "-N", rows, "-T", 200, *words]
        code, err = call(monkeypatch, capsys, *command)
        assert code == 0, err
    return [word for split in ("training", "test") for word in (f"--{split}", *folder.glob(f"{split}-*.pt"))]


@pytest.fixture
def brf(monkeypatch, capsys, tmp_path):
    return generated(monkeypatch, capsys, tmp_path / "data", "--dynamics", "brf")


def test_from_trajectories_to_an_artifact(monkeypatch, capsys, tmp_path, brf):
    assert "mixture(50.0)" in str(brf[1])
    code, err = call(monkeypatch, capsys, "train.py", "--save", tmp_path / "exp", *brf, *QUICK)
    assert code == 0, err
    run = tmp_path / "exp"
    config, summary = (json.loads((run / name).read_text()) for name in ("config.json", "summary.json"))
    assert config["kind"] == "seams"
    assert config["chunk"] == 32
    assert "d_model" not in config
    assert summary["distribution"]["family"] == "mixture"
    artifact = sdn.load_artifact(run / "artifact.safetensors")
    assert not artifact.is_pointwise
    assert artifact.dynamics == sdn.BRF()
    assert summary["metrics"]["test"]["agreement"] > 0.97 > summary["metrics"]["test"]["trivial_agreement"]
    spikes, _ = sdn.Neuron(sdn.BRF(), 4, solver=sdn.Surrogate(artifact))(50 * torch.randn(2, 100, 4))
    assert 0 < spikes.mean() < 0.5
    code, err = call(monkeypatch, capsys, "train.py", "--resume", run)
    assert code == 0, err
    assert artifact == sdn.load_artifact(run / "artifact.safetensors")
    code, err = call(monkeypatch, capsys, "train.py", "--resume", run, "--chunk", 16)
    assert code == 2
    assert "--chunk 16 (the run has 32) would change them" in err


def test_a_short_memory_takes_a_pointwise_network(monkeypatch, capsys, tmp_path):
    words = generated(monkeypatch, capsys, tmp_path / "data")
    assert "N(0.0,1.0)" in str(words[1])
    recipe = ["--init", "analytic", "--members", 1, "--lr", 1e-6, "--epochs", 2, "--steps_per_epoch", 20]
    code, err = call(monkeypatch, capsys, "train.py", "--save", tmp_path / "exp", *words, *recipe)
    assert code == 0, err
    summary = json.loads((tmp_path / "exp" / "summary.json").read_text())
    assert json.loads((tmp_path / "exp" / "config.json").read_text())["kind"] == "pointwise"
    assert summary["fresh"]["N(0,1)"]["agreement"] > 0.9995  # the weights that were written down


def test_a_range_of_a_field(monkeypatch, capsys, tmp_path):
    words = generated(monkeypatch, capsys, tmp_path / "data", "-t", 0.5, "--over", "decay=0.2:0.95")
    assert "decay_0.2_0.95" in str(words[1])
    code, err = call(monkeypatch, capsys, "train.py", "--save", tmp_path / "exp", *words, *QUICK)
    assert code == 0, err
    artifact = sdn.load_artifact(tmp_path / "exp" / "artifact.safetensors")
    assert artifact.over == {"decay": (0.2, 0.95)}
    sdn.Neuron(sdn.LIF([0.3, 0.9]), 2, learn={"decay": None}, solver=sdn.Surrogate(artifact))


def test_one_that_is_not_worth_having_is_said_to_be(monkeypatch, capsys, tmp_path, brf):
    """A window of eight steps knows nothing of a resonator."""
    recipe = ["--kind", "pointwise", "--members", 1, "--epochs", 2, "--steps_per_epoch", 40, "--batch_size", 16]
    code, _ = call(monkeypatch, capsys, "train.py", "--save", tmp_path / "exp", *brf, *recipe)
    assert code == 0
    log = (tmp_path / "exp" / "exp.log").read_text()
    assert "this surrogate is not worth having" in log
    assert "which knows nothing" in log


REFUSED = [
    (["--d_model", 4], "--d_model belongs to a pointwise network, this one is seams"),
    (["--kind", "pointwise", "--chunk", 16], "--chunk belongs to a seams network, this one is pointwise"),
    (["--hidden", 0], "hidden must be from 1"),
    (["--epochs", 0], "epochs must be at least 1"),
    (["--chunk", 100], "a seam network with chunks of 100 needs more than 200"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_wrong_flags_are_one_line(monkeypatch, capsys, tmp_path, brf, words, message):
    code, err = call(monkeypatch, capsys, "train.py", "--save", tmp_path / "exp", *brf, *words)
    assert code == 2
    assert message in err


WRONG = [
    (["--family", "loud"], "family of currents must be one of"),
    (["--family", "wide", "-m", 1], "a mean belongs to the family 'normal', got mean 1.0 for 'wide'"),
    (["--over", "decay"], "--over takes FIELD=LOW:HIGH, such as decay=0.05:0.95, got 'decay'"),
    (["--over", "decay=0.9:0.1"], "decay needs a lower and a higher bound, got 0.9 and 0.1"),
    (["--over", "decay=0.5:1.5"], "decay must be in [0, 1), got 1.5"),
    (["--over", "reset=0:1"], "has no number 'reset' that may differ by row"),
    (["--over", "decay=0.1:0.5", "--over", "decay=0.2:0.6"], "--over gives decay twice"),
    (["-N", 0], "samples must be at least 1, got 0"),
]


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_wrong_currents_are_one_line(monkeypatch, capsys, tmp_path, words, message):
    code, err = call(monkeypatch, capsys, "generate.py", tmp_path / "data", *words)
    assert code == 2
    assert message in err
    assert not list((tmp_path / "data").glob("*.pt"))


def test_check_prints_stores_and_writes(monkeypatch, capsys, tmp_path):
    artifact = sdn.learn_surrogate(sdn.LIF(0.8), tmp_path / "a.safetensors", recipe=sdn.SeamRecipe(epochs=1, rows=32))
    words = ["check", artifact.path, "--rows", 8, "--length", 128, "--json", tmp_path / "a.json", "--store"]
    monkeypatch.setattr("sys.argv", ["sdn", *map(str, words)])
    main()
    shown = capsys.readouterr().out
    assert "LIF(decay=0.8" in shown
    assert "near-threshold" in shown
    stored = sdn.load_artifact(tmp_path / "a.safetensors")
    assert stored.facts["fidelity"] == json.loads((tmp_path / "a.json").read_text())
    assert all(map(torch.equal, stored.tensors, artifact.tensors))
