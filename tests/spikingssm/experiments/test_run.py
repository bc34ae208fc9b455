"""Configurations, run folders and the command line of the experiments."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from documents import commands
from omegaconf import OmegaConf
from test_datasets import write_mnist

from sdn import Loop
from sdn.runs.folder import load_checkpoint
from spikingssm.commands.train import main
from spikingssm.experiments.build import build
from spikingssm.experiments.config import load
from spikingssm.experiments.evaluation import evaluate
from spikingssm.experiments.run import run
from spikingssm.experiments.variants import folder_label, variant

ROOT = Path(__file__).parents[3]
TINY = [
    "experiment=spikingssm/digits",
    "+tier=smoke",
    "model.solver=loop",
    "model.d_model=8",
    "model.d_state=4",
    "trainer.enable_progress_bar=false",
    "trainer.accelerator=cpu",
]


@pytest.fixture(autouse=True)
def _at_root(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return run(load([*TINY, "trainer.max_epochs=2", f"run_dir={tmp_path_factory.mktemp('runs') / 'one'}"]))


def test_every_key_of_the_configuration_has_a_comment() -> None:
    for path in (ROOT / "configs").rglob("*.yaml"):
        if {"experiment", "recipe", "tables", "tier"} & set(path.parts):
            continue
        without = ("#", "_target_", "defaults", "- ", "task:", "optim:", "dt_max")
        for line in path.read_text().splitlines():
            if ":" in line and not line.strip().startswith(without):
                assert "#" in line, f"{path.name}: {line}"


def test_a_run_folder_is_complete(finished) -> None:
    files = {str(p.relative_to(finished)) for p in finished.rglob("*") if p.is_file() and "tensorboard" not in p.parts}
    assert files == {
        "config.yaml", "inputs.json", "run.log", "metrics.csv", "summary.json", "checkpoints/last.ckpt",
        "checkpoints/best.ckpt", "figures/learning_curve.png", "figures/raster.png",
    }  # fmt: skip
    assert list((finished / "tensorboard").iterdir())
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["dataset"]["size"] == "subset"
    assert set(summary["test"]["spike_rates"]) == {"blocks.0.layer.neuron", "blocks.1.layer.neuron"}
    assert summary["epochs"] == 2
    assert summary["parameters"] == sum(p.numel() for p in build(load(TINY))[1].model.parameters())
    assert summary["val"]["accuracy"] == max(float(row["val/accuracy"]) for row in rows(finished))
    assert {"seconds", "cpu_minutes", "device", "versions", "command", "seed", "solver"} <= set(summary)
    stored = OmegaConf.load(finished / "config.yaml")
    assert stored.data.seed == stored.seed == 0
    assert not OmegaConf.missing_keys(stored)


def test_evaluate_gives_the_accuracy_of_the_run(finished) -> None:
    test = json.loads((finished / "summary.json").read_text())["test"]
    for solver in (None, "loop", Loop()):
        found = evaluate(finished, solver)
        assert {k: found[k] for k in test} == test
        assert found["solver"] == "Loop(detach_reset=True, detach_state=False)"
    surrogate = evaluate(finished, "surrogate")
    assert "Surrogate" in surrogate["solver"]
    assert surrogate["spike_rate"] == pytest.approx(test["spike_rate"], abs=0.02)
    with pytest.raises(ValueError, match=r"solver must be one of .*got 'nope'"):
        evaluate(finished, "nope")
    with pytest.raises(FileNotFoundError, match="give the folder of a run"):
        evaluate(finished / "figures")


def test_a_folder_with_a_checkpoint_is_not_overwritten(finished) -> None:
    with pytest.raises(FileExistsError, match="continue with resume="):
        run(load([*TINY, f"run_dir={finished}"]))
    before = (finished / "summary.json").stat().st_mtime_ns
    assert run(load([f"resume={finished}"])) == finished
    assert (finished / "summary.json").stat().st_mtime_ns == before


def test_resume_keeps_the_configuration(finished) -> None:
    """Guards defect 21: a resumed run silently mixed old and new settings."""
    same = load([*TINY, "trainer.max_epochs=2", f"resume={finished}"])
    assert same.model.d_model == 8
    assert load(["model.d_model=8", f"resume={finished}"]).trainer.max_epochs == 2
    with pytest.raises(ValueError, match=r"has model\.d_model=8, not 9; a resumed run keeps"):
        load(["model.d_model=9", f"resume={finished}"])
    with pytest.raises(ValueError, match=r"not .* \(and \d+ more keys differ\)"):
        load(["experiment=spikingssm/digits", f"resume={finished}"])


def test_files_may_have_moved_when_a_run_goes_on_but_not_changed(tmp_path) -> None:
    for folder, rows_trained in (("one", 30), ("moved", 30), ("other", 20)):
        write_mnist(tmp_path / folder, rows_trained)
    tiny = [
        "experiment=spikingssm/mnist",
        *TINY[1:],
        "data.generated=false",
        "data.batch_size=2",
        "data.val_fraction=0.07",
    ]
    run_dir = tmp_path / "run"
    run(load([*tiny, f"data.root={tmp_path / 'one'}", f"run_dir={run_dir}", "data.limit_train=4"]))
    (run_dir / "summary.json").unlink()
    found = load([f"resume={run_dir}", f"data.root={tmp_path / 'moved'}"])
    assert found.data.root == str(tmp_path / "moved")
    run(found)
    (run_dir / "summary.json").unlink()
    with pytest.raises(ValueError, match=r"trained on data with val 2, these have 1; set data\.root to the same"):
        run(load([f"resume={run_dir}", f"data.root={tmp_path / 'other'}"]))
    with pytest.raises(ValueError, match=r"unknown key 'data.path'; data has the keys .*root"):
        load([f"resume={run_dir}", "data.path=x"])


def test_a_resumed_run_keeps_the_command_that_began_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/x/train.py", "experiment=spikingssm/digits"])
    run(load([*TINY, f"run_dir={tmp_path}"]))
    (tmp_path / "summary.json").unlink()
    monkeypatch.setattr(sys, "argv", ["/x/train.py", f"resume={tmp_path}"])
    run(load([f"resume={tmp_path}"]))
    assert (
        json.loads((tmp_path / "summary.json").read_text())["command"] == "python train.py experiment=spikingssm/digits"
    )


@pytest.mark.parametrize(
    "override",
    ["trainer.devices=auto", "trainer.devices=[0,1]", "data.scaling=null", "data.leave_out=theo", "optim.ema=0.9"],
)
def test_values_of_several_kinds_are_taken(override) -> None:
    key, value = override.split("=")
    found = OmegaConf.select(load(["experiment=spikingssm/fsdd", override]), key)
    assert found == OmegaConf.create(f"value: {value}").value


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(file)]


def test_a_run_killed_from_outside_resumes_bit_for_bit(finished, tmp_path) -> None:
    folder = tmp_path / "killed"
    code = "import sys, torch; from spikingssm.commands.train import main; torch.set_num_threads(1); main(sys.argv[1:])"
    # the loop is made slow enough to be hit in its second epoch
    slow = "import time, spikingssm.training.fit as t; s = t.SequenceModule.training_step\n"
    slow += "t.SequenceModule.training_step = lambda *a: (time.sleep(0.3), s(*a))[1]\n"
    command = [sys.executable, "-W", "ignore", "-c", slow + code, *TINY, "trainer.max_epochs=2", f"run_dir={folder}"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    give_up = time.monotonic() + 60
    while not (folder / "checkpoints" / "last.ckpt").is_file() and time.monotonic() < give_up:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "summary.json").exists()
    torch.manual_seed(5)
    run(load([f"resume={folder}"]))
    assert rows(folder) == rows(finished)
    for name in ("last", "best"):
        one, other = (load_checkpoint(f / "checkpoints" / f"{name}.ckpt")["state_dict"] for f in (finished, folder))
        assert all(torch.equal(value, other[key]) for key, value in one.items())
    one, other = (json.loads((f / "summary.json").read_text()) for f in (finished, folder))
    assert one["test"] == other["test"]


def test_resume_before_the_first_checkpoint_starts_from_the_stored_configuration(finished, tmp_path) -> None:
    (tmp_path / "config.yaml").write_text((finished / "config.yaml").read_text())
    run(load([f"resume={tmp_path}"]))
    assert rows(tmp_path) == rows(finished)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["experiment=nope"], "no experiment is named 'nope'; there are: .*spikingssm/digits"),
        (["dataset=nope"], "no dataset is named 'nope'; there are: aan, arrays, cifar, .*digits"),
        (["modl.d_model=3"], "unknown key 'modl.d_model'; the top level has the keys"),
        (["model.d_modell=3"], "unknown key 'model.d_modell'; model has the keys .*d_model"),
        (["data.root=/x"], "unknown key 'data.root'; data has the keys"),
        (["+typo=3"], "unknown key 'typo'"),
        (["optim.lr=fast"], "optim.lr takes a number such as 0.01, got 'fast'"),
        (["nonsense"], "an override is key=value"),
        (["seed=1,2"], "asks for several runs; use --multirun"),
        (["+trainer.foo=1"], "trainer: unknown key 'foo'; it takes .*max_epochs"),
        (["+trainer.logger=false"], "trainer: unknown key 'logger'"),
        (["+optim.beta=1"], "optim: unknown key 'beta'; it takes lr, weight_decay, warmup"),
        (["+model.foo=1"], "model: .*unexpected keyword argument 'foo'"),
        (["model.dynamics.decay=20"], r"LIF: decay must be in \[0, 1\)"),
        (["model._target_=sdn.Nope"], "model: .*sdn.Nope"),
        (["model.solver={_target_:sdn.Surrogate,artifact:/nope}"], "/nope"),
        (["optim.lr=-1"], "lr must be > 0"),
        (["dataset=arrays"], "set data.path"),
        (["model.patch=65"], "model.patch=65 is longer than the 64 steps of digits"),
        (["data.x=a=b"], "a value with = ~ , .* stands in quotes of its own"),
        (["resume=/nope"], "/nope/config.yaml: no such file"),
        (["=1"], "an override is key=value|unknown key"),
        (["..=x"], "an override is key=value|unknown key"),
        (["data.x=" + "[" * 1500 + "]" * 1500], "an override is key=value"),
        (["data.x=" + "9" * 6000], "an override is key=value"),
        (["x" * 6000], "an override is key=value"),
        (["+" + "a." * 400 + "b=1"], "unknown key 'a"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0][:40],
)
def test_mistakes_are_one_line_that_says_what_there_is(overrides, says, tmp_path) -> None:
    with pytest.raises((ValueError, OSError), match=says) as caught:
        main(
            ["model.solver=loop", f"run_dir={tmp_path / 'r'}", *overrides]
            if "resume" not in overrides[0]
            else overrides
        )
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("path", ["/tmp/\u00fc.npz", "/data/\u4e2d/x.npz", "caf\u00e9's", "a \u20ac"])
def test_a_path_with_other_letters_is_told_how_to_be_written(path) -> None:
    with pytest.raises(ValueError, match=r"a letter such as . stands in quotes of its own: ") as caught:
        load(["seed=1", "dataset=arrays", f"data.path={path}"])
    advised = str(caught.value).partition('of its own: "')[2].removesuffix('".')
    assert load(["dataset=arrays", advised]).data.path == path


def test_a_variant_has_a_folder_of_its_own(monkeypatch) -> None:
    """The lines of docs/commands.md can be pasted one after another."""
    folders: list[str] = []
    monkeypatch.setattr("spikingssm.commands.train.run", lambda config, changed: folders.append(config.run_dir))
    for words in commands((ROOT / "docs" / "commands.md").read_text()):
        is_network = words[1] == "train.py" and any(word.startswith("experiment=") for word in words)
        if is_network and "--cfg" not in words and "resume=auto" not in words:  # which goes on with another line's
            main(words[2:])
    assert folders[0] == "runs/spikingssm-digits-0"
    assert len(set(folders)) == len(folders) > 10
    assert all(len(Path(folder).name) <= 140 for folder in folders)


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        (["experiment=spikingssm/digits", "seed=3", "threads=1"], "runs/spikingssm-digits-3"),
        (["experiment=spikingssm/digits", "model.d_model=64"], "runs/spikingssm-digits-0-model.d_model=64"),
        (["experiment=spikingssm/digits", "model.d_model=64", "name=x"], "runs/x-0"),
        (["experiment=spikingssm/digits", "model.d_model=64", "run_dir=y"], "y"),
        (["--multirun", "model.d_model=64", "optim.lr=0.5"], "runs/unnamed-0-model.d_model=64,optim.lr=0.5"),
    ],
)
def test_folders_are_named_by_what_was_changed(words, folder, monkeypatch) -> None:
    folders: list[str] = []
    monkeypatch.setattr("spikingssm.commands.train.run", lambda config, changed: folders.append(config.run_dir))
    main(words)
    assert folders == [folder]


def test_a_long_label_is_cut_and_stays_its_own() -> None:
    long = [folder_label([f"+trainer.x{i}={'a' * 40}" for i in range(9)] + [f"optim.lr={rate}"]) for rate in (1, 2)]
    assert len(set(long)) == 2
    assert {len(label) for label in long} == {100}


def test_no_configs_folder_is_a_clear_error(tmp_path, monkeypatch) -> None:
    import spikingssm

    monkeypatch.chdir(tmp_path)
    assert load(["seed=4"]).seed == 4
    monkeypatch.setattr(spikingssm, "__file__", str(tmp_path / "a" / "b.py"))
    with pytest.raises(FileNotFoundError, match="install the package anew, or set SPIKINGSSM_CONFIGS=FOLDER"):
        load([])


def test_the_command_line_prints_sweeps_and_fails(tmp_path, capsys) -> None:
    main(["seed=3", "--cfg", "job", "model.n_layers=7"])
    shown = OmegaConf.create(capsys.readouterr().out)
    assert (shown.seed, shown.data.seed, shown.model.n_layers, shown.run_dir) == (
        3,
        3,
        7,
        "runs/unnamed-3-model.n_layers=7",
    )
    main(["--multirun", "seed=0,1", "optim.lr=0.1,0.2", "--cfg", "job"])
    folders = [line for line in capsys.readouterr().out.splitlines() if line.startswith("run_dir")]
    assert folders == [f"run_dir: runs/unnamed-{seed}-optim.lr={lr}" for seed in (0, 1) for lr in (0.1, 0.2)]
    failed = subprocess.run(
        [sys.executable, "-W", "ignore", "train.py", "model.nope=1"], capture_output=True, text=True, check=False
    )
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: unknown key 'model.nope'")
    assert len(failed.stderr.splitlines()) == 1


def test_evaluate_on_the_command_line(finished, monkeypatch, capsys) -> None:
    from spikingssm.__main__ import main as command

    monkeypatch.setattr(sys, "argv", ["spikingssm", "evaluate", str(finished), "--solver", "loop"])
    command()
    shown = capsys.readouterr().out
    assert "accuracy" in shown
    assert "\nblocks.1.layer.neuron" in shown


def test_a_variant_is_what_makes_a_run_another_one_than_its_experiment() -> None:
    usual = ["experiment=spikingssm/digits", "+tier=smoke", "seed=3", "data.root=x", "threads=1", "run_dir=y"]
    assert variant(usual) == ""
    assert variant([*usual, "model.d_model=8", "+trainer.limit_train_batches=3"]) == (
        "model.d_model=8, trainer.limit_train_batches=3"
    )


def test_an_argument_that_a_file_leaves_out_can_be_added() -> None:
    words = ["experiment=spikingssm/digits", "model.dynamics.threshold=2"]
    with pytest.raises(ValueError, match=r"has the keys _target_, decay; add it with \+model\.dynamics\.threshold=2"):
        load(words)
    assert load([words[0], f"+{words[1]}"]).model.dynamics.threshold == 2
    with pytest.raises(ValueError, match=r"unknown key 'model\.foo'") as caught:
        load([words[0], "model.foo=2"])
    assert "add it" not in str(caught.value)
