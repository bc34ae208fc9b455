"""A run that is killed and resumed equals the run that was never stopped, bit for bit, wherever the kill falls."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from sdn.runs.folder import WholeCheckpointIO, load_checkpoint
from spikingssm.datasets import Rows, SequenceData
from spikingssm.experiments.config import load
from spikingssm.experiments.run import run
from spikingssm.models import SpikingSSM
from spikingssm.tasks import Classification
from spikingssm.training.callbacks import EarlyStop, StepCheckpoint
from spikingssm.training.fit import SequenceModule, fit, score

TRAINER = {"accelerator": "cpu", "devices": 1, "max_epochs": 3, "enable_progress_bar": False}


class Counted:
    """Rows that count how often each was read."""

    def __init__(self, x: np.ndarray) -> None:
        self.x, self.shape, self.reads = x, x.shape, []

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: list[int]) -> np.ndarray:
        self.reads += rows
        return self.x[rows]


def some_rows(count: int, seed: int) -> Rows:
    draw = np.random.default_rng(seed)
    y = draw.integers(0, 3, count)
    return Rows(Counted(draw.normal(size=(count, 12, 2)) + y[:, None, None]), y)


def data(workers: int = 0) -> SequenceData:
    """84 training rows: 10 batches of 8 in an epoch."""
    parts = {"train": some_rows(84, 0), "test": some_rows(20, 1), "val": some_rows(20, 2)}
    return SequenceData("noise", **parts, d_output=3, batch_size=8, num_workers=workers, seed=5)


def module(**options) -> SequenceModule:
    torch.manual_seed(0)
    sizes = {"d_model": 6, "n_layers": 1, "d_state": 4, "norm": "batch"}
    model = SpikingSSM(2, 3, **sizes, solver="loop", dropout=0.3)
    return SequenceModule(model, Classification(), classes=3, lr=0.02, **options)


class Killed(BaseException):
    """Stands in for a kill: nobody catches it."""


class KillAt(Callback):
    """Stop behind a batch, or before a validation, as a kill would: no hook of ours runs after it."""

    def __init__(self, epoch: int, batch: int | None) -> None:
        self.epoch, self.batch = epoch, batch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if (trainer.current_epoch, batch_idx) == (self.epoch, self.batch):
            raise Killed

    def on_validation_start(self, trainer, pl_module) -> None:
        if (trainer.current_epoch, None) == (self.epoch, self.batch):
            raise Killed


def table(folder) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(file)]


def same(one, other, at: str = "") -> None:
    """Assert that nested values are equal to the bit."""
    assert type(one) is type(other), at
    if isinstance(one, dict):
        assert one.keys() == other.keys(), at
        for key in one:
            same(one[key], other[key], f"{at}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), at
        for i, pair in enumerate(zip(one, other, strict=True)):
            same(*pair, f"{at}.{i}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), at
    else:
        assert one == other, at


def assert_same_runs(one, other) -> None:
    assert table(one) == table(other)
    for name in ("last", "best"):
        found = [load_checkpoint(folder / "checkpoints" / f"{name}.ckpt") for folder in (one, other)]
        for part in ("epoch", "global_step", "place", "running", "state_dict", "optimizer_states", "lr_schedulers"):
            same(found[0][part], found[1][part], f"{name}.{part}")


# of the module, steps between checkpoints, of the trainer
OPTIONS = {
    "plain": ({}, 1, {}),
    "accumulated": ({}, 2, {"accumulate_grad_batches": 3, "gradient_clip_val": 0.5}),
    "averaged": ({"ema": 0.8}, 3, {}),
    "stopped early": ({}, 4, {"patience": 1}),
    "bf16": ({}, 4, {"precision": "bf16-mixed"}),
    "double": ({}, 4, {"precision": "64-true"}),
}


def train(kind: str, one: SequenceModule, rows: SequenceData, folder, *more: Callback, **options):
    _, steps, trainer = OPTIONS[kind]
    trainer = {**TRAINER, **trainer}
    if patience := trainer.pop("patience", None):
        more = (*more, EarlyStop(*one.task.monitor, patience=patience))
    return fit(one, rows, folder, seed=1, callbacks=[StepCheckpoint(folder, steps), *more], **trainer, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run of each kind: its folder and its test values."""
    found = {}

    def run(kind):
        if kind not in found:
            folder, one = tmp_path_factory.mktemp("whole"), module(**OPTIONS[kind][0])
            loop = train(kind, one, data(), folder)
            found[kind] = folder, score(one, data(), loop)
        return found[kind]

    return run


@pytest.mark.parametrize(
    ("kind", "epoch", "batch", "workers"),
    [
        ("plain", 0, 1, 0),
        ("plain", 0, 4, 0),
        ("plain", 0, None, 0),
        ("plain", 1, 0, 0),
        ("plain", 1, 7, 2),
        ("plain", 2, 9, 0),
        ("plain", 2, None, 0),
        ("accumulated", 0, 7, 0),
        ("accumulated", 1, 6, 2),
        ("averaged", 0, 5, 0),
        ("averaged", 1, 9, 0),
        ("stopped early", 1, 5, 0),
        ("bf16", 1, 5, 0),
        ("double", 1, 5, 0),
    ],
)
def test_a_run_killed_inside_an_epoch_resumes_bit_for_bit(whole, tmp_path, kind, epoch, batch, workers) -> None:
    """Guards defects 15, 16 and 21, here inside an epoch: a resumed run was another run."""
    expected, tested = whole(kind)
    with pytest.raises(Killed):
        train(kind, module(**OPTIONS[kind][0]), data(), tmp_path, KillAt(epoch, batch))
    torch.manual_seed(99)
    one, rows = module(**OPTIONS[kind][0]), data(workers)
    nn.init.zeros_(one.model.decoder.weight)
    loop = train(kind, one, rows, tmp_path, resume=True)
    assert_same_runs(tmp_path, expected)
    assert score(one, data(), loop) == tested


@pytest.mark.parametrize(("name", "epochs"), [("best", 1), ("last", 1), ("last", 2)])
def test_a_kill_while_an_epoch_ends_changes_nothing(whole, tmp_path, monkeypatch, name, epochs) -> None:
    """The two checkpoints of an epoch are written one after the other; neither may need the other's newest."""
    write = WholeCheckpointIO.save_checkpoint

    def die(self, checkpoint, path, storage_options=None) -> None:
        if Path(path).stem == name and checkpoint["place"] == {"epoch": epochs, "batch": 0}:
            raise Killed
        write(self, checkpoint, path, storage_options)

    monkeypatch.setattr(WholeCheckpointIO, "save_checkpoint", die)
    with pytest.raises(Killed):
        train("plain", module(), data(), tmp_path)
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["place"] == {"epoch": epochs - 1, "batch": 9}
    train("plain", module(), data(), tmp_path, resume=True)
    assert_same_runs(tmp_path, whole("plain")[0])


def test_batches_that_were_trained_are_not_read_again(tmp_path) -> None:
    first = data()
    read = first.train_set.rows.x.reads
    assert first.digests
    read.clear()
    with pytest.raises(Killed):
        train("averaged", module(ema=0.8), first, tmp_path, KillAt(1, 7))
    assert len(read) == (10 + 8) * 8
    assert load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["place"] == {"epoch": 1, "batch": 5}
    second = data()
    again = second.train_set.rows.x.reads
    assert second.digests
    again.clear()
    train("averaged", module(ema=0.8), second, tmp_path, resume=True)
    assert len(again) == (5 + 10) * 8
    assert again[: 3 * 8] == read[15 * 8 :]  # batches 5 to 7 of epoch 1 were not in the checkpoint


def test_no_checkpoint_falls_between_the_batches_of_one_step(tmp_path) -> None:
    """A gradient that is not complete is in no checkpoint, so a resume there would lose it."""
    seen = []

    class Watch(Callback):
        def on_save_checkpoint(self, trainer, pl_module, checkpoint) -> None:
            seen.append((checkpoint["place"]["batch"], trainer.global_step))

    train("accumulated", module(), data(), tmp_path, Watch())
    steps = [(3, 1), (6, 2), (9, 3), (0, 4)]  # 10 batches in threes; the last step has one
    inside = [(batch, step + 4 * epoch) for epoch in range(3) for batch, step in steps]
    assert [one for one in seen if one[0]] == [one for one in inside if one[0] and one[1] % 2 == 0]


def test_minutes_trigger_a_checkpoint_too(tmp_path) -> None:
    writes = []

    class Watch(Callback):
        def on_save_checkpoint(self, trainer, pl_module, checkpoint) -> None:
            writes.append(checkpoint["place"])

    for minutes, expected in ((1e-9, 9), (1e6, 0)):
        writes.clear()
        folder = tmp_path / str(minutes)
        more = [StepCheckpoint(folder, every_minutes=minutes), Watch()]
        fit(module(), data(), folder, seed=1, callbacks=more, **{**TRAINER, "max_epochs": 1})
        assert [place["batch"] for place in writes if place["batch"]] == list(range(1, expected + 1))


@pytest.mark.parametrize("options", [{"every_n_steps": 0}, {"every_n_steps": 1.5}, {"every_minutes": 0}])
def test_a_checkpoint_needs_a_positive_number(options, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"checkpoint\.every_(n_steps|minutes) must be .* or null, got"):
        StepCheckpoint(tmp_path, **options)


def test_seconds_of_an_interrupted_epoch_are_those_of_both_parts(tmp_path) -> None:
    class Slow(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            time.sleep(0.05 if trainer.current_epoch == 0 else 0)

    with pytest.raises(Killed):
        train("plain", module(), data(), tmp_path, Slow(), KillAt(0, 8))
    train("plain", module(), data(), tmp_path, resume=True)
    with (tmp_path / "metrics.csv").open() as file:
        assert float(next(csv.DictReader(file))["seconds"]) > 8 * 0.05


TINY = [
    "experiment=spikingssm/digits", "+tier=smoke", "model.solver=loop", "model.d_model=8", "model.d_state=4",
    "trainer.accelerator=cpu", "trainer.max_epochs=2", "checkpoint.every_n_steps=1",
]  # fmt: skip
# training is made slow enough to be hit inside its second epoch
SLOW = """
import sys, time
import torch
import spikingssm.training.fit as t
from spikingssm.commands.train import main
torch.set_num_threads(1)
step = t.SequenceModule.training_step
t.SequenceModule.training_step = lambda *a: (time.sleep(0.3), step(*a))[1]
main(sys.argv[1:])
"""


def test_kill_9_inside_an_epoch_then_resume_equals_the_run_that_was_never_stopped(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    whole, killed = run(load([*TINY, f"run_dir={tmp_path / 'whole'}"])), tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SLOW, *TINY, f"run_dir={killed}"], stderr=subprocess.DEVNULL
    )
    last, give_up, place = killed / "checkpoints" / "last.ckpt", time.monotonic() + 120, {"epoch": 0, "batch": 0}
    while (place["epoch"], place["batch"]) < (1, 1) and time.monotonic() < give_up:
        assert process.poll() is None
        time.sleep(0.02)
        place = load_checkpoint(last)["place"] if last.is_file() else place
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert load_checkpoint(last)["place"] in ({"epoch": 1, "batch": 1}, {"epoch": 1, "batch": 2})
    assert not (killed / "summary.json").exists()
    torch.manual_seed(5)
    run(load([f"resume={killed}"]))
    assert_same_runs(killed, whole)
    one, other = (json.loads((folder / "summary.json").read_text()) for folder in (whole, killed))
    assert one["test"] == other["test"]
    assert one["val"] == other["val"]
