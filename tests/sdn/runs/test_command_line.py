"""The scripts as a user meets them: what they write, how they fail, and what a kill leaves behind."""

import json
import os
import signal
import sys
import time

import pytest
import torch
from scripts import NAMES, QUICK, ROOT, call, ended, files, script

import sdn
from sdn.runs import folder as runs
from sdn.surrogate import settings


def test_generate_writes_the_published_names_with_their_own_seeds(folder):
    """Guards defects 1 and 3: it moved everything to CUDA (`script` hides GPUs), and nothing was seeded."""
    found = {split: sdn.load_trajectories(folder / "dataset" / name) for split, name in NAMES.items()}
    assert sorted(p.name for p in (folder / "dataset").iterdir()) == sorted(NAMES.values())
    assert found["training"].facts["seed"] != found["test"].facts["seed"]
    assert found["test"].dynamics == sdn.LIF(0.125)


def test_generate_again_fails_and_leaves_the_file(folder, monkeypatch, capsys):
    """Guards defect 5: an existing file was a warning and exit code 0, so a script thought that it had worked."""
    path = folder / "dataset" / NAMES["test"]
    before = path.read_bytes()
    words = ["generate.py", path.parent, "-n", "test", "-T", 64, "-t", 0.125, "-N", 50]
    code, err = call(monkeypatch, capsys, *words, "--seed", 4)
    assert code == 2
    assert "--force" in err
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "dynamics"),
    [
        (["--dynamics", "rf", "--omega", 12, "--damping", 2], sdn.RF(12.0, 2.0)),
        (["--dynamics", "brf", "--b-offset", 2, "--threshold", 0.8], sdn.BRF(b_offset=2.0, threshold=0.8)),
        (["--dynamics", "alif", "--tau-m", 10], sdn.ALIF(tau_m=10.0)),
        (["--reset", "soft", "-t", 0.5], sdn.LIF(0.5, reset="soft")),
    ],
    ids=["rf", "brf", "alif", "lif-soft"],
)
def test_generate_takes_every_neuron_and_its_parameters(tmp_path, monkeypatch, capsys, flags, dynamics):
    code, err = call(monkeypatch, capsys, "generate.py", tmp_path, "-N", 40, "-T", 300, *flags)
    assert code == 0, err
    (path,) = tmp_path.iterdir()
    found = sdn.load_trajectories(path)
    assert found.dynamics == dynamics
    assert found.facts["distribution"]["std"] == dynamics.default_std


def test_train_leaves_a_whole_run_folder(trained):
    """Guards defects 14, 19 and 29: the test set's scores went by training's name, and no other currents were tried."""
    for name in ("exp.log", "metrics.csv", "summary.json", "config.json", "tensorboard", "artifact.safetensors"):
        assert (trained / name).exists(), name
    summary = json.loads((trained / "summary.json").read_text())
    assert set(summary["metrics"]) == {"train", "validation", "test"}
    assert summary["metrics"]["train"] != summary["metrics"]["test"]
    assert summary["metrics"]["train"]["steps"] == 180 * 64
    test = summary["metrics"]["test"]
    assert {"loss", "mae_mean", "mae_max", "mae_std", "agreement", "precision", "recall", "f1"} <= set(test)
    assert test["agreement"] > test["trivial_agreement"] > 0.9
    assert list(summary["fresh"]) == ["N(0,1)", "N(0.5,1)", "N(0,2)", "N(0,3)", "N(1,1)"]
    log = (trained / "exp.log").read_text()
    assert log.count("epoch ") >= 4
    assert "193 parameters" in log
    assert "153 parameters" in log


def test_the_artifact_of_a_run_works_as_a_neuron(trained):
    neuron = sdn.Neuron(sdn.LIF(0.125), 3, solver=sdn.Surrogate(trained / "artifact.safetensors"))
    x = torch.randn(2, 200, 3)
    spikes, _ = neuron(x)
    exact, _ = neuron.with_solver("loop")(x)
    assert (spikes == exact).float().mean() > 0.98
    assert 0.05 < exact.mean() < 0.3


def test_resume_of_a_finished_run_and_a_second_save(trained, folder, monkeypatch, capsys):
    before = (trained / "checkpoints" / "last.ckpt").read_bytes()
    code, err = call(monkeypatch, capsys, "train.py", "--resume", trained)
    assert code == 0, err
    assert (trained / "checkpoints" / "last.ckpt").read_bytes() == before
    code, err = call(monkeypatch, capsys, "train.py", "--save", trained, *files(folder), *QUICK)
    assert code == 2
    assert "--resume" in err
    assert (trained / "checkpoints" / "last.ckpt").read_bytes() == before


def test_a_killed_training_resumes_to_the_same_bits(trained, folder):
    """kill -9 in the middle, then --resume: weights and table equal those of the run that was never stopped.

    Guards defects 15, 16 and 21: resume needed the sizes again, a file that may be missing, and a pickle.
    """
    process = script("train.py", "--save", "cut", *files(folder), *QUICK, cwd=folder)
    deadline = time.monotonic() + 60
    while len(runs.read_metrics(folder / "cut" / "metrics.csv")) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert ended(process)[0] == -signal.SIGKILL
    assert not (folder / "cut" / "summary.json").exists()
    code, _, err = ended(script("train.py", "--resume", "cut", cwd=folder))
    assert code == 0, err
    whole, again = (sdn.load_sdn(p / "checkpoints" / "best.ckpt")[0].state_dict() for p in (trained, folder / "cut"))
    assert all(torch.equal(a, b) for a, b in zip(whole.values(), again.values(), strict=True))
    rows = [runs.read_metrics(p / "metrics.csv") for p in (trained, folder / "cut")]
    one, other = ([{k: v for k, v in row.items() if "seconds" not in k} for row in table] for table in rows)
    assert one == other
    assert not list((folder / "cut").rglob("*partial"))


def test_a_killed_generate_leaves_no_file_and_a_rerun_works(tmp_path):
    path = tmp_path / "training-mem-T1024-N(0.0,1.0)-12000-tau_0.2.pt"
    process = script("generate.py", ".", "-N", 12000, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".*.partial")) and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    ended(process)
    assert not path.exists() or sdn.load_trajectories(path)
    path.unlink(missing_ok=True)
    code, _, err = ended(script("generate.py", ".", "-N", 12000, cwd=tmp_path))
    assert code == 0, err
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


MISTAKES = {
    "decay": (["generate.py", "d", "-t", "1.5"], "decay must be in [0, 1), got 1.5"),
    "decay-tau": (["generate.py", "d", "-t", "20"], "LIF.from_tau"),
    "nan": (["generate.py", "d", "-s", "nan"], "finite std"),
    "rows": (["generate.py", "d", "-N", "0"], "samples must be at least 1, got 0"),
    "too-many": (["generate.py", "d", "-N", "1e30"], "GiB of memory; ask for fewer"),
    "too-long": (["generate.py", "d", "-T", str(10**30)], "GiB of memory; ask for fewer"),
    "seed": (
        ["generate.py", "d", "-N", "2", "-T", "9", "--seed", str(10**30)],
        "seed must be an integer of at most 64",
    ),
    "foreign-flag": (["generate.py", "d", "--omega", "3"], "--dynamics lif has no --omega"),
    "omega": (["generate.py", "d", "--dynamics", "brf", "--omega", "500"], "omega must be at most 1/dt = 100, got 500"),
    "device": (["generate.py", "d", "--device", "toaster"], "toaster"),
    "no-data": (["train.py", "--save", "e"], "generate.py"),
    "no-run": (["train.py", "--resume", "nowhere"], "config.json: no such file"),
    "resume-force": (["train.py", "--resume", "nowhere", "--force"], "--force goes with --save"),
}


@pytest.mark.parametrize(("words", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_one_line_with_the_way_out(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    code, err = call(monkeypatch, capsys, *words)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("split", ["training", "test"])
@pytest.mark.parametrize("damage", ["truncated", "foreign", "other-neuron", "same-rows"])
def test_train_refuses_files_it_cannot_trust(folder, tmp_path, monkeypatch, capsys, split, damage):
    """Guards defects 3 and 8: test rows could be training rows, and neurons of another decay were mixed."""
    paths = {s: folder / "dataset" / n for s, n in NAMES.items()}
    bad = tmp_path / "bad.pt"
    if damage == "truncated":
        bad.write_bytes(paths[split].read_bytes()[:3000])
    elif damage == "foreign":
        torch.save({"weights": torch.zeros(3)}, bad)
    elif damage == "other-neuron":
        sdn.save_trajectories(bad, sdn.generate(sdn.LIF(0.5), 20, 64), sdn.LIF(0.5), mean=0, std=1, seed=0)
    else:
        bad = paths["test" if split == "training" else "training"]
    paths[split] = bad
    words = [w for s, p in paths.items() for w in (f"--{s}", p)]
    code, err = call(monkeypatch, capsys, "train.py", "--save", tmp_path / "e", *words)
    assert code == 2
    assert err.count("\n") == 1, err
    assert not (tmp_path / "e").exists()


def test_the_published_recipe_is_one_flag(folder, monkeypatch, capsys):
    """Whole rows, one network, live norms, SmoothL1: 180 rows in batches of 64 are 2 steps an epoch."""
    words = ["--save", folder / "published", *files(folder), "--preset", "published", "--epochs", 3]
    code, err = call(monkeypatch, capsys, "train.py", *words)
    assert code == 0, err
    recipe = json.loads((folder / "published" / "summary.json").read_text())["recipe"]
    assert (recipe["steps_per_epoch"], recipe["crop"], recipe["batch_size"], recipe["members"]) == (2, 64, 64, 1)
    assert (recipe["loss"], recipe["optimizer"], recipe["norms"]) == ("smooth_l1", "adamw", "live")


def test_resume_with_another_setting_names_both_values(trained, monkeypatch, capsys):
    """Guards defect 21: another --epochs silently kept the old cosine."""
    code, err = call(monkeypatch, capsys, "train.py", "--resume", trained, "--epochs", 9)
    assert code == 2
    assert "--epochs 9 (the run has 4)" in err


def test_help_shows_both_doors(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "--help"])
    sys.path.insert(0, str(ROOT))
    with pytest.raises(SystemExit):
        __import__("train").main()
    sys.path.remove(str(ROOT))
    shown = capsys.readouterr().out
    assert "--save" in shown
    assert "experiment=spikingssm/digits" in shown


def test_the_only_pair_of_files_is_found(tmp_path, monkeypatch, capsys):
    """`generate.py dataset -N 3000` writes another name than the published one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dataset").mkdir()
    assert settings.default_files("dataset")["test"].endswith("50000-tau_0.2.pt")  # there is none: the published name
    small = {"training": "training-a.pt", "test": "test-a.pt"}
    (tmp_path / "dataset" / small["training"]).touch()
    code, err = call(monkeypatch, capsys, "train.py")
    assert code == 2
    assert "holds training-a.pt and no test file; write one with `python generate.py dataset -n test`" in err
    (tmp_path / "dataset" / small["test"]).touch()
    found = settings.default_files("dataset")
    assert found == {split: str(tmp_path / "dataset" / name) for split, name in small.items()}
    (tmp_path / "dataset" / "test-b.pt").touch()
    code, err = call(monkeypatch, capsys, "train.py")
    assert code == 2
    assert "dataset holds 1 training and 2 test files; choose by --training and --test" in err
    published = settings.PUBLISHED_NAME.format("training")
    (tmp_path / "dataset" / published).touch()
    assert settings.default_files("dataset")["training"] == str(tmp_path / "dataset" / published)
