"""Training a sequence model with Lightning: the steps, what is logged, and what survives a kill."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from sdn.runs import EpochRecord, WholeCheckpointIO, checkpoints, load_checkpoint, resumable, tensorboard
from spikingssm.datasets.base import Batch, SequenceData
from spikingssm.metrics import SpikeRecord, record_spikes
from spikingssm.optim import parameter_groups, warmup_cosine
from spikingssm.tasks import Task

__all__ = ["SequenceModule", "fit", "score"]

STAGES = ("fit", "val", "test")  # a ModuleDict has a method named train
NAMES = {"fit": "train", "val": "val", "test": "test"}


class SequenceModule(lightning.LightningModule):
    """A model, a task and an optimiser: AdamW, linear warm-up and half a cosine to 0 over the real number of steps.

    Logged per epoch: train/ and val/ loss and accuracy, and val/spike_rate in all and per layer; test/ the same.

    Args:
        model: (x (B, L, C), lengths=(B,) or None) -> (logits, state).
        task: loss and metrics.
        classes: number of classes.
        lr: peak learning rate.
        weight_decay: of the weights; none on the rest, see `parameter_groups`.
        warmup: part of all steps with a rising learning rate, in [0, 1).
        carry_state: whether validation and test batches follow one another in one stream, see `SequenceData`.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        *,
        classes: int,
        lr: float = 0.01,
        weight_decay: float = 0.01,
        warmup: float = 0.01,
        carry_state: bool = False,
    ) -> None:
        super().__init__()
        if not (lr > 0 and weight_decay >= 0 and 0 <= warmup < 1):
            raise ValueError(
                "SequenceModule: lr must be > 0, weight_decay >= 0 and warmup in [0, 1), "
                f"got lr={lr}, weight_decay={weight_decay}, warmup={warmup}."
            )
        self.model, self.task = model, task
        self.lr, self.weight_decay, self.warmup = lr, weight_decay, warmup
        self.carry_state, self._state = carry_state, None
        self.metrics = nn.ModuleDict({stage: nn.ModuleDict(task.metrics(classes)) for stage in STAGES})
        self._open, self._spikes = ExitStack(), None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch.

        Raises:
            ValueError: a loss that is not finite; no checkpoint has seen it.
        """
        loss = self._score("fit", batch)
        if not torch.isfinite(loss):
            raise ValueError(
                f"train/loss became {loss.item()} in step {self.global_step + 1}; the checkpoints of the epochs before "
                "are intact. Lower optim.lr and start again, or look at the data."
            )
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the validation metrics."""
        self._score("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the test metrics."""
        self._score("test", batch)

    def on_validation_epoch_start(self) -> None:
        """Start counting spikes."""
        self._start_counting()

    def on_test_epoch_start(self) -> None:
        """Start counting spikes."""
        self._start_counting()

    def on_validation_epoch_end(self) -> None:
        """Log the spike rates."""
        self._log_rates("val")

    def on_test_epoch_end(self) -> None:
        """Log the spike rates."""
        self._log_rates("test")

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW on `parameter_groups`, `warmup_cosine` per step."""
        optimizer = torch.optim.AdamW(parameter_groups(self.model, self.lr, self.weight_decay))
        total = int(self.trainer.estimated_stepping_batches)
        warm = round(self.warmup * total)
        schedule = LambdaLR(optimizer, lambda step: warmup_cosine(step, warm, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _score(self, stage: str, batch: Batch) -> Tensor:
        carry = self.carry_state and stage != "fit"
        found = self.task.run(self.model, batch, self._state if carry else None, training=stage == "fit")
        self._state = found.state if carry else None
        name = NAMES[stage]
        how = {"on_step": False, "on_epoch": True, "batch_size": max(1, found.count)}
        self.log(f"{name}/loss", found.loss, sync_dist=stage != "fit", **how)
        for metric, values in found.updates.items():
            self.metrics[stage][metric].update(*values)
            self.log(f"{name}/{metric}", self.metrics[stage][metric], prog_bar=stage != "test", **how)
        return found.loss

    def _start_counting(self) -> None:
        self._state = None
        self._open.close()
        self._spikes: SpikeRecord | None = self._open.enter_context(record_spikes(self.model))

    def _log_rates(self, stage: str) -> None:
        self._open.close()
        assert self._spikes is not None
        rates = {"": self._spikes.total_rate, **{f"/{name}": rate for name, rate in self._spikes.rates().items()}}
        self.log_dict({f"{stage}/spike_rate{name}": rate for name, rate in rates.items()}, sync_dist=True)


class _SeedEpoch(Callback):
    """Seed torch from (seed, epoch, rank), so that dropout too is the same after a resume."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        words = np.random.SeedSequence([self.seed, trainer.current_epoch, trainer.global_rank])
        torch.manual_seed(int(words.generate_state(1, np.uint64)[0] >> np.uint64(1)))


def fit(
    module: SequenceModule,
    data: SequenceData,
    run_dir: str | Path,
    *,
    seed: int,
    resume: bool = False,
    callbacks: tuple[Callback, ...] = (),
    **trainer: Any,
) -> lightning.Trainer:
    """Train, writing metrics, TensorBoard and checkpoints to the run folder; then put the best weights into ``module``.

    Args:
        module: model, task and optimiser.
        data: train and validation loaders.
        run_dir: the run folder.
        seed: of the noise in each epoch.
        resume: continue after the last finished epoch; the result equals that of a run that was never stopped.
        callbacks: more of them.
        trainer: arguments of `lightning.Trainer`.

    Returns:
        the trainer, with which `score` can run.

    Raises:
        ValueError: a loss that is not finite, a damaged checkpoint, or an unknown argument of the trainer.
    """
    last, best = (Path(run_dir) / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    start: dict[str, Any] = {}
    if resume and (found := resumable(run_dir)) is not None:
        data.first_epoch = found["epoch"] + 1
        check_weights(last, module)
        check_weights(best, module)
        start = {"ckpt_path": str(last), "weights_only": True}
    own = [
        _SeedEpoch(seed),
        EpochRecord(run_dir),
        *checkpoints(run_dir, *module.task.monitor),
    ]
    loop = make_trainer(
        logger=tensorboard(run_dir),
        callbacks=[*own, *callbacks],
        plugins=[WholeCheckpointIO()],
        num_sanity_val_steps=0,
        enable_model_summary=False,
        log_every_n_steps=1,
        **trainer,
    )
    loop.fit(module, datamodule=data, **start)
    module.load_state_dict(check_weights(best, module))
    return loop


def make_trainer(**options: Any) -> lightning.Trainer:
    """A Lightning trainer; what it refuses comes out as a ValueError of one line."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # no advertisements
    try:
        return lightning.Trainer(**options)
    except (MisconfigurationException, TypeError) as error:
        raise ValueError(f"trainer: {' '.join(str(error).split())}") from None


def check_weights(path: str | Path, module: nn.Module) -> dict[str, Tensor]:
    """The weights in a checkpoint, if they are those of a module like this one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, or of another model.
    """
    found, own = load_checkpoint(path).get("state_dict"), module.state_dict()
    if not isinstance(found, dict):
        raise ValueError(f"{path}: holds no weights; give the folder of a run of `python train.py experiment=...`.")
    shapes = [{k: tuple(getattr(v, "shape", ())) for k, v in state.items()} for state in (found, own)]
    if differ := sorted(k for k in shapes[0] | shapes[1] if shapes[0].get(k) != shapes[1].get(k)):
        saved, here = (part.get(differ[0], "nothing") for part in shapes)
        raise ValueError(
            f"{path}: is of another model: {differ[0]} is {saved} there and {here} here ({len(differ)} differ); use "
            "the configuration of the run."
        )
    return found


def score(module: SequenceModule, data: SequenceData, loop: lightning.Trainer) -> dict[str, Any]:
    """The task's metrics, loss and spike rates of ``module`` on the test rows.

    Returns:
        ``accuracy`` or ``perplexity``, ``loss``, ``spike_rate`` over all layers, and ``spike_rates`` by layer.
    """
    found: Mapping[str, float] = loop.test(module, datamodule=data, verbose=False)[0]
    layers = {name.removeprefix("test/spike_rate/"): rate for name, rate in found.items() if "spike_rate/" in name}
    names = [*module.metrics["test"], "loss", "spike_rate"]
    return {**{name: found[f"test/{name}"] for name in names}, "spike_rates": layers}
