"""Sweeps through Hydra's launchers, and what is said where one cannot run."""

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spikingssm.commands.train import main
from spikingssm.experiments import launch
from spikingssm.experiments.config import load
from spikingssm.experiments.launch import split
from spikingssm.experiments.overrides import parse
from spikingssm.experiments.run import run
from spikingssm.reports.tables import report

ROOT = Path(__file__).parents[3]
TINY = [
    "experiment=spikingssm/digits", "+tier=smoke", "model.solver=loop", "model.d_model=8", "model.d_state=4",
    "trainer.accelerator=cpu", "threads=1",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _at_root(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)


def train(*words: object, script: str | Path = "train.py") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", str(script), *map(str, words)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, text=True, capture_output=True, check=False, env=env, timeout=300)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(file)]


def test_joblib_runs_side_by_side_what_single_commands_run(tmp_path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    before = set(ROOT.iterdir())
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    done = train("--multirun", *launcher, *TINY, "seed=0,1", "optim.lr=choice(0.02)", f"run_dir={tmp_path}/${{seed}}")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0-optim.lr=0.02", "1-optim.lr=0.02"]
    assert set(ROOT.iterdir()) == before
    single = run(load([*TINY, "seed=1", "optim.lr=0.02", f"run_dir={tmp_path / 'single'}"]))
    assert table(single) == table(tmp_path / "1-optim.lr=0.02")
    assert table(single) != table(tmp_path / "0-optim.lr=0.02")
    summary = json.loads((tmp_path / "1-optim.lr=0.02" / "summary.json").read_text())
    assert summary["seed"] == 1
    assert summary["command"].startswith("python train.py experiment=spikingssm/digits")
    assert summary["command"].count("run_dir=") == 1


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("SDN_LONG"), reason="SDN_LONG=1 runs it")
def test_a_sweep_outlives_a_run_that_is_killed_and_the_same_command_goes_on(tmp_path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *TINY, "seed=0,1,2", f"run_dir={tmp_path}/${{seed}}"]
    words += ["trainer.max_epochs=3", "data.limit_train=32", "checkpoint.every_n_steps=1"]
    killed = train("--multirun", *words, script=ROOT / "tests" / "dying_run.py")
    assert killed.returncode == 1
    assert "Traceback" not in killed.stderr
    last = killed.stderr.splitlines()[-1]
    assert last == (
        f"error: 1 of 3 runs failed, the others are finished: {tmp_path}/1: it was ended by SIGKILL, as a system does "
        f"that has run out of memory; go on with resume={tmp_path}/1 | the same command with resume=auto does what is "
        "left"
    )
    folders = [tmp_path / seed for seed in "012"]
    assert [(folder / "summary.json").is_file() for folder in folders] == [True, False, True]
    assert [("**not finished**" in row) for row in report(folders).splitlines()[2:]].count(True) == 1
    before = {path: path.read_bytes() for seed in "02" for path in (tmp_path / seed).rglob("*") if path.is_file()}
    again = train("--multirun", *words, "resume=auto")
    assert again.returncode == 0, again.stderr
    assert "2 of 3 runs are finished, 1 are left" in again.stderr
    assert "going on in epoch 2 with batch" in again.stderr
    assert before == {path: path.read_bytes() for path in before}
    given = [word.replace("${seed}", "single") for word in words[2:] if not word.startswith("seed=")]
    assert table(run(load([*given, "seed=1"]))) == table(tmp_path / "1")


def test_a_process_that_is_killed_is_told_and_the_others_run(tmp_path, monkeypatch, capsys) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    ends = ["print(7)", "import os; os.kill(os.getpid(), 9)", "raise SystemExit('error: no x; go on with resume=y')"]

    def command(self, job):
        mark = f"import pathlib; pathlib.Path({job.run_dir!r}).touch()"
        return [sys.executable, "-S", "-c", f"{mark}; {ends[int(job.run_dir[-1])]}"]

    monkeypatch.setattr(launch._Work, "command", command)
    words = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *TINY, "seed=0,1,2", f"run_dir={tmp_path}/${{seed}}"]
    with pytest.raises(SystemExit) as caught:
        main(["--multirun", *words])
    assert caught.value.code == 1
    said = capsys.readouterr().err.splitlines()
    assert "error: no x; go on with resume=y" in said[:-1]
    assert said[-1] == (
        f"error: 2 of 3 runs failed, the others are finished: {tmp_path}/1: it was ended by SIGKILL, as a system does "
        "that has run out of memory; there is no checkpoint yet, start again with the same command | "
        f"{tmp_path}/2: no x; go on with resume=y | the same command with resume=auto does what is left"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]


def test_resume_auto_starts_goes_on_and_leaves_out_what_is_finished(tmp_path) -> None:
    words = ["--multirun", *TINY, "seed=0", "optim.warmup=choice(0.5)", f"run_dir={tmp_path}/run", "resume=auto"]
    main(words)
    (folder,) = tmp_path.iterdir()
    assert folder.name == "run-optim.warmup=0.5"
    first = table(folder)
    kept = (folder / "summary.json").read_bytes()
    main(words)
    assert (folder / "summary.json").read_bytes() == kept
    (folder / "summary.json").unlink()
    main(words)
    assert "going on in epoch 2" in (folder / "run.log").read_text()
    assert table(folder) == first
    with pytest.raises(ValueError, match=r"has optim\.lr=0\.01, not 0\.5"):
        load([*TINY, "seed=0", "optim.warmup=0.5", "optim.lr=0.5", f"run_dir='{folder}'", "resume=auto"])
    assert load([*TINY, f"run_dir={tmp_path}/new", "resume=auto"]).resume is None


def test_resume_auto_is_added_where_torchrun_starts_a_run_again(monkeypatch) -> None:
    from spikingssm.commands.train import _resumed

    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    assert _resumed(["seed=1"]) == (["seed=1"], [])
    assert _resumed(["seed=1", "resume=auto"]) == (["seed=1"], ["resume=auto"])
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert _resumed(["seed=1"]) == (["seed=1"], ["resume=auto"])
    assert _resumed(["resume=runs/x"]) == (["resume=runs/x"], [])


def test_submitit_runs_jobs_of_its_own(tmp_path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    launcher = [
        "hydra/launcher=submitit_local",
        "hydra.launcher.timeout_min=5",
        f"hydra.sweep.dir={tmp_path / 'sweep'}",
    ]
    done = train("--multirun", *launcher, *TINY, "seed=3", "optim.warmup=0.5", f"run_dir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["seed"] == 3
    assert list((tmp_path / "sweep" / ".submitit").rglob("*_log.out"))


@pytest.mark.parametrize("launcher", [[], ["hydra/launcher=basic"]])
def test_a_failed_job_is_one_line_and_the_others_run(tmp_path, capsys, launcher) -> None:
    (tmp_path / "0" / "checkpoints").mkdir(parents=True)
    (tmp_path / "0" / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(SystemExit) as caught:
        main(["--multirun", *launcher, *TINY, "seed=0,1", f"run_dir={tmp_path}/${{seed}}"])
    assert caught.value.code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: 1 of 2 runs failed, the others are finished: {tmp_path}/0 holds a")
    assert "continue with resume=" in last
    assert (tmp_path / "1" / "summary.json").is_file()


@pytest.mark.parametrize("launcher", [[], ["hydra/launcher=basic"]])
def test_a_sweep_goes_on_after_a_run_that_diverged_and_the_report_names_it(tmp_path, capsys, launcher) -> None:
    words = [*TINY, "optim.lr=1e9,0.01", f"run_dir={tmp_path}/run"]
    with pytest.raises(SystemExit) as caught:
        main(["--multirun", *launcher, *words])
    assert caught.value.code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"1 of 2 runs failed, the others are finished: {tmp_path}/run-optim.lr=1000000000.0: " in last
    wrong, right = tmp_path / "run-optim.lr=1000000000.0", tmp_path / "run-optim.lr=0.01"
    assert (right / "summary.json").is_file()
    assert not (wrong / "summary.json").exists()
    rows = report([wrong, right]).splitlines()[2:]
    assert len(rows) == 2
    assert "optim.lr=0.01" in rows[0]
    assert "accuracy" in rows[0]
    assert rows[1].startswith("| spikingssm-digits, ")
    assert "optim.lr=1000000000.0 |" in rows[1]
    assert "**diverged**: " in rows[1]


def test_a_bug_ends_a_sweep(monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("spikingssm.commands.train.run", broken)
    with pytest.raises(KeyError):
        main(["--multirun", *TINY, "seed=0,1"])


def test_a_job_that_the_cluster_restarts_resumes(tmp_path, monkeypatch) -> None:
    finished = run(load([*TINY, f"run_dir={tmp_path / 'run'}"]))
    (finished / "summary.json").unlink()
    before = table(finished)
    words = ["--multirun", "hydra/launcher=basic", *TINY, "seed=0", f"run_dir={finished}"]
    with pytest.raises(SystemExit):
        main(words)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    main(words)
    assert (finished / "summary.json").is_file()
    assert table(finished) == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["hydra/launcher=joblib", "seed=0"], "hydra/launcher=joblib is for sweeps; use it with --multirun"),
        (["--multirun", "hydra/launcher=nope"], "hydra: .*hydra/launcher/nope.* basic"),
        (["--multirun", "hydra/launcher=basic", "hydra.launcher.nope=1"], r"hydra: .*hydra\.launcher\.nope"),
        (["--multirun", "hydra/launcher=basic", "modell.d=1"], "unknown key 'modell.d'"),
        (["--multirun", "seed=0,1", "run_dir=runs/same"], "two runs of this sweep would write to runs/same"),
    ],
)
def test_mistakes_are_one_line(words, says) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        main(words)
    assert "\n" not in str(caught.value)


def test_a_missing_launcher_names_its_package(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name, package in (("joblib", "hydra-joblib-launcher"), ("submitit_slurm", "hydra-submitit-launcher")):
        with pytest.raises(ImportError, match=f"needs the package {package}: pip install {package}"):
            main(["--multirun", f"hydra/launcher={name}", "seed=0,1"])


def test_slurm_is_looked_for_before_anything_starts(monkeypatch) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    monkeypatch.setattr(launch.shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match="needs sbatch, which is not on this machine"):
        main(["--multirun", "hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu", "seed=0,1"])


def test_options_of_hydra_are_told_from_those_of_the_run() -> None:
    words = ["seed=0", "hydra/launcher=joblib", "+hydra.launcher.n_jobs=2", "name=hydra", "data.root=hydra/x"]
    assert split(words) == (["seed=0", "name=hydra", "data.root=hydra/x"], words[1:3])


def test_several_devices_get_a_process_of_their_own(tmp_path, monkeypatch, capsys) -> None:
    """Lightning starts the others with the command of the first, and a launcher's worker has another one."""
    started = []

    monkeypatch.setattr(launch, "call", lambda command: started.append(command) or 3)
    monkeypatch.setattr(launch, "run", lambda config: pytest.fail("must not run here"))
    monkeypatch.setattr(sys, "argv", ["train.py"])
    words = [*TINY, "trainer.devices=2", f"run_dir='{tmp_path}/a=b'"]
    with pytest.raises(SystemExit):
        main(["--multirun", "hydra/launcher=basic", *words])
    assert "a=b: it ended with exit code 3; its error stands above" in capsys.readouterr().err
    assert started[0][0] == sys.executable
    assert str(ROOT / "train.py") in started[0]
    assert started[0][-len(TINY) - 2 :] == [*TINY, "trainer.devices=2", f"run_dir={tmp_path}/a=b"]
    assert parse(started[0][-1:])[0].value() == f"{tmp_path}/a=b"


def test_a_run_is_started_by_the_program_that_was_called() -> None:
    """The console command lies where no package can be imported from, and `train.py` need not be installed."""
    job = launch.Job(["seed=1", "run_dir=x"], "runs/a")
    for script, words in (("/x/train.py", ["/x/train.py"]), ("/bin/spikingssm", ["-m", "spikingssm", "train"])):
        command = launch._Work(script, {}).command(job)
        assert command[0] == sys.executable
        assert command[-2 - len(words) :] == [*words, "seed=1", "run_dir=runs/a"]


class Cluster:
    """Stands in for submitit's executor: keeps what it is given, and runs each job here."""

    made: list["Cluster"] = []

    def __init__(self, folder, cluster, **more) -> None:
        self.begun, self.parameters = {"folder": folder, "cluster": cluster, **more}, {}
        self.made.append(self)

    def update_parameters(self, **parameters) -> None:
        self.parameters = parameters

    def map_array(self, work, jobs):
        class Done(tuple):
            def results(self):
                return self

        return [Done([work(job)]) for job in jobs]


def test_options_of_slurm_are_called_as_submitit_calls_them(tmp_path, monkeypatch) -> None:
    submitit = pytest.importorskip("submitit")
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    monkeypatch.setattr(submitit, "AutoExecutor", Cluster)
    monkeypatch.setattr(launch.shutil, "which", lambda name: "/usr/bin/sbatch")
    monkeypatch.setattr(launch, "run", lambda config, changed: seen.append((config.seed, os.environ["SWEEP"])))
    monkeypatch.setenv("SWEEP", "")
    seen: list[tuple[int, str]] = []
    options = ["partition=gpu", "max_num_timeout=3", "timeout_min=9", "mem_gb=4"]
    words = ["hydra/launcher=submitit_slurm", *(f"hydra.launcher.{option}" for option in options)]
    words.append("+hydra.launcher.additional_parameters.a=1")
    main(["--multirun", *words, "+hydra.job.env_set.SWEEP=on", *TINY, "seed=4,5", f"run_dir={tmp_path}/${{seed}}"])
    made = Cluster.made.pop()
    assert made.begun == {"folder": "runs/.submitit/%j", "cluster": "slurm", "slurm_max_num_timeout": 3}
    given = made.parameters
    assert (given["slurm_partition"], given["timeout_min"], given["mem_gb"], given["name"]) == ("gpu", 9, 4, "train")
    assert given["slurm_additional_parameters"] == {"a": 1}
    assert not [key for key in given if not key.startswith("slurm_") and key not in launch.SHARED]
    assert seen == [(4, "on"), (5, "on")]


def test_a_job_that_was_killed_is_told_and_the_others_are_waited_for(tmp_path, monkeypatch, capsys) -> None:
    utils = pytest.importorskip("submitit.core.utils")

    class Killed:
        def results(self):
            raise utils.UncompletedJobError("Job 7 has not produced any output (state: OUT_OF_MEMORY)\nat all")

    class Half(Cluster):
        def map_array(self, work, jobs):
            return [Killed(), *super().map_array(work, jobs[1:])]

    monkeypatch.setattr("submitit.AutoExecutor", Half)
    monkeypatch.setattr(launch, "run", lambda config, changed: seen.append(config.seed))
    seen: list[int] = []
    with pytest.raises(SystemExit):
        main(["--multirun", "hydra/launcher=submitit_local", *TINY, "seed=4,5", f"run_dir={tmp_path}/${{seed}}"])
    assert seen == [5]
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"1 of 2 runs failed, the others are finished: {tmp_path}/4: its job has ended without a result (" in last
    assert "OUT_OF_MEMORY" in last


def test_the_names_of_the_options_are_those_of_submitit() -> None:
    config = pytest.importorskip("hydra_plugins.hydra_submitit_launcher.config")
    assert {key for key in vars(config.BaseQueueConf()) if key != "submitit_folder"} == launch.SHARED


def test_a_job_at_its_time_limit_is_queued_again_as_it_was() -> None:
    pytest.importorskip("submitit")
    work, job = launch._Work("/x/train.py", {}), launch.Job(["seed=1"], "runs/a")
    again = work.checkpoint(job)
    assert (again.function, again.args) == (work, (job,))


def test_another_launcher_is_refused() -> None:
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store("mine", {"_target_": "x"}, "hydra/launcher")
    with pytest.raises(ValueError, match="hydra/launcher=mine is not used here; there are basic, joblib, submitit_loc"):
        main(["--multirun", "hydra/launcher=mine", *TINY, "seed=0,1"])


def test_nothing_internal_of_hydra_is_used() -> None:
    for path in (ROOT / "spikingssm").rglob("*.py"):
        assert "hydra._internal" not in path.read_text(), path
        assert "GlobalHydra" not in path.read_text(), path


def test_resume_auto_knows_the_surrogate_that_a_run_has_kept(tmp_path) -> None:
    """The run keeps the network and its options where the command has a word."""
    words = ["experiment=spikingssm/digits", "+tier=smoke", "trainer.accelerator=cpu", f"run_dir={tmp_path}/run"]
    main([*words, "resume=auto"])
    kept = (tmp_path / "run" / "summary.json").read_bytes()
    assert "sdn.Surrogate" in (tmp_path / "run" / "config.yaml").read_text()
    for more in ([], ["model.solver=surrogate"], ["model.solver={_target_: sdn.Surrogate}"]):
        main([*words, *more, "resume=auto"])
        assert (tmp_path / "run" / "summary.json").read_bytes() == kept
    for solver in ("fused", "{_target_: sdn.Surrogate, rounds: 5}", "{_target_: sdn.Surrogate, artifact: other}"):
        with pytest.raises(ValueError, match=r"the run in resume=.* has model\.solver"):
            load([*words, f"model.solver={solver}", "resume=auto"])
