"""The run folder of an SDN: data that moves, settings and checkpoints that were tampered with, a fresh start."""

import json
import shutil

import pytest
import torch
from scripts import NAMES, QUICK, call, files

import sdn


@pytest.fixture
def finished(trained, tmp_path):
    """A copy of the finished run."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def test_data_may_move_but_not_change(finished, folder, tmp_path, monkeypatch, capsys):
    """Where a file lies is not what is in it."""
    moved = shutil.copytree(folder / "dataset", tmp_path / "elsewhere")
    words = [w for split, name in NAMES.items() for w in (f"--{split}", moved / name)]
    code, err = call(monkeypatch, capsys, "train.py", "--resume", finished, *words)
    assert code == 0, err
    assert json.loads((finished / "config.json").read_text())["training"] == str(moved / NAMES["training"])
    other = moved / "other.pt"
    sdn.save_trajectories(other, sdn.generate(sdn.LIF(0.125), 50, 64, seed=9), sdn.LIF(0.125), mean=0, std=1, seed=9)
    code, err = call(monkeypatch, capsys, "train.py", "--resume", finished, "--test", other)
    assert code == 2
    assert "started with other test data" in err


def test_force_leaves_nothing_of_the_old_run(finished, folder, monkeypatch, capsys):
    old = (finished / "artifact.safetensors").read_bytes()
    code, err = call(monkeypatch, capsys, "train.py", "--save", finished, "--force", *files(folder), "--epochs", "0")
    assert code == 2
    assert (finished / "artifact.safetensors").read_bytes() == old  # a wrong flag touches nothing
    words = ["--save", finished, "--force", *files(folder), *QUICK, "--seed", 5]
    code, err = call(monkeypatch, capsys, "train.py", *words)
    assert code == 0, err
    assert (finished / "artifact.safetensors").read_bytes() != old
    assert len(list((finished / "tensorboard").glob("events*"))) == 1


CONFIGS = {
    "type": (lambda c: c.update(epochs="ten"), "epochs must be of type int, got 'ten'"),
    "null": (lambda c: c.update(lr=None), "lr must be of type float, got None"),
    "path": (lambda c: c.update(training=5), "training must be of type str, got 5"),
    "unknown": (lambda c: c.update(speed=3), "speed"),
    "missing": (lambda c: c.pop("preset"), "needs the keys"),
    "preset": (lambda c: c.update(preset="x"), "preset must be one of"),
    "long": (lambda c: c.update(preset="x" * 5000), f"got 'x{'x' * 58}; "),
    "changed": (lambda c: c.update(epochs=7), "epochs was 4, is 7"),
    "width": (lambda c: c.update(d_model=4096), "d_model is 4096, that of last.ckpt is 8"),
    "kernel": (lambda c: c.update(kernel_size=1000), "kernel_size is 1000, that of last.ckpt is 8"),
    "members": (lambda c: c.update(members=10**9), "members * batch_size * crop must be at most"),
    "crop": (lambda c: c.update(crop=10**12), "members * batch_size * crop must be at most"),
    "data": (lambda c: c["data"].update(test={"seed": 1}), "started with other test data"),
}


@pytest.mark.parametrize(("change", "message"), CONFIGS.values(), ids=CONFIGS)
def test_a_tampered_config_is_refused_in_one_line(finished, monkeypatch, capsys, change, message):
    path = finished / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    code, err = call(monkeypatch, capsys, "train.py", "--resume", finished)
    assert code == 2
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.parametrize("text", ["[" * 100_000, "", "3", '{"a": 1'], ids=["deep", "empty", "number", "cut"])
def test_a_config_that_is_none_is_refused_in_one_line(finished, monkeypatch, capsys, text):
    (finished / "config.json").write_text(text)
    code, err = call(monkeypatch, capsys, "train.py", "--resume", finished)
    assert code == 2
    assert "config.json: " in err.splitlines()[-1]
    assert "Traceback" not in err


CHECKPOINTS = {
    "wrong-types": {"sdn": 5, "recipe": 3, "epoch": 1, "state_dict": {}},
    "no-epoch": {"sdn": {}, "recipe": {}, "state_dict": {}},
    "foreign": {"model": torch.zeros(3)},
}


@pytest.mark.parametrize("content", CHECKPOINTS.values(), ids=CHECKPOINTS)
@pytest.mark.parametrize("name", ["last", "best"])
def test_foreign_checkpoints_are_refused_in_one_line(finished, monkeypatch, capsys, name, content):
    torch.save(content, finished / "checkpoints" / f"{name}.ckpt")
    code, err = call(monkeypatch, capsys, "train.py", "--resume", finished)
    assert code == 2
    assert "Traceback" not in err
    assert f"{name}.ckpt" in err.splitlines()[-1]


@pytest.mark.parametrize("text", ["", "epoch,val/loss\n", "a,b\n1,2\n"], ids=["empty", "header", "foreign"])
def test_a_lost_table_does_not_lose_the_run(finished, monkeypatch, capsys, text):
    (finished / "metrics.csv").write_text(text)
    code, err = call(monkeypatch, capsys, "train.py", "--resume", finished)
    assert code == (2 if text.startswith("a") else 0), err
    assert "Traceback" not in err


def test_rows_must_be_longer_than_the_receptive_field(folder, tmp_path, monkeypatch, capsys):
    words = ["--save", tmp_path / "e", *files(folder), "--kernel_size", 64]
    code, err = call(monkeypatch, capsys, "train.py", *words)
    assert code == 2
    assert "(180, 64)" in err
    assert "receptive field of 64" in err
