"""Callbacks of a training: what a resume needs, checkpoints inside an epoch, early stop, averaged weights."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping, WeightAveraging
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from loguru import logger
from torch.optim.swa_utils import get_ema_multi_avg_fn

from sdn.runs.signals import pending
from spikingssm.processes.distributed import gathered

__all__ = ["Alike", "EarlyStop", "ResumeState", "StepCheckpoint", "averaging"]


class Alike(Callback):
    """Refuses processes that were not started alike, which would train another network than any of them was asked for.

    Args:
        facts: plain values that must be the same in every process, such as keys, data and the checkpoint.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = dict(facts)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Compare.

        Raises:
            ValueError: the first fact that differs, with both values and who has them.
        """
        if stage != "fit" or trainer.world_size == 1:
            return
        first, *others = gathered(self.facts)
        for rank, other in enumerate(others, 1):
            for key in first | other:
                if first.get(key) != other.get(key):
                    raise ValueError(
                        f"process 0 has {key} {first.get(key)!r} and process {rank} has {other.get(key)!r}; start all "
                        "of them with the same command, on the same data and the same run folder."
                    )


class ResumeState(Callback):
    """What makes a resumed run go on as if it had never stopped: noise, place in the data, training metrics so far.

    Torch is seeded before each batch from (seed, epoch, batch, rank), so that dropout needs no state. Each checkpoint
    holds the ``place`` (epoch and batch that come next) and, inside an epoch, the metrics of every process.

    Args:
        seed: of the noise, >= 0.
        data: facts of the data; a run goes on with the same only.
    """

    def __init__(self, seed: int, data: Mapping[str, Any] | None = None) -> None:
        self.seed, self.place, self.data = seed, {"epoch": 0, "batch": 0}, dict(data or {})

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Seed the noise of this batch."""
        words = np.random.SeedSequence([self.seed, trainer.current_epoch, batch_idx, trainer.global_rank])
        seed = int(words.generate_state(1, np.uint64)[0] >> np.uint64(1))
        if pl_module.device.type == "cpu":
            torch.default_generator.manual_seed(seed)  # a tenth of the time of torch.manual_seed
        else:
            torch.manual_seed(seed)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Step to the next batch."""
        self.place = {"epoch": trainer.current_epoch, "batch": batch_idx + 1}

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Step to the next epoch, and log the training metrics of this one."""
        self.place = {"epoch": trainer.current_epoch + 1, "batch": 0}
        pl_module.log_metrics("fit")

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add place and metrics."""
        checkpoint["place"], checkpoint["data"] = dict(self.place), self.data
        checkpoint["running"] = gathered(pl_module.running()) if self.place["batch"] else []

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Take over the metrics of this process."""
        if running := checkpoint.get("running"):
            pl_module.go_on_from(running[trainer.global_rank])


class StepCheckpoint(Checkpoint):
    """``checkpoints/last.ckpt`` inside an epoch too: behind an optimiser step, never in the middle of an accumulation.

    A signal that stops the program waits for the end of the batch and gets a checkpoint too, see `sdn.runs.signals`.

    Args:
        run_dir: the run folder.
        every_n_steps: optimiser steps between two checkpoints, counted from the start of the run; None for none.
        every_minutes: minutes between two checkpoints; None for none.

    Raises:
        ValueError: a number that is not positive.
    """

    def __init__(
        self, run_dir: str | Path, every_n_steps: int | None = None, every_minutes: float | None = None
    ) -> None:
        if every_n_steps is not None and not (isinstance(every_n_steps, int) and every_n_steps > 0):
            raise ValueError(f"checkpoint.every_n_steps must be an integer >= 1 or null, got {every_n_steps!r}.")
        if every_minutes is not None and not (isinstance(every_minutes, (int, float)) and every_minutes > 0):
            raise ValueError(f"checkpoint.every_minutes must be a number > 0 or null, got {every_minutes!r}.")
        self.path = Path(run_dir) / "checkpoints" / "last.ckpt"
        self.every_n_steps, self.every_minutes = every_n_steps, every_minutes
        self._step, self._written = 0, 0.0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock."""
        self._written = time.monotonic()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock again: each epoch ends with a checkpoint anyway."""
        self._written = time.monotonic()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Remember the step, to see whether the batch makes one."""
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Write, if it is time; behind the last batch of an epoch validation and its own checkpoint follow."""
        if trainer.global_step == self._step or trainer.is_last_batch:
            return
        every = self.every_n_steps  # a batch may make several steps
        due = every is not None and trainer.global_step // every > self._step // every
        due = due or (pending() and trainer.world_size == 1)  # the signal came to this process alone
        if self.every_minutes is not None:
            late = time.monotonic() - self._written >= 60 * self.every_minutes
            due = due or trainer.strategy.reduce_boolean_decision(late, all=False)  # clocks of processes differ
        if due:
            trainer.save_checkpoint(self.path)
            self._written = time.monotonic()


class EarlyStop(EarlyStopping):
    """Lightning's early stop; a run that was killed behind its stop stays stopped when it resumes.

    Args:
        monitor: the logged metric.
        mode: "min" or "max".
        patience: epochs without a better value before the stop, >= 1.

    Raises:
        ValueError: a patience out of range.
    """

    def __init__(self, monitor: str, mode: str, patience: int) -> None:
        if not (isinstance(patience, int) and patience > 0):
            raise ValueError(f"early_stop.patience must be an integer >= 1 or null, got {patience!r}.")
        super().__init__(monitor, mode=mode, patience=patience)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Stop at once, if the restored run had stopped."""
        trainer.should_stop = self.stopping_reason != EarlyStoppingReason.NOT_STOPPED

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Say why the run ends."""
        if self.stopping_reason == EarlyStoppingReason.PATIENCE_EXHAUSTED:
            logger.info(f"early stop: {self.monitor} has not improved for {self.patience} epochs")
        elif self.stopping_reason == EarlyStoppingReason.NON_FINITE_METRIC:
            logger.warning(f"early stop: {self.monitor} is not finite")


def averaging(decay: float) -> WeightAveraging:
    """Exponential moving average of weights and buffers over the optimiser steps; it is what is validated and kept.

    Args:
        decay: of the average per step, in (0, 1).

    Raises:
        ValueError: a decay out of range.
    """
    if not (isinstance(decay, float) and 0 < decay < 1):
        raise ValueError(f"optim.ema must be a number in (0, 1) or null, got {decay!r}.")
    average: Any = get_ema_multi_avg_fn  # which has no types
    return WeightAveraging(multi_avg_fn=average(decay))
