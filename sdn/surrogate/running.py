"""What all trainings of a surrogate share: Lightning's trainer in a run folder, and how a run is gone on with."""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning

from sdn.runs import folder as runs
from sdn.runs.bar import Bar
from sdn.runs.interrupts import interruptible, without_handlers
from sdn.runs.lock import locked
from sdn.runs.resume import Restored, check_training_state

__all__ = ["epoch_to_start", "train"]


def epoch_to_start(run_dir: Path, settings: Mapping[str, Any], resume: bool) -> int:
    """The epoch a run starts with: 0, or that behind the last checkpoint, if that is of these settings.

    Raises:
        FileExistsError: the folder holds a run and ``resume`` is not set.
        ValueError: a checkpoint of other settings, or of something else.
    """
    last = run_dir / "checkpoints" / "last.ckpt"
    if last.exists() and not resume:
        raise FileExistsError(f"{run_dir} holds a run; go on with --resume {run_dir} (resume=True), or choose another.")
    found = runs.resumable(run_dir)
    if found is None:
        return 0
    if not isinstance(found.get("sdn"), dict) or not isinstance(found.get("recipe"), dict):
        raise ValueError(f"{last}: is not a checkpoint of an SDN; give the folder of a run of `sdn train --save`.")
    then = found["sdn"].get("sizes", {}) | found["recipe"]
    if changed := {k: (then.get(k), v) for k, v in settings.items() if then.get(k) != v}:
        shown = ", ".join(f"{k} was {a}, is {b}" for k, (a, b) in changed.items())
        raise ValueError(f"{last}: the run was started with other settings ({shown}); resume with the same ones.")
    check_training_state(last, found)
    return int(found["epoch"]) + 1


def train(module: lightning.LightningModule, feed: Any, check: Any, run_dir: Path, epochs: int, start: int) -> None:
    """Train from epoch ``start`` on, which is not 0 where the folder holds a checkpoint to go on from."""
    last = run_dir / "checkpoints" / "last.ckpt"
    restored = Restored(last if start else None)
    trainer = _trainer(run_dir, epochs, restored)
    if start < epochs:
        options: Any = {"ckpt_path": str(last) if start else None, "weights_only": True}
        with locked(run_dir), interruptible(trainer):
            restored.run(lambda: trainer.fit(module, feed, check, **options))


def _trainer(run_dir: Path, epochs: int, restored: Restored) -> lightning.Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    keep = [
        restored,
        runs.EpochRecord(run_dir),
        runs.StopOnNaN("train/loss", "val/loss"),
        *runs.checkpoints(run_dir, "val/loss", "min"),
    ]
    if shown := sys.stdout.isatty():
        keep.append(Bar(refresh_rate=10))
    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, max_epochs=epochs, logger=runs.tensorboard(run_dir), callbacks=keep,
        num_sanity_val_steps=0, plugins=[runs.WholeCheckpointIO()], enable_model_summary=False,
        enable_progress_bar=shown, log_every_n_steps=1, use_distributed_sampler=False,
    )  # fmt: skip
    return without_handlers(trainer)
