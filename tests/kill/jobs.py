"""The work that is killed: four programs, small, on data that they draw themselves."""

import csv
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors import safe_open

import sdn
from sdn.runs.folder import load_checkpoint
from sdn.runs.tensor_files import load_tensors

ROOT = Path(__file__).parents[2]
VARYING = ("seconds", "cpu_seconds", "cpu_minutes", "command", "argv")
"""What differs between two equal runs: times, and the command line of a run that was resumed."""
NETWORK = [
    "experiment=spikingssm/digits", "+tier=smoke", "model.d_model=8", "model.d_state=4", "model.n_layers=1",
    "data.limit_train=48", "data.limit_eval=32", "trainer.accelerator=cpu", "trainer.max_epochs=3",
    "checkpoint.every_n_steps=1", "optim.ema=0.9", "run_dir=run",
]  # fmt: skip
SDN = [
    "--save", "run", "--training", "../data/training.pt", "--test", "../data/test.pt", "--epochs", "4",
    "--steps_per_epoch", "30", "--batch_size", "8", "--members", "2",
]  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A program, and what it leaves in the folder in which it runs.

    Args:
        name: for the table.
        command: script, relative to the repository, and its arguments.
        read: everything in a folder that two runs must have alike.
        checkpoint: of which a stopped run can go on.
        go_on: the arguments that go on from it.
        result: once it is there, the work is done.
    """

    name: str
    command: list[str]
    read: Callable[[Path], dict[str, Any]]
    result: str
    checkpoint: str | None = None
    go_on: str | None = None

    def main(self, words: list[str]) -> None:
        """Do it in this process and the current folder."""
        script, *sys.argv[1:] = words
        sys.argv[0] = script
        if script == "generate.py":
            from generate import main
        elif script == "train.py":
            from train import main
        else:
            from kill.build_cache import main
        main.__wrapped__()  # the entry point is that of `forked.Child`

    def done(self, folder: Path) -> bool:
        """Whether the work has its result."""
        return bool(list(folder.glob(self.result)))

    def can_go_on(self, folder: Path) -> bool:
        """Whether there is a checkpoint."""
        return self.checkpoint is not None and (folder / self.checkpoint).is_file()


def trajectories(folder: Path) -> dict[str, Any]:
    """Tensors and facts of every file of `generate.py`."""
    found = {path.name: sdn.load_trajectories(path) for path in folder.glob("dataset/*.pt")}
    return {name: (file.input[:], file.mem[:], file.spike[:], str(file.facts)) for name, file in found.items()}


def run(folder: Path) -> dict[str, Any]:
    """Weights, optimiser and the rest of both checkpoints, metrics, summary, settings and artifact of a run folder."""
    home, found = folder / "run", {}
    for path in sorted(home.glob("checkpoints/*.ckpt")):
        found[path.name] = {key: value for key, value in load_checkpoint(path).items() if key != "callbacks"}
    with (home / "metrics.csv").open() as file:
        found["metrics.csv"] = steady(list(csv.DictReader(file)))
    for path in sorted(home.glob("*.json")):
        found[path.name] = steady(json.loads(path.read_text()))
    if (home / "config.yaml").is_file():
        found["config.yaml"] = yaml.safe_load((home / "config.yaml").read_text())
    if (home / "artifact.safetensors").is_file():
        found["artifact"] = content(home / "artifact.safetensors")
    return found


def content(path: Path) -> dict[str, Any]:
    """Facts and tensors of an artifact; safetensors writes its facts in any order."""
    with safe_open(path, "pt") as file:
        return {"facts": file.metadata(), **{name: file.get_tensor(name) for name in file.keys()}}  # noqa: SIM118


def cache(folder: Path) -> dict[str, Any]:
    """Every byte of the prepared arrays."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("cache/*/*"))}


def steady(value: Any) -> Any:
    """The same without what varies."""
    if isinstance(value, dict):
        return {key: steady(part) for key, part in value.items() if key not in VARYING}
    return [steady(part) for part in value] if isinstance(value, list) else value


JOBS = {
    job.name: job
    for job in (
        Job("generate", ["generate.py", "dataset", "-N", "4000", "-T", "256"], trajectories, "dataset/*.pt"),
        Job(
            "sdn", ["train.py", *SDN], run, "run/summary.json", "run/checkpoints/last.ckpt", "--resume run"
        ),
        Job(
            "network", ["train.py", *NETWORK], run, "run/summary.json", "run/checkpoints/last.ckpt", "resume=run"
        ),
        Job("cache", ["tests/kill/build_cache.py"], cache, "dataset/cache/listops-*/facts.json"),
    )
}  # fmt: skip

READERS: dict[str, Callable[[Path], Any]] = {
    ".ckpt": load_checkpoint,
    ".pt": load_tensors,
    ".safetensors": sdn.load_artifact,
    ".json": lambda path: json.loads(path.read_text()),
    ".yaml": lambda path: yaml.safe_load(path.read_text()),
    ".npy": lambda path: np.load(path, allow_pickle=False),
    ".csv": lambda path: whole_table(path.read_text()),
    ".png": lambda path: __import__("PIL.Image").Image.open(path).load(),
}
"""How a file is read, by its ending; each raises where the file is not whole."""


def whole_table(text: str) -> None:
    """Refuse a table that is cut."""
    rows = list(csv.reader(text.splitlines()))
    if not text.endswith("\n") or len({len(row) for row in rows}) > 1:
        raise ValueError("the table is cut")
