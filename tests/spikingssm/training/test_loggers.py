"""Weights & Biases beside TensorBoard, and what is said where it is missing."""

import importlib.util
from pathlib import Path

import lightning.pytorch.loggers
import pytest
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers.logger import DummyLogger

from sdn.runs.bar import Bar
from spikingssm.commands.train import main
from spikingssm.experiments.config import load
from spikingssm.experiments.run import run
from spikingssm.training.loggers import more_loggers

TINY = [
    "experiment=spikingssm/digits", "+tier=smoke", "model.solver=loop", "model.d_model=8", "model.d_state=4",
    "trainer.accelerator=cpu", "threads=1",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _at_root(monkeypatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])


class Recorder(DummyLogger):
    """Stands in for the logger of a package that the tests do not need."""

    made: list["Recorder"] = []

    def __init__(self, **options) -> None:
        super().__init__()
        self.options, self.logged, self.config, self.finished = options, {}, None, 0
        self.made.append(self)

    @property
    def experiment(self):
        return self

    def finish(self) -> None:
        self.finished += 1

    def log_hyperparams(self, config) -> None:
        self.config = config

    def log_metrics(self, metrics, step=None) -> None:
        self.logged.update(metrics)


@pytest.fixture
def recorded(monkeypatch) -> list[Recorder]:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "wandb" or found(name))
    monkeypatch.setattr(lightning.pytorch.loggers, "WandbLogger", Recorder)
    monkeypatch.setattr(Recorder, "made", [])
    return Recorder.made


def test_a_run_logs_its_metrics_and_its_configuration_and_ends_it(recorded, tmp_path) -> None:
    folder = run(load([*TINY, "logger.wandb=toy", f"run_dir={tmp_path / 'r'}"]))
    (one,) = recorded
    assert one.options["project"] == "toy"
    assert one.options["name"] == "r"
    assert one.options["save_dir"] == str(folder)
    assert {"train/loss", "val/accuracy", "test/accuracy"} <= set(one.logged)
    assert one.config["model"]["d_model"] == 8
    assert one.finished == 1


def test_a_resumed_run_goes_on_in_the_same_place_and_another_folder_does_not(recorded, tmp_path) -> None:
    ids = [more_loggers(tmp_path / name, {}, wandb="toy")[0].options["id"] for name in ("a", "a", "b/a")]
    assert ids[0] == ids[1] != ids[2]
    assert recorded[0].options["resume"] == "allow"


def test_without_a_project_nothing_is_logged_there(recorded, tmp_path) -> None:
    assert more_loggers(tmp_path, {}) == []
    assert recorded == []


def test_a_missing_package_and_a_bad_name_are_one_line(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"logger\.wandb=toy needs the package wandb: pip install wandb; or leave"):
        main([*TINY, "logger.wandb=toy", f"run_dir={tmp_path / 'r'}"])
    with pytest.raises(ValueError, match=r"logger\.wandb must be the name of a project or null, got True"):
        main([*TINY, "logger.wandb=true", f"run_dir={tmp_path / 'r'}"])
    with pytest.raises(ValueError, match=r"logger: unknown key 'mlflow'; it takes wandb"):
        main([*TINY, "+logger.mlflow=true", f"run_dir={tmp_path / 'r'}"])
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_shown_on_a_terminal_only(monkeypatch, tmp_path, terminal) -> None:
    seen = []

    def watch(self, trainer, pl_module) -> None:
        seen.extend(callback for callback in trainer.callbacks if isinstance(callback, Bar))

    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    monkeypatch.setattr(Callback, "on_fit_start", watch)
    run(load([*TINY, f"run_dir={tmp_path / 'r'}"]))
    assert bool(seen) is terminal
    if terminal:
        trainer, module = seen[0].trainer, seen[0].trainer.lightning_module
        shown = seen[0].get_metrics(trainer, module)
        assert shown["loss"] == float(module.last_loss)
        assert "v_num" not in shown
